//! A publish that is answered with the answer to it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use polymq_contract::Consume;
use polymq_model::{Body as MessageBody, address::Address, json_form::JsonProperties};

use super::publish::{Confirm, outcome, outgoing_of_request, publish_one, unroutable};
use crate::{
    call::Call,
    client::{Client, Next},
    clock,
    problem::Problem,
    raw,
};

const WAIT_MAX: Duration = Duration::from_secs(60);
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Publishes a request and answers with its answer, for which `wait` is left once the request is
/// as safe as asked for.
pub(super) async fn answered(
    call: &Call,
    client: &Arc<Client>,
    to: (&str, &str),
    mut properties: JsonProperties,
    body: bytes::Bytes,
    wait: Duration,
) -> Result<Response<Body>, Problem> {
    if wait > WAIT_MAX {
        let text = "an answer is waited for 60s at most";
        return Err(Problem::bad("out_of_range", text).at("reply"));
    }
    let consume = client.consume(|request, consumer| Consume {
        request,
        consumer,
        queue: REPLY_TO.to_owned(),
        no_ack: true,
        exclusive: false,
        prefetch: 0,
        group: 0,
        tag: String::new(),
        arguments: Vec::new(),
    });
    let mut answers = consume.await.map_err(|refusal| Problem::refused(&refusal, "queue"))?;
    let name = answers.reply_name().unwrap_or_default().to_owned();
    properties.reply_to = Some(Address::Queue(name.clone()).to_text());
    properties.correlation_id.get_or_insert(name);
    let body = MessageBody::Shared(body);
    let outgoing = outgoing_of_request(call, client, to, properties, body)?;
    let told = publish_one(client, outgoing, Confirm::of(call)).await;
    if outcome(&told.outcome, client, "exchange")? == "unrouted" {
        return Err(unroutable("no queue takes the request, so nobody can answer it"));
    }
    match answers.next_within(wait).await {
        Some(Next::Delivery(delivery)) => {
            call.site.note_shown(&delivery.message);
            Ok(raw::response(&call.site, &delivery.message, clock::now().unix_ms))
        }
        Some(Next::Cancelled(_) | Next::Ended(_)) => {
            let text = "the server stops; the request may be answered to nobody";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", text).retry())
        }
        None => {
            let text = format!("no answer came within {} ms", wait.as_millis());
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "no_reply", text))
        }
    }
}
