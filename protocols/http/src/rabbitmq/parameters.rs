//! Parameters. Those of virtual hosts belong to components, and the components here have paths of
//! their own: policies of operators and limits are shown, and whatever else is put is refused as in
//! a RabbitMQ without the plugin, so that nothing looks as if it were carried out.

use polymq_broker::PolicyKind;
use serde_json::{Value, json};

use super::{
    call::Call,
    limits,
    list::{Columns, Row, Wanted},
    policies,
    values::Fields,
    wire::{self, Failure, Outcome},
};

/// The component of policies of operators.
const OPERATOR_POLICY: &str = "operator_policy";
/// The component of limits.
const LIMITS: &str = "vhost-limits";

/// A parameter of a virtual host.
struct Parameter {
    component: &'static str,
    vhost: String,
    name: String,
    value: Value,
}

impl Row for Parameter {
    fn place(&self) -> (&str, &str) {
        (&self.vhost, &self.name)
    }
}

impl Parameter {
    fn object(&self) -> Value {
        json!({
            "component": self.component,
            "vhost": self.vhost,
            "name": self.name,
            "value": self.value,
        })
    }
}

fn parameters(call: &Call) -> Result<Vec<Parameter>, Failure> {
    let mut found = Vec::new();
    for row in policies::rows(call, PolicyKind::Operator)? {
        let mut value = policies::object_of(&row);
        if let Value::Object(map) = &mut value {
            map.retain(|name, _| name != "vhost" && name != "name");
        }
        let vhost = row.vhost.as_str().to_owned();
        found.push(Parameter { component: OPERATOR_POLICY, vhost, name: row.name, value });
    }
    for (vhost, value) in limits::of_vhosts(&call.manager, call.vhost_filter().as_deref())? {
        let name = "limits".to_owned();
        found.push(Parameter { component: LIMITS, vhost, name, value });
    }
    Ok(found)
}

/// `GET /parameters`, `/parameters/:component`, `/parameters/:component/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    let mut found = parameters(call)?;
    if call.has_path("component") {
        found.retain(|parameter| parameter.component == call.path("component"));
    }
    Wanted::of(call)?.answer(found, Parameter::object)
}

/// `GET /parameters/:component/:vhost/:name`
pub(super) fn one(call: &Call) -> Outcome {
    let (component, name) = (call.path("component"), call.path("name"));
    let mut found = parameters(call)?.into_iter();
    let parameter = found.find(|p| p.component == component && p.name == name);
    wire::ok(&Columns::of(call).pick(parameter.ok_or_else(Failure::not_found)?.object()))
}

fn unknown(component: &str) -> Failure {
    let why = match component {
        "shovel" => ": this broker has no shovels",
        "federation-upstream" | "federation-upstream-set" => ": this broker has no federation",
        _ => "",
    };
    Failure::bad(format!("Validation failed\n\ncomponent {component} not found{why}\n"))
}

/// `PUT /parameters/:component/:vhost/:name`
pub(super) fn put(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["value"])?;
    let value = fields.get("value").map(Fields::of).transpose()?;
    match (call.path("component"), value) {
        (OPERATOR_POLICY, Some(value)) => {
            let (record, now) = (policies::record_of(&value)?, crate::clock::now());
            let (vhost, name) = (call.vhost()?, call.path("name"));
            let kind = PolicyKind::Operator;
            wire::put(call.manager.put_policy(&vhost, kind, name, record, now)?)
        }
        (component, _) => Err(unknown(component)),
    }
}

/// `DELETE /parameters/:component/:vhost/:name`
pub(super) fn delete(call: &Call) -> Outcome {
    let name = call.path("name");
    let is_there =
        parameters(call)?.iter().any(|p| p.component == call.path("component") && p.name == name);
    match call.path("component") {
        OPERATOR_POLICY if is_there => {
            let (vhost, now) = (call.vhost()?, crate::clock::now());
            call.manager.remove_policy(&vhost, PolicyKind::Operator, name, now)?;
            wire::done()
        }
        component if is_there => Err(unknown(component)),
        _ => Err(Failure::not_found()),
    }
}

/// A parameter of the whole broker.
struct Global {
    name: String,
    value: Value,
}

impl Row for Global {
    fn place(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

impl Global {
    fn object(&self) -> Value {
        json!({ "name": self.name, "value": self.value })
    }
}

/// `GET /global-parameters`
pub(super) fn list_global(call: &Call) -> Outcome {
    let all = call.manager.global_parameters()?.into_iter();
    let rows = all.map(|(name, value)| Global { name, value }).collect();
    Wanted::of(call)?.answer(rows, Global::object)
}

/// `GET /global-parameters/:name`
pub(super) fn one_global(call: &Call) -> Outcome {
    let name = call.path("name").to_owned();
    let value = call.broker().global_parameter(&name).ok_or_else(Failure::not_found)?;
    wire::ok(&Columns::of(call).pick(Global { name, value }.object()))
}

/// `PUT /global-parameters/:name`
pub(super) fn put_global(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["value"])?;
    let value = fields.get("value").cloned().unwrap_or_default();
    wire::put(call.manager.put_global_parameter(call.path("name"), value)?)
}

/// `DELETE /global-parameters/:name`
pub(super) fn delete_global(call: &Call) -> Outcome {
    if call.broker().global_parameter(call.path("name")).is_none() {
        return Err(Failure::not_found());
    }
    call.manager.remove_global_parameter(call.path("name"))?;
    wire::done()
}
