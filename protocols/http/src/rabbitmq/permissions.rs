//! Permissions, and those of topics.

use polymq_broker::{
    BrokerHandle, Manager, PermissionRecord, PermissionView, TopicPermissionRecord,
    TopicPermissionView, TopicSyntax,
};
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{UserName, VhostName};
use serde_json::{Value, json};

use super::{
    call::Call,
    list::{Columns, Row, Wanted},
    users,
    values::Fields,
    wire::{self, Failure, Outcome},
};

impl Row for PermissionView {
    fn place(&self) -> (&str, &str) {
        (self.vhost.as_str(), self.user.as_str())
    }
}

impl Row for TopicPermissionView {
    fn place(&self) -> (&str, &str) {
        (self.vhost.as_str(), self.user.as_str())
    }
}

/// A permission.
pub(super) fn object_of(view: &PermissionView) -> Value {
    json!({
        "user": view.user.as_str(),
        "vhost": view.vhost.as_str(),
        "configure": view.record.configure,
        "write": view.record.write,
        "read": view.record.read,
    })
}

/// A permission of topics.
pub(super) fn topic_object_of(view: &TopicPermissionView) -> Value {
    let mut shown = json!({
        "user": view.user.as_str(),
        "vhost": view.vhost.as_str(),
        "exchange": view.exchange,
        "write": view.record.write,
        "read": view.record.read,
    });
    if view.record.syntax != TopicSyntax::Regex {
        shown["syntax"] = json!(view.record.syntax);
    }
    shown
}

/// All permissions but those of virtual hosts that are being deleted.
///
/// Errors: those of the broker.
pub(super) fn all(
    manager: &Manager,
    broker: &BrokerHandle,
) -> Result<Vec<PermissionView>, Refusal> {
    let mut all = manager.permissions()?;
    all.retain(|view| broker.has_vhost(view.vhost.as_str()));
    Ok(all)
}

/// The same of topics.
///
/// Errors: those of the broker.
pub(super) fn all_topics(
    manager: &Manager,
    broker: &BrokerHandle,
) -> Result<Vec<TopicPermissionView>, Refusal> {
    let mut all = manager.topic_permissions()?;
    all.retain(|view| broker.has_vhost(view.vhost.as_str()));
    Ok(all)
}

fn answer(call: &Call, is_wanted: impl Fn(&PermissionView) -> bool) -> Outcome {
    let mut all = all(&call.manager, call.broker())?;
    all.retain(is_wanted);
    Wanted::of(call)?.answer(all, object_of)
}

fn answer_topics(call: &Call, is_wanted: impl Fn(&TopicPermissionView) -> bool) -> Outcome {
    let mut all = all_topics(&call.manager, call.broker())?;
    all.retain(is_wanted);
    Wanted::of(call)?.answer(all, topic_object_of)
}

/// `GET /permissions`
pub(super) fn list(call: &Call) -> Outcome {
    answer(call, |_| true)
}

fn known_vhost(call: &Call) -> Result<VhostName, Failure> {
    match call.broker().has_vhost(&call.vhost_name()) {
        true => call.vhost(),
        false => Err(Failure::not_found()),
    }
}

fn known_user(call: &Call) -> Result<UserName, Failure> {
    let name = users::name_of(call)?;
    match call.broker().access().user(name.as_str()) {
        Some(_) => Ok(name),
        None => Err(Failure::not_found()),
    }
}

/// `GET /vhosts/:vhost/permissions`
pub(super) fn list_of_vhost(call: &Call) -> Outcome {
    let vhost = known_vhost(call)?;
    answer(call, |view| view.vhost == vhost)
}

/// `GET /users/:user/permissions`
pub(super) fn list_of_user(call: &Call) -> Outcome {
    let user = known_user(call)?;
    answer(call, |view| view.user == user)
}

/// What a path names.
fn ends(call: &Call) -> Result<(VhostName, UserName), Failure> {
    Ok((call.vhost()?, users::name_of(call)?))
}

fn path_missing(refusal: Refusal) -> Failure {
    match refusal.kind {
        RefusalKind::NotFound => Failure::not_found(),
        _ => refusal.into(),
    }
}

/// In the body of a request a missing user or virtual host is its mistake.
fn not_there(refusal: Refusal) -> Failure {
    match refusal.kind {
        RefusalKind::NotFound => Failure::bad("vhost_or_user_not_found"),
        _ => refusal.into(),
    }
}

