//! What standard output says once the server is ready.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use serde_json::{Map, Value};

use crate::{
    config::EndpointProtocol,
    first_admin::{FirstAdmin, PASSWORD_FILE},
};

/// A listener as people look for it.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) protocol: EndpointProtocol,
    pub(crate) address: SocketAddr,
    pub(crate) has_tls: bool,
}

/// One line of JSON with the first port of each listener.
pub(crate) fn ports(listeners: &[Bound]) -> String {
    let mut ports = Map::new();
    for listener in listeners {
        ports.entry(&listener.name).or_insert_with(|| Value::from(listener.address.port()));
    }
    format!("{}\n", Value::Object(ports))
}

/// The lines for people.
pub(crate) fn ready(listeners: &[Bound], data: &str, is_dev: bool, took: Duration) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("PolyMQ {version} is ready after {} ms.\n\n", took.as_millis());
    let width = listeners.iter().map(|listener| listener.name.len()).max().unwrap_or(0).max(4);
    for listener in listeners {
        let Bound { name, address, has_tls, .. } = listener;
        let shown = match listener.protocol {
            EndpointProtocol::Http => format!("{}://{address}/", http_scheme(*has_tls)),
            EndpointProtocol::Metrics => {
                format!("{}://{address}/metrics", http_scheme(*has_tls))
            }
            EndpointProtocol::Amqp
            | EndpointProtocol::Mqtt
            | EndpointProtocol::Stomp
            | EndpointProtocol::Xmpp
            | EndpointProtocol::Auto => {
                format!("{address}{}", if *has_tls { "  TLS" } else { "" })
            }
        };
        push_line(&mut text, &format!("  {name:width$}  {shown}"));
    }
    push_line(&mut text, &format!("  {:width$}  {data}", "data"));
    let clients = listeners.iter().filter(|listener| {
        !matches!(listener.protocol, EndpointProtocol::Http | EndpointProtocol::Metrics)
    });
    if clients.clone().all(|listener| listener.address.ip().is_loopback()) {
        let flags: Vec<_> = clients
            .map(|Bound { name, address, .. }| {
                format!("--set listeners.{name}.bind=0.0.0.0:{}", address.port())
            })
            .collect();
        if !flags.is_empty() {
            text.push_str(
                "\nOnly clients on this machine can connect. For others, name an address:\n",
            );
            push_line(&mut text, &format!("  {}", flags.join(" ")));
        }
    }
    if is_dev {
        text.push_str(
            "\nDevelopment: from this machine, guest/guest may do everything, and clients of\n\
             MQTT and STOMP need no login.\n",
        );
    }
    text
}

fn http_scheme(has_tls: bool) -> &'static str {
    if has_tls { "https" } else { "http" }
}

/// The box with the administrator's password.
pub(crate) fn first_start(
    admin: &FirstAdmin,
    listeners: &[Bound],
    vhost: &str,
    kept_in: Option<&str>,
) -> String {
    let (name, password) = (&admin.name, admin.shown());
    let address = |protocol: EndpointProtocol| {
        let of_protocol = |listener: &&Bound| listener.protocol == protocol && !listener.has_tls;
        listeners.iter().find(of_protocol).map(|listener| listener.address)
    };
    let mut text = String::from("\n+-- First start ------------------------------------------\n");
    push_line(&mut text, &format!("|  user      {name}"));
    push_line(&mut text, &format!("|  password  {password}"));
    if let Some(amqp) = address(EndpointProtocol::Amqp) {
        push_line(
            &mut text,
            &format!("|  AMQP      amqp://{name}:{password}@{amqp}/{}", escaped(vhost)),
        );
    }
    if let Some(mqtt) = address(EndpointProtocol::Mqtt) {
        let (host, port) = (mqtt.ip(), mqtt.port());
        push_line(
            &mut text,
            &format!(
                "|  MQTT      mosquitto_sub -h {host} -p {port} -u {name} -P {password} -t '#'"
            ),
        );
    }
    if let Some(stomp) = address(EndpointProtocol::Stomp) {
        let (host, port) = (stomp.ip(), stomp.port());
        push_line(
            &mut text,
            &format!("|  STOMP     stomp -H {host} -P {port} -U {name} -W {password}"),
        );
    }
    match kept_in {
        Some(folder) => push_line(
            &mut text,
            &format!("|  The password is not shown again; it is in {folder}/{PASSWORD_FILE}"),
        ),
        None => push_line(&mut text, "|  Nothing is kept: the next start makes another password."),
    }
    text.push_str("+---------------------------------------------------------\n");
    text
}

/// A part of an address.
fn escaped(part: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    part.bytes().fold(String::new(), |mut out, byte| {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(name: &str, protocol: EndpointProtocol, address: &str) -> Bound {
        let address = address.parse().unwrap();
        Bound { name: name.to_owned(), protocol, address, has_tls: false }
    }

    fn listeners() -> Vec<Bound> {
        vec![
            bound("amqp", EndpointProtocol::Amqp, "127.0.0.1:5672"),
            bound("amqp", EndpointProtocol::Amqp, "[::1]:5673"),
            bound("mqtt", EndpointProtocol::Mqtt, "127.0.0.1:1883"),
            bound("http", EndpointProtocol::Http, "127.0.0.1:15672"),
        ]
    }

    #[test]
    fn ports_are_one_line_of_json_with_the_first_of_each_listener() {
        assert_eq!(ports(&listeners()), "{\"amqp\":5672,\"http\":15672,\"mqtt\":1883}\n");
    }

    #[test]
    fn banner_names_each_listener_and_what_a_remote_client_needs() {
        let text = ready(&listeners(), "./data", false, Duration::from_millis(38));
        assert!(text.contains("ready after 38 ms"), "{text}");
        assert!(text.contains("  amqp  127.0.0.1:5672\n  amqp  [::1]:5673\n"), "{text}");
        assert!(text.contains("http://127.0.0.1:15672/"), "{text}");
        assert!(text.contains("--set listeners.amqp.bind=0.0.0.0:5672"), "{text}");
        assert!(!text.contains("guest"), "{text}");

        let open = [bound("amqp", EndpointProtocol::Amqp, "0.0.0.0:5672")];
        assert!(!ready(&open, "./data", true, Duration::ZERO).contains("Only clients"));
    }

    #[test]
    fn first_start_has_lines_to_paste() {
        let admin = FirstAdmin {
            name: "admin".to_owned(),
            password: polymq_contract::Secret::new("pw"),
            is_made: true,
        };
        let text = first_start(&admin, &listeners(), "/", Some("./data"));
        assert!(text.contains("amqp://admin:pw@127.0.0.1:5672/%2F"), "{text}");
        assert!(text.contains("mosquitto_sub -h 127.0.0.1 -p 1883 -u admin -P pw"), "{text}");
        assert!(text.contains("./data/initial-admin-password"), "{text}");
    }
}
