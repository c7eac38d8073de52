//! Where messages go to and come from, as it is written on the command line.

use std::str::FromStr;

/// `queue:orders`, `exchange:amq.topic/sensors.7`, `topic:sensors.7.temp`; a bare name is a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue by name.
    Queue(String),
    /// An exchange and a routing key, or a pattern of keys.
    Exchange(String, String),
}

impl Destination {
    const TOPICS: &'static str = "amq.topic";
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.split_once(':') {
            Some((kind @ ("queue" | "exchange" | "topic"), rest)) => (kind, rest),
            Some(("stream", _)) => return Err("there are no streams yet".to_owned()),
            Some((kind, _)) => {
                return Err(format!(
                    "`{kind}` is none of queue, exchange, topic; a queue with such a name is \
                     `queue:{text}`"
                ));
            }
            None => ("queue", text),
        };
        if rest.is_empty() {
            return Err(format!("the name after `{kind}:` is missing"));
        }
        Ok(match kind {
            "topic" => Self::Exchange(Self::TOPICS.to_owned(), rest.to_owned()),
            "exchange" => {
                let (exchange, key) = rest.split_once('/').unwrap_or((rest, ""));
                Self::Exchange(exchange.to_owned(), key.to_owned())
            }
            _ => Self::Queue(rest.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Destination, String> {
        text.parse()
    }

    #[test]
    fn destinations_are_read() {
        let exchange = |name: &str, key: &str| Ok(Destination::Exchange(name.into(), key.into()));
        assert_eq!(read("orders"), Ok(Destination::Queue("orders".into())));
        assert_eq!(read("queue:a:b"), Ok(Destination::Queue("a:b".into())));
        assert_eq!(read("queue:urn:x"), Ok(Destination::Queue("urn:x".into())));
        assert!(read("topi:x").unwrap_err().contains("`queue:topi:x`"));
        assert_eq!(read("topic:a.b"), exchange("amq.topic", "a.b"));
        assert_eq!(read("exchange:x/a.b/c"), exchange("x", "a.b/c"));
        assert_eq!(read("exchange:x"), exchange("x", ""));
        assert!(read("queue:").is_err());
        assert!(read("stream:s").is_err());
    }
}
