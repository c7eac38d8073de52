//! lapin: confirms, errors, transactions, recovery by hand and by itself.

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
    message::Delivery,
    options::*,
    types::{AMQPValue, DecimalValue, FieldTable, ShortString},
};
use polymq_interop::{Broker, Speaks};
use tokio::time::timeout;

use crate::{limit, order, with_broker};

async fn connect(broker: &Broker) -> Result<Connection> {
    let url = broker.amqp_url();
    let connecting = Connection::connect(&url, ConnectionProperties::default());
    Ok(timeout(limit(1), connecting).await??)
}

async fn own_queue(channel: &Channel, arguments: FieldTable) -> Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    Ok(queue.name().clone())
}

async fn durable_queue(channel: &Channel, name: &str) -> Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await?;
    Ok(())
}

async fn publish(channel: &Channel, queue: &str, body: &str) -> Result<Confirmation> {
    publish_with(channel, queue, body, BasicProperties::default().with_delivery_mode(2)).await
}

async fn publish_with(
    channel: &Channel,
    queue: &str,
    body: &str,
    properties: BasicProperties,
) -> Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm = channel
        .basic_publish("".into(), queue.into(), options, body.as_bytes(), properties)
        .await?;
    Ok(timeout(limit(1), confirm).await??)
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
}

async fn next(consumer: &mut Consumer) -> Result<Delivery> {
    let delivery = timeout(limit(1), consumer.next()).await.context("no delivery came")?;
    Ok(delivery.context("the consumer was cancelled")??)
}

async fn expect_in_order(consumer: &mut Consumer, count: usize) -> Result<()> {
    for number in 0..count {
        let delivery = next(consumer).await?;
        ensure!(delivery.data == number.to_string().as_bytes(), "{number}: {delivery:?}");
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// The code with which the broker closed the channel.
fn code_of<T>(result: lapin::Result<T>) -> Result<u16> {
    match result {
        Ok(_) => bail!("accepted"),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(told) => Ok(told.get_id()),
            _ => bail!("not an error of the broker: {error}"),
        },
    }
}

#[test]
fn lapin_publishes_with_confirms_and_consumes_in_order() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        durable_queue(&channel, "lapin").await?;
        channel.basic_qos(10, BasicQosOptions::default()).await?;
        let mut confirms = Vec::new();
        for number in 0..100 {
            let options = BasicPublishOptions::default();
            let body = number.to_string();
            let properties = BasicProperties::default().with_delivery_mode(2);
            let publish = channel.basic_publish(
                "".into(),
                "lapin".into(),
                options,
                body.as_bytes(),
                properties,
            );
            confirms.push(publish.await?);
        }
        for confirm in confirms {
            ensure!(confirm.await?.is_ack());
        }
        expect_in_order(&mut consume(&channel, "lapin").await?, 100).await?;
        let large = "x".repeat(1 << 20);
        publish(&channel, "lapin", &large).await?;
        let got = channel.basic_get("lapin".into(), BasicGetOptions { no_ack: true }).await?;
        // The consumer competes with the get; either one of them has the large body.
        ensure!(got.is_none_or(|message| message.data == large.as_bytes()));
        connection.close(200, "done".into()).await?;
        Ok(())
    })
}

#[test]
fn lapin_gets_properties_and_header_types_back() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        let mut inner = FieldTable::default();
        inner.insert("deep".into(), AMQPValue::Boolean(true));
        let mut headers = FieldTable::default();
        let values = [
            ("bool", AMQPValue::Boolean(true)),
            ("i8", AMQPValue::ShortShortInt(-5)),
            ("u8", AMQPValue::ShortShortUInt(200)),
            ("i16", AMQPValue::ShortInt(-300)),
            ("i32", AMQPValue::LongInt(-70_000)),
            ("u32", AMQPValue::LongUInt(4_000_000_000)),
            ("i64", AMQPValue::LongLongInt(1 << 40)),
            ("f32", AMQPValue::Float(1.5)),
            ("f64", AMQPValue::Double(2.25)),
            ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1250 })),
            ("text", AMQPValue::LongString("é".into())),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
            ("list", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), AMQPValue::Void].into())),
            ("table", AMQPValue::FieldTable(inner)),
            ("void", AMQPValue::Void),
        ];
        for (name, value) in values {
            headers.insert(name.into(), value);
        }
        let sent = BasicProperties::default()
            .with_headers(headers)
            .with_content_type("text/plain".into())
            .with_content_encoding("gzip".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("60000".into())
            .with_message_id("m".into())
            .with_timestamp(1_700_000_000)
            .with_type("t".into())
            .with_user_id("guest".into())
            .with_app_id("a".into());
        let queue = own_queue(&channel, FieldTable::default()).await?;
        let mut consumer = consume(&channel, queue.as_str()).await?;
        publish_with(&channel, queue.as_str(), "x", sent.clone()).await?;
        let found = next(&mut consumer).await?;
        ensure!(found.properties == sent, "{:?}", found.properties);
        Ok(())
    })
}