/// `GET /permissions/:vhost/:user`
pub(super) fn one(call: &Call) -> Outcome {
    let (vhost, user) = ends(call)?;
    let record = call.manager.permission(&vhost, &user).map_err(path_missing)?;
    wire::ok(&Columns::of(call).pick(object_of(&PermissionView { vhost, user, record })))
}

/// The record that the fields of a PUT or of definitions make.
///
/// Errors: some are missing or no text.
pub(super) fn record_of(fields: &Fields) -> Result<PermissionRecord, Failure> {
    fields.need(&["configure", "write", "read"])?;
    Ok(PermissionRecord {
        configure: fields.needed_text("configure")?,
        write: fields.needed_text("write")?,
        read: fields.needed_text("read")?,
    })
}

/// `PUT /permissions/:vhost/:user`
pub(super) fn put(call: &Call) -> Outcome {
    let (vhost, user) = ends(call)?;
    let record = record_of(&Fields::read(&call.body)?)?;
    wire::put(call.manager.put_permission(&vhost, &user, record).map_err(not_there)?)
}

/// `DELETE /permissions/:vhost/:user`
pub(super) fn delete(call: &Call) -> Outcome {
    let (vhost, user) = ends(call)?;
    call.manager.remove_permission(&vhost, &user).map_err(path_missing)?;
    wire::done()
}

/// `GET /topic-permissions`
pub(super) fn topics(call: &Call) -> Outcome {
    answer_topics(call, |_| true)
}

/// `GET /vhosts/:vhost/topic-permissions`
pub(super) fn topics_of_vhost(call: &Call) -> Outcome {
    let vhost = known_vhost(call)?;
    answer_topics(call, |view| view.vhost == vhost)
}

/// `GET /users/:user/topic-permissions`
pub(super) fn topics_of_user(call: &Call) -> Outcome {
    let user = known_user(call)?;
    answer_topics(call, |view| view.user == user)
}

/// The exchange of the path, if it has one.
fn exchange(call: &Call) -> Option<String> {
    call.has_path("exchange").then(|| call.exchange_name("exchange"))
}

/// `GET /topic-permissions/:vhost/:user` and `…/:exchange`
pub(super) fn topics_of(call: &Call) -> Outcome {
    let (vhost, user, exchange) = (known_vhost(call)?, known_user(call)?, exchange(call));
    let of = |view: &TopicPermissionView| {
        let is_meant = exchange.as_ref().is_none_or(|exchange| view.exchange == *exchange);
        view.vhost == vhost && view.user == user && is_meant
    };
    // RabbitMQ has no empty answer here.
    if !call.manager.topic_permissions()?.iter().any(of) {
        return Err(Failure::not_found());
    }
    answer_topics(call, of)
}

/// The exchange and the record that the fields of a PUT or of definitions make.
///
/// Errors: some are missing or no text.
pub(super) fn topic_record_of(fields: &Fields) -> Result<(String, TopicPermissionRecord), Failure> {
    fields.need(&["exchange", "write", "read"])?;
    let record = TopicPermissionRecord {
        write: fields.needed_text("write")?,
        read: fields.needed_text("read")?,
        syntax: syntax_of(fields)?,
    };
    Ok((fields.needed_text("exchange")?, record))
}

/// How the rules are written; RabbitMQ has expressions only.
fn syntax_of(fields: &Fields) -> Result<TopicSyntax, Failure> {
    match fields.text("syntax")?.as_deref() {
        None | Some("regex") => Ok(TopicSyntax::Regex),
        Some("dot") => Ok(TopicSyntax::Dot),
        Some("slash") => Ok(TopicSyntax::Slash),
        Some(other) => Err(Failure::bad(format!("syntax is regex, dot or slash, not '{other}'"))),
    }
}

/// `PUT /topic-permissions/:vhost/:user` and `…/:exchange`; the exchange is that of the body.
pub(super) fn put_topic(call: &Call) -> Outcome {
    let (vhost, user) = ends(call)?;
    let (exchange, record) = topic_record_of(&Fields::read(&call.body)?)?;
    let put = call.manager.put_topic_permission(&vhost, &user, &exchange, record);
    wire::put(put.map_err(not_there)?)
}

/// `DELETE /topic-permissions/:vhost/:user` and `…/:exchange`
pub(super) fn delete_topics(call: &Call) -> Outcome {
    let (vhost, user) = ends(call)?;
    let removed = call.manager.remove_topic_permissions(&vhost, &user, exchange(call).as_deref());
    removed.map_err(path_missing)?;
    wire::done()
}
