//! Server-sent events (WHATWG HTML, section 9.2.6).

use std::io::{self, BufRead, BufReader, Read};

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` when it has none.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// The events of a stream, in order.
pub(crate) struct Events<R>(BufReader<R>);

impl<R: Read> Events<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self(BufReader::new(stream))
    }

    fn read(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event { name: "message".to_owned(), data: String::new() };
        let mut has_data = false;
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if has_data {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                _ => {}
            }
        }
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_are_not() {
        let text = ": hello\n\nevent: snapshot\ndata: {\"a\":\ndata: 1}\nid: 7\n\ndata: x\r\n\r\n";
        let events: Vec<_> = Events::new(text.as_bytes()).map(Result::unwrap).collect();
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        assert_eq!(events, [event("snapshot", "{\"a\":\n1}"), event("message", "x")]);
    }
}