#[test]
fn lapin_sees_returns_nacks_and_dead_letters() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let Confirmation::Ack(Some(returned)) = publish(&channel, "nobody", "x").await? else {
            bail!("not returned");
        };
        ensure!(returned.reply_code == 312, "{returned:?}");

        let mut full = FieldTable::default();
        full.insert("x-max-length".into(), AMQPValue::LongInt(1));
        full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let short = own_queue(&channel, full).await?;
        ensure!(publish(&channel, short.as_str(), "fits").await?.is_ack());
        ensure!(publish(&channel, short.as_str(), "too much").await?.is_nack());

        let dead = own_queue(&channel, FieldTable::default()).await?;
        let mut letters = FieldTable::default();
        letters.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        letters.insert(
            "x-dead-letter-routing-key".into(),
            AMQPValue::LongString(dead.as_str().into()),
        );
        let queue = own_queue(&channel, letters).await?;
        publish(&channel, queue.as_str(), "x").await?;
        let mut consumer = consume(&channel, queue.as_str()).await?;
        let requeue = BasicNackOptions { requeue: true, ..Default::default() };
        next(&mut consumer).await?.nack(requeue).await?;
        let again = next(&mut consumer).await?;
        ensure!(again.redelivered);
        again.reject(BasicRejectOptions { requeue: false }).await?;
        let letter = next(&mut consume(&channel, dead.as_str()).await?).await?;
        let headers = letter.properties.headers().as_ref().context("no headers")?;
        let reason = headers.inner().get("x-first-death-reason");
        ensure!(reason == Some(&AMQPValue::LongString("rejected".into())), "{headers:?}");
        Ok(())
    })
}

#[test]
fn lapin_learns_the_code_of_each_channel_error() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let keeper = connection.create_channel().await?;
        durable_queue(&keeper, "lapin-fixed").await?;
        let plain = QueueDeclareOptions::default();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let table = FieldTable::default;

        let channel = connection.create_channel().await?;
        let found = channel.queue_declare("missing".into(), passive, table()).await;
        ensure!(code_of(found)? == 404);
        let channel = connection.create_channel().await?;
        let found = channel.queue_declare("lapin-fixed".into(), plain, table()).await;
        ensure!(code_of(found)? == 406);
        let channel = connection.create_channel().await?;
        let options = ExchangeDeclareOptions::default();
        let found = channel
            .exchange_declare("amq.mine".into(), ExchangeKind::Direct, options, table())
            .await;
        ensure!(code_of(found)? == 403);

        let other = connect(broker).await?;
        let owner = other.create_channel().await?;
        let locked = own_queue(&owner, table()).await?;
        let channel = connection.create_channel().await?;
        ensure!(code_of(channel.queue_declare(locked, passive, table()).await)? == 405);

        publish(&keeper, "lapin-fixed", "still open").await?;
        Ok(())
    })
}

#[test]
fn lapin_is_refused_with_a_wrong_password() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let url = broker.amqp_url().replace("guest:guest", "guest:wrong");
        let connecting = Connection::connect(&url, ConnectionProperties::default());
        let refused = timeout(limit(1), connecting).await?;
        ensure!(code_of(refused)? == 403);
        Ok(())
    })
}

#[test]
fn lapin_commits_and_rolls_back() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        let queue = own_queue(&channel, FieldTable::default()).await?;
        channel.tx_select().await?;
        publish(&channel, queue.as_str(), "no").await?;
        channel.tx_rollback().await?;
        publish(&channel, queue.as_str(), "yes").await?;
        channel.tx_commit().await?;
        let got = channel.basic_get(queue, BasicGetOptions { no_ack: true }).await?;
        ensure!(got.context("empty")?.data == b"yes");
        connection.update_secret("guest".into(), "rotation".into()).await?;
        Ok(())
    })
}

#[test]
fn lapin_finds_confirmed_messages_after_a_kill() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        durable_queue(&channel, "lapin-kept").await?;
        for number in 0..50 {
            ensure!(publish(&channel, "lapin-kept", &number.to_string()).await?.is_ack());
        }
        order(|| broker.kill_and_restart())?;
        ensure!(channel.basic_get("lapin-kept".into(), Default::default()).await.is_err());
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        expect_in_order(&mut consume(&channel, "lapin-kept").await?, 50).await
    })
}

#[test]
fn lapin_recovers_its_topology_by_itself_after_a_cut() -> Result<()> {
    with_broker(Speaks::Amqp, async |broker| {
        let properties = ConnectionProperties::default()
            .enable_auto_recover()
            .configure_backoff(|backoff| backoff.with_max_times(100));
        let connection = Connection::connect(&broker.amqp_url(), properties).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        // It declares queues again by their names, and the broker's own names are reserved.
        durable_queue(&channel, "lapin-recovered").await?;
        let mut consumer = consume(&channel, "lapin-recovered").await?;
        publish(&channel, "lapin-recovered", "before").await?;
        next(&mut consumer).await?.ack(BasicAckOptions::default()).await?;
        order(|| {
            broker.cut_connections();
            Ok(())
        })?;
        // Confirmed, because the first publish may still go into the dead connection.
        while let Err(error) = publish_confirmed(&channel, "lapin-recovered").await {
            timeout(limit(2), channel.wait_for_recovery(error)).await??;
        }
        loop {
            match timeout(limit(2), consumer.next()).await?.context("the consumer ended")? {
                Ok(delivery) if delivery.data == b"after" => return Ok(()),
                // The acknowledgement of the first may have been lost with the connection.
                Ok(_) => {}
                Err(error) => timeout(limit(2), channel.wait_for_recovery(error)).await??,
            }
        }
    })
}

async fn publish_confirmed(channel: &Channel, queue: &str) -> lapin::Result<Confirmation> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), queue.into(), options, b"after", properties).await?.await
}
