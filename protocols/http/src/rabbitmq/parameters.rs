//! Parameters. Those of virtual hosts belong to components, and the components here have paths of
//! their own: policies of operators and limits are shown, and whatever else is put is refused as in
//! a RabbitMQ without the plugin, so that nothing looks as if it were carried out.

use polymq_broker::{PolicyKind, VhostLimits};
use serde_json::{Value, json};

use super::{
    call::Call,
    limits,
    list::{Columns, Row, Wanted},
    policies::{self, PolicyRow},
    values::Fields,
    wire::{self, Failure, Outcome},
};

/// The component of policies of operators.
const OPERATOR_POLICY: &str = "operator_policy";
/// The component of limits.
const LIMITS: &str = "vhost-limits";
/// The only name of a parameter of limits.
const LIMITS_NAME: &str = "limits";
/// The component of policies, which is shown only when it is asked for.
const POLICY: &str = "policy";

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

fn policies_of(call: &Call, kind: PolicyKind) -> Result<Vec<Parameter>, Failure> {
    let component = if kind == PolicyKind::User { POLICY } else { OPERATOR_POLICY };
    let parameter = |row: PolicyRow| {
        let mut value = policies::object_of(&row);
        if let Value::Object(map) = &mut value {
            map.retain(|name, _| name != "vhost" && name != "name");
        }
        Parameter { component, vhost: row.vhost.as_str().to_owned(), name: row.name, value }
    };
    Ok(policies::rows(call, kind)?.into_iter().map(parameter).collect())
}

/// The parameters of the component of the path, or of all.
fn parameters(call: &Call) -> Result<Vec<Parameter>, Failure> {
    let component = call.has_path("component").then(|| call.path("component"));
    if component == Some(POLICY) {
        return policies_of(call, PolicyKind::User);
    }
    let mut found = policies_of(call, PolicyKind::Operator)?;
    for (vhost, value) in limits::of_vhosts(&call.manager, call.vhost_filter().as_deref())? {
        found.push(Parameter { component: LIMITS, vhost, name: LIMITS_NAME.to_owned(), value });
    }
    found.retain(|parameter| component.is_none_or(|component| parameter.component == component));
    Ok(found)
}

/// `GET /parameters`, `/parameters/:component`, `/parameters/:component/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    Wanted::of(call)?.answer(parameters(call)?, Parameter::object)
}

/// `GET /parameters/:component/:vhost/:name`
pub(super) fn one(call: &Call) -> Outcome {
    let name = call.path("name");
    let parameter = parameters(call)?.into_iter().find(|parameter| parameter.name == name);
    wire::ok(&Columns::of(call).pick(parameter.ok_or_else(Failure::not_found)?.object()))
}

/// A component whose parameters are not set here.
fn other(component: &str, verb: &str) -> Failure {
    match component {
        POLICY => Failure::bad(format!("policies may not be {verb} using this method")),
        _ => unknown(component),
    }
}

fn unknown(component: &str) -> Failure {
    let why = match component {
        "shovel" => ": this broker has no shovels",
        "federation-upstream" | "federation-upstream-set" => ": this broker has no federation",
        _ => "",
    };
    Failure::bad(format!("Validation failed\n\ncomponent {component} not found{why}\n"))
}

/// Sets all limits of the virtual host of the path.
fn set_limits(call: &Call, limits: VhostLimits) -> Result<(), Failure> {
    let vhost = call.vhost()?;
    Ok(call.manager.set_vhost_limits(&vhost, limits)?)
}

/// `PUT /parameters/:component/:vhost/:name`
pub(super) fn put(call: &Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    fields.need(&["value"])?;
    let (name, value) = (call.path("name"), fields.get("value"));
    match (call.path("component"), value) {
        (OPERATOR_POLICY, Some(value)) => {
            let (record, now) = (policies::record_of(&Fields::of(value)?)?, crate::clock::now());
            let (vhost, kind) = (call.vhost()?, PolicyKind::Operator);
            wire::put(call.manager.put_policy(&vhost, kind, name, record, now)?)
        }
        (LIMITS, Some(Value::Object(map))) if name == LIMITS_NAME => {
            let is_new = parameters(call)?.is_empty();
            set_limits(call, limits::vhost_limits_of(map)?)?;
            wire::put(is_new)
        }
        (LIMITS, _) => {
            let text = format!("{LIMITS} has one parameter, '{LIMITS_NAME}', with an object");
            Err(Failure::bad(text))
        }
        (component, _) => Err(other(component, "set")),
    }
}

/// `DELETE /parameters/:component/:vhost/:name`
pub(super) fn delete(call: &Call) -> Outcome {
    let name = call.path("name");
    if !parameters(call)?.iter().any(|parameter| parameter.name == name) {
        return Err(Failure::not_found());
    }
    match call.path("component") {
        OPERATOR_POLICY => {
            let (vhost, now) = (call.vhost()?, crate::clock::now());
            call.manager.remove_policy(&vhost, PolicyKind::Operator, name, now)?;
        }
        LIMITS => set_limits(call, VhostLimits::default())?,
        component => return Err(other(component, "cleared")),
    }
    wire::done()
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
