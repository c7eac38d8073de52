//! Parameters of the whole broker: named values that mean something to people and tools.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use polymq_contract::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Manager, not_found};
use crate::{
    BrokerHandle,
    access::Role,
    definitions::{self, kind},
};

/// The parameter that is the name of the cluster.
const CLUSTER_NAME: &str = "cluster_name";
/// Parameters at a time.
const PARAMETERS_MAX: usize = 1000;
/// The largest name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The largest value, in bytes of JSON.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// A parameter as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredParameter {
    value: Value,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Parameters(RwLock<BTreeMap<String, Value>>);

impl Parameters {
    pub(crate) fn restore(&self, name: &str, stored: StoredParameter) {
        self.0.write().insert(name.to_owned(), stored.value);
    }
}

impl BrokerHandle {
    /// The value of a parameter of the whole broker.
    pub fn global_parameter(&self, name: &str) -> Option<Value> {
        self.0.parameters.0.read().get(name).cloned()
    }
}

impl Manager {
    /// The parameters of the whole broker, by name. Needs a policymaker.
    ///
    /// Errors: kind `Denied`.
    pub fn global_parameters(&self) -> Result<Vec<(String, Value)>, Refusal> {
        self.require(Role::Policymaker)?;
        let parameters = self.core.parameters.0.read();
        Ok(parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Errors: kind `Denied`.
    fn require_parameter(&self, name: &str) -> Result<(), Refusal> {
        self.require(if name == CLUSTER_NAME { Role::Administrator } else { Role::Policymaker })
    }

    /// Sets a parameter of the whole broker. True when it is new. Needs a policymaker, and the name
    /// of the cluster an administrator.
    ///
    /// Errors: kind `Denied`; kind `Invalid` when name or value are too long; kind `Limit`.
    pub fn put_global_parameter(&self, name: &str, value: Value) -> Result<bool, Refusal> {
        self.require_parameter(name)?;
        let refuse = |kind, text: String| Err(Refusal::new(kind, text));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            let text = format!("the name of a parameter has 1 to {NAME_BYTES_MAX} bytes");
            return refuse(RefusalKind::Invalid, text);
        }
        if value.to_string().len() > VALUE_BYTES_MAX {
            let text = format!("the value of a parameter has at most {VALUE_BYTES_MAX} bytes");
            return refuse(RefusalKind::Invalid, text);
        }
        let mut parameters = self.core.parameters.0.write();
        if parameters.len() >= PARAMETERS_MAX && !parameters.contains_key(name) {
            return refuse(RefusalKind::Limit, format!("there are {PARAMETERS_MAX} parameters"));
        }
        let key = definitions::key(&[kind::GLOBAL_PARAMETER, name]);
        let stored = definitions::encode(&StoredParameter { value: value.clone() });
        // Under the lock, so that what is stored last is what stands.
        self.core.committer.append(|writer| writer.meta_put(&key, &stored));
        let before = parameters.insert(name.to_owned(), value.clone());
        drop(parameters);
        let is_new = before.is_none();
        let object = format!("/global-parameters/{name}");
        self.audit("global_parameter.put", object, before.unwrap_or_default(), value);
        Ok(is_new)
    }

    /// Removes a parameter of the whole broker. Needs what setting it needs.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn remove_global_parameter(&self, name: &str) -> Result<(), Refusal> {
        self.require_parameter(name)?;
        let mut parameters = self.core.parameters.0.write();
        let before = parameters.remove(name);
        let before = before.ok_or_else(|| not_found("parameter", name, ""))?;
        let key = definitions::key(&[kind::GLOBAL_PARAMETER, name]);
        self.core.committer.append(|writer| writer.meta_delete(&key));
        drop(parameters);
        let object = format!("/global-parameters/{name}");
        self.audit("global_parameter.delete", object, before, Value::Null);
        Ok(())
    }
}
