//! Exchanges.

use polymq_broker::{ExchangeView, Span};
use polymq_contract::{Command, DeclareExchange};
use serde_json::{Value, json};

use super::{
    bindings,
    call::Call,
    list::{Columns, Row, Wanted},
    rates,
    values::{Fields, object},
    wire::{self, Failure, Outcome},
};

struct ExchangeRow(ExchangeView);

impl Row for ExchangeRow {
    fn place(&self) -> (&str, &str) {
        (self.0.vhost.as_str(), &self.0.name)
    }
}

fn object_of(exchange: &ExchangeView, span: Option<Span>, is_bare: bool) -> Value {
    let mut shown = json!({
        "name": exchange.name,
        "vhost": exchange.vhost.as_str(),
        "type": exchange.kind,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": object(&exchange.arguments),
        "user_who_performed_action": "",
    });
    if let Some(policy) = &exchange.policy {
        shown["policy"] = json!(policy);
    }
    if !is_bare {
        shown["message_stats"] = rates::message_stats(
            &rates::OF_EXCHANGE,
            &exchange.activity,
            &exchange.recent,
            span.is_some(),
        );
    }
    shown
}

/// `GET /exchanges`, `/exchanges/:vhost`
pub(super) fn list(call: &Call) -> Outcome {
    let (span, is_bare) = (call.spans.msg_rates, call.has_flag("disable_stats"));
    let views = call.broker().exchanges(call.vhost_filter().as_deref(), span);
    let views = views.map_err(|_| Failure::not_found())?;
    let mut sight = call.sight();
    let rows = views.into_iter().filter(|exchange| sight.sees(&exchange.vhost)).map(ExchangeRow);
    Wanted::of(call)?.answer(rows.collect(), |row| object_of(&row.0, span, is_bare))
}

fn found(call: &Call, span: Option<Span>) -> Result<ExchangeView, Failure> {
    let (vhost, name) = (call.vhost_name(), call.exchange_name("exchange"));
    call.broker().exchange(&vhost, &name, span).map_err(|_| Failure::not_found())
}

/// `GET /exchanges/:vhost/:exchange`
pub(super) fn one(call: &Call) -> Outcome {
    let span = call.spans.msg_rates;
    let mut shown = object_of(&found(call, span)?, span, false);
    shown["incoming"] = json!([]);
    shown["outgoing"] = json!([]);
    wire::ok(&Columns::of(call).pick(shown))
}

/// `PUT /exchanges/:vhost/:exchange`
pub(super) async fn put(call: Call) -> Outcome {
    let fields = Fields::read(&call.body)?;
    let (vhost, exchange) = (call.vhost_name(), call.exchange_name("exchange"));
    let is_new = call.broker().exchange(&vhost, &exchange, None).is_err();
    let kind = fields.text("type")?.unwrap_or_else(|| "direct".to_owned());
    let (durable, auto_delete) =
        (fields.flag("durable", true)?, fields.flag("auto_delete", false)?);
    let (internal, arguments) = (fields.flag("internal", false)?, fields.table("arguments")?);
    let path = path_of(&exchange);
    let declared = json!({
        "type": kind,
        "durable": durable,
        "auto_delete": auto_delete,
        "internal": internal,
        "arguments": object(&arguments),
    });
    call.order(|request| {
        Command::DeclareExchange(Box::new(DeclareExchange {
            request,
            exchange,
            kind,
            passive: false,
            durable,
            auto_delete,
            internal,
            arguments,
        }))
    })
    .await?;
    if is_new {
        call.audit("exchange.declare", &path, (Value::Null, declared));
    }
    wire::put(is_new)
}

/// An exchange below its virtual host, for the audit file.
fn path_of(exchange: &str) -> String {
    format!("exchanges/{exchange}")
}

/// `DELETE /exchanges/:vhost/:exchange`
pub(super) async fn delete(call: Call) -> Outcome {
    let before = found(&call, None)?;
    let before = json!({ "type": before.kind, "arguments": object(&before.arguments) });
    let (exchange, if_unused) = (call.exchange_name("exchange"), call.has_flag("if-unused"));
    let path = path_of(&exchange);
    call.order(|request| Command::DeleteExchange { request, exchange, if_unused }).await?;
    call.audit("exchange.delete", &path, (before, Value::Null));
    wire::done()
}

/// `GET /exchanges/:vhost/:exchange/bindings/source`
pub(super) fn bindings_from(call: &Call) -> Outcome {
    let exchange = found(call, None)?;
    bindings::answer(call, |binding| binding.source == exchange.name)
}

/// `GET /exchanges/:vhost/:exchange/bindings/destination`
pub(super) fn bindings_to(call: &Call) -> Outcome {
    let exchange = found(call, None)?;
    bindings::answer(call, |binding| !binding.to_queue && binding.destination == exchange.name)
}
