//! rumqttc with MQTT 3.1.1 and 5; both versions have the same conversation, by a macro.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use polymq_interop::{Broker, Speaks};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{limit, order, with_broker};

/// What a client saw, in a form that both versions share.
#[derive(Debug)]
enum Seen {
    Connected { session_present: bool },
    Refused,
    Lost,
    Granted,
    Settled,
    Message { topic: String, body: String, qos: u8, retain: bool },
}

/// A client with its event loop in a task; aborting the task ends the connection without a word.
struct Link<C> {
    client: C,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl<C> Link<C> {
    async fn next(&mut self) -> Result<Seen> {
        let seen = timeout(limit(1), self.seen.recv()).await.context("nothing happened")?;
        seen.context("the event loop ended")
    }

    async fn connected(&mut self) -> Result<bool> {
        loop {
            match self.next().await? {
                Seen::Connected { session_present } => return Ok(session_present),
                Seen::Lost => {}
                other => bail!("{other:?} before the connection"),
            }
        }
    }

    /// Waits for the broker's last packet of a publish or a subscribe, keeping messages back.
    async fn answered(&mut self) -> Result<Vec<Seen>> {
        let mut early = Vec::new();
        loop {
            match self.next().await? {
                Seen::Granted | Seen::Settled => return Ok(early),
                message @ Seen::Message { .. } => early.push(message),
                other => bail!("{other:?} instead of an answer"),
            }
        }
    }

    async fn message(&mut self) -> Result<(String, String, u8, bool)> {
        loop {
            match self.next().await? {
                Seen::Message { topic, body, qos, retain } => {
                    return Ok((topic, body, qos, retain));
                }
                Seen::Settled | Seen::Granted => {}
                other => bail!("{other:?} instead of a message"),
            }
        }
    }

    async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn message(topic: &str, body: &str, qos: u8, retain: bool) -> (String, String, u8, bool) {
    (topic.to_owned(), body.to_owned(), qos, retain)
}

macro_rules! conversation {
    ($name:ident, $($api:ident)::+, $kept:expr, $will:expr) => {
        mod $name {
            use $($api)::+ as api;
            use api::{AsyncClient, MqttOptions, Event, ConnectionError, mqttbytes::QoS};

            use super::*;

            const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            pub(super) fn options(broker: &Broker, id: &str) -> MqttOptions {
                let id = format!("{}-{id}", stringify!($name));
                let mut options = MqttOptions::new(id, "127.0.0.1", broker.mqtt_port());
                options.set_credentials("guest", "guest");
                options.set_keep_alive(Duration::from_secs(30));
                options
            }

            pub(super) fn start(options: MqttOptions) -> Link<AsyncClient> {
                let (client, mut events) = AsyncClient::new(options, 100);
                let (sender, seen) = mpsc::unbounded_channel();
                let task = tokio::spawn(async move {
                    loop {
                        let told = match events.poll().await {
                            Ok(Event::Incoming(packet)) => seen_in(packet),
                            Ok(Event::Outgoing(_)) => None,
                            Err(ConnectionError::ConnectionRefused(_)) => Some(Seen::Refused),
                            Err(_) => {
                                tokio::time::sleep(Duration::from_millis(50)).await;
                                Some(Seen::Lost)
                            }
                        };
                        if told.is_some_and(|told| sender.send(told).is_err()) {
                            return;
                        }
                    }
                });
                Link { client, seen, task }
            }

            fn seen_in(packet: api::Incoming) -> Option<Seen> {
                Some(match packet {
                    api::Incoming::ConnAck(ack) => {
                        Seen::Connected { session_present: ack.session_present }
                    }
                    api::Incoming::SubAck(_) => Seen::Granted,
                    api::Incoming::PubAck(_) | api::Incoming::PubComp(_) => Seen::Settled,
                    api::Incoming::Publish(publish) => Seen::Message {
                        topic: String::from_utf8_lossy(publish.topic.as_ref()).into_owned(),
                        body: String::from_utf8_lossy(&publish.payload).into_owned(),
                        qos: publish.qos as u8,
                        retain: publish.retain,
                    },
                    _ => return None,
                })
            }

            pub(super) async fn connect(options: MqttOptions) -> Result<Link<AsyncClient>> {
                let mut link = start(options);
                link.connected().await?;
                Ok(link)
            }

            fn kept(broker: &Broker, id: &str) -> MqttOptions {
                let mut options = options(broker, id);
                $kept(&mut options);
                options
            }

            #[test]
            fn publishes_and_subscribes_with_each_qos() -> Result<()> {
                with_broker(Speaks::Mqtt, async |broker| {
                    let mut publisher = connect(options(broker, "p")).await?;
                    let mut subscriber = connect(options(broker, "s")).await?;
                    for (number, qos) in (0..).zip(QOS) {
                        let topic = format!("rust/{number}");
                        subscriber.client.subscribe(&topic, qos).await?;
                        subscriber.answered().await?;
                        for body in 0..20 {
                            let body = body.to_string();
                            publisher.client.publish(&topic, qos, false, body.clone()).await?;
                            if number > 0 {
                                publisher.answered().await?;
                            }
                            let found = subscriber.message().await?;
                            ensure!(found == message(&topic, &body, number, false), "{found:?}");
                        }
                    }
                    Ok(())
                })
            }

            #[test]
            fn retained_message_and_will_arrive() -> Result<()> {
                with_broker(Speaks::Mqtt, async |broker| {
                    let mut watcher = connect(options(broker, "w")).await?;
                    watcher.client.publish("r/a", QoS::AtLeastOnce, true, "kept").await?;
                    watcher.answered().await?;
                    watcher.client.subscribe("r/+", QoS::AtLeastOnce).await?;
                    ensure!(watcher.message().await? == message("r/a", "kept", 1, true));
                    let mut mortal = options(broker, "mortal");
                    mortal.set_last_will($will);
                    connect(mortal).await?.vanish().await;
                    ensure!(watcher.message().await? == message("r/will", "gone", 1, false));
                    Ok(())
                })
            }

            #[test]
            fn wrong_password_is_refused() -> Result<()> {
                with_broker(Speaks::Mqtt, async |broker| {
                    let mut options = options(broker, "bad");
                    options.set_credentials("guest", "wrong");
                    let first = start(options).next().await?;
                    ensure!(matches!(first, Seen::Refused), "{first:?}");
                    Ok(())
                })
            }

            #[test]
            fn session_survives_a_cut_and_a_kill() -> Result<()> {
                with_broker(Speaks::Mqtt, async |broker| {
                    let mut sleeper = connect(kept(broker, "sleeper")).await?;
                    sleeper.client.subscribe("missed/#", QoS::ExactlyOnce).await?;
                    sleeper.answered().await?;
                    order(|| {
                        broker.cut_connections();
                        Ok(())
                    })?;
                    ensure!(sleeper.connected().await?, "session after the cut");
                    sleeper.vanish().await;
                    let mut publisher = connect(options(broker, "p")).await?;
                    for (number, qos) in (0..).zip(QOS).skip(1) {
                        let topic = format!("missed/{number}");
                        publisher.client.publish(topic, qos, false, "x").await?;
                        publisher.answered().await?;
                    }
                    order(|| broker.kill_and_restart())?;
                    let mut again = start(kept(broker, "sleeper"));
                    ensure!(again.connected().await?, "session after the kill");
                    ensure!(again.message().await? == message("missed/1", "x", 1, false));
                    ensure!(again.message().await? == message("missed/2", "x", 2, false));
                    ensure!(!publisher.connected().await?, "the publisher comes back by itself");
                    Ok(())
                })
            }
        }
    };
}

conversation!(
    v4,
    rumqttc,
    |options: &mut MqttOptions| {
        options.set_clean_session(false);
    },
    api::LastWill::new("r/will", "gone", QoS::AtLeastOnce, false)
);
conversation!(
    v5,
    rumqttc::v5,
    |options: &mut MqttOptions| {
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(300));
    },
    api::mqttbytes::v5::LastWill::new("r/will", "gone", QoS::AtLeastOnce, false, None)
);

#[test]
fn v5_properties_and_reason_codes_come_back() -> Result<()> {
    use rumqttc::v5::{
        AsyncClient, Event, Incoming,
        mqttbytes::{QoS, v5::PubAckReason, v5::PublishProperties},
    };
    with_broker(Speaks::Mqtt, async |broker| {
        let (client, mut events) = AsyncClient::new(v5::options(broker, "props"), 10);
        let sent = PublishProperties {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("r".to_owned()),
            correlation_data: Some(vec![0, 255].into()),
            user_properties: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
            payload_format_indicator: Some(1),
            ..Default::default()
        };
        client.publish("nobody", QoS::AtLeastOnce, false, "x").await?;
        let mut subscribed = false;
        loop {
            let event = timeout(limit(1), events.poll()).await.context("nothing came")??;
            match event {
                Event::Incoming(Incoming::PubAck(ack)) if !subscribed => {
                    ensure!(ack.reason == PubAckReason::NoMatchingSubscribers, "{ack:?}");
                    client.subscribe("$share/rust/props", QoS::AtLeastOnce).await?;
                    subscribed = true;
                }
                Event::Incoming(Incoming::SubAck(_)) => {
                    let (qos, sent) = (QoS::AtLeastOnce, sent.clone());
                    client.publish_with_properties("props", qos, false, "x", sent).await?;
                }
                Event::Incoming(Incoming::Publish(found)) => {
                    ensure!(found.properties.as_ref() == Some(&sent), "{found:?}");
                    return Ok(());
                }
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    })
}
