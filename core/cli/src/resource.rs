//! What lists, shows, changes and deletes of every kind of object have in common.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Map, Value, json};

use crate::{
    api::{Api, Call},
    arguments::{Change, Common, Ls, Made, Removed, Sure},
    context::Target,
    failure::Failure,
    output::Output,
};

/// One broker, and where its answers go.
pub(crate) struct Session {
    pub(crate) api: Api,
    pub(crate) output: Output,
}

impl Session {
    pub(crate) fn new(common: &Common) -> Result<Self, Failure> {
        let output = Output::of(common);
        Ok(Self { api: Api::new(Target::find(common)?, common.show_request)?, output })
    }

    /// Lists what is at a path.
    pub(crate) fn list(&self, path: &str, ls: &Ls, columns: &[&str]) -> Result<(), Failure> {
        self.list_with(path, Vec::new(), ls, columns)
    }

    /// The same, with something of its own in the query.
    pub(crate) fn list_with(
        &self,
        path: &str,
        mut query: Vec<(&str, String)>,
        ls: &Ls,
        columns: &[&str],
    ) -> Result<(), Failure> {
        query.extend(ls.filter.clone().map(|filter| ("filter", filter)));
        query.extend(ls.sort.clone().map(|sort| ("sort", sort)));
        let rows = self.api.list(path, &query, ls.limit)?;
        self.output.check_columns(&rows)?;
        Ok(self.output.rows(&rows, columns)?)
    }

    /// Shows what is at a path.
    pub(crate) fn show(&self, path: &str) -> Result<(), Failure> {
        let document = self.api.call(&Call::new("GET", path))?;
        Ok(self.output.document(&document)?)
    }

    /// Makes what is not at a path yet. With `--idempotent` what is there becomes as asked for.
    pub(crate) fn create(&self, path: &str, body: &Value, change: Change) -> Result<(), Failure> {
        if !change.idempotent && self.api.call(&Call::new("GET", path)).is_ok() {
            let name = path.rsplit('/').next().unwrap_or(path);
            let text = format!("`{name}` is there already; --idempotent takes that for a success");
            return Err(Failure::Other(anyhow::anyhow!(text)));
        }
        // Somebody else may be quicker.
        let headers = [("if-none-match", "*".to_owned())];
        let headers: &[_] = if change.idempotent { &[] } else { &headers };
        self.change(&Call { headers, ..Call::new("PUT", path).json(body) }, change)
    }

    /// Makes or changes what is at a path.
    pub(crate) fn put(&self, path: &str, body: &Value, change: Change) -> Result<(), Failure> {
        self.change(&Call::new("PUT", path).json(body), change)
    }

    /// Calls what changes something, and says what came of it.
    pub(crate) fn change(&self, call: &Call<'_>, change: Change) -> Result<(), Failure> {
        self.change_to(call, change, "deleted")
    }

    /// Ends what is at a path; `word` says what it is then.
    pub(crate) fn end(
        &self,
        path: &str,
        query: &[(&str, String)],
        change: Change,
        word: &str,
    ) -> Result<(), Failure> {
        self.change_to(&Call::new("DELETE", path).query(query), change, word)
    }

    fn change_to(&self, call: &Call<'_>, change: Change, gone: &str) -> Result<(), Failure> {
        let mut query = call.query.to_vec();
        if change.dry_run {
            query.push(("dry_run", "true".to_owned()));
        }
        let call = Call { query: &query, headers: call.headers, body: call.body.same(), ..*call };
        match self.api.call_for_status(&call) {
            Ok((_, answer)) if change.dry_run => Ok(self.output.document(&answer)?),
            Ok((201, _)) => say("created"),
            Ok((204, _)) if call.method == "DELETE" => say(gone),
            Ok(_) => say("done"),
            Err(failure) if change.idempotent && failure.is_gone_or_there() => say("unchanged"),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes what is at a path, once somebody has confirmed it by its name.
    pub(crate) fn remove(&self, path: &str, removed: &Removed) -> Result<(), Failure> {
        self.delete(path, &[], removed.change, Some((&removed.name, removed.sure)))
    }

    /// Deletes what is at a path, once somebody has confirmed it.
    pub(crate) fn delete(
        &self,
        path: &str,
        query: &[(&str, String)],
        change: Change,
        sure: Option<(&str, Sure)>,
    ) -> Result<(), Failure> {
        if let Some((name, sure)) = sure.filter(|_| !change.dry_run) {
            confirm(name, sure)?;
        }
        self.change(&Call::new("DELETE", path).query(query), change)
    }
}

/// Asks for the name of what goes, unless somebody is sure already.
pub(crate) fn confirm(name: &str, sure: Sure) -> Result<(), Failure> {
    if sure.yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = format!("nobody can be asked about `{name}` here: this needs --yes");
        return Err(Failure::Usage(text));
    }
    write!(std::io::stderr(), "Type `{name}` to go on: ")?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if line.trim_end_matches(['\r', '\n']) == name {
        Ok(())
    } else {
        Err(Failure::Usage("nothing was done".to_owned()))
    }
}

/// Says something to people; data goes to standard output.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

/// The body that declares something.
pub(crate) fn made(made: &Made) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    body.insert("durable".to_owned(), json!(!made.transient));
    body.insert("auto_delete".to_owned(), json!(made.auto_delete));
    body.insert("arguments".to_owned(), typed(&made.arguments)?);
    Ok(body)
}

/// `KEY=VALUE` pairs as an object; a value that is JSON is that, everything else is text.
pub(crate) fn typed(pairs: &[String]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("`{pair}` is not KEY=VALUE")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        object.insert(key.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// `NAME=VALUE` or `NAME:VALUE` pairs as an object of texts.
pub(crate) fn headers(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let split = |pair: &String| {
        let (name, value) = pair
            .split_once(['=', ':'])
            .ok_or_else(|| Failure::Usage(format!("`{pair}` is not NAME=VALUE")))?;
        Ok((name.to_owned(), json!(value.trim_start())))
    };
    pairs.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_typed_and_headers_are_text() {
        let pairs =
            ["n=1".to_owned(), "b=true".to_owned(), "t=x=y".to_owned(), "q=\"1\"".to_owned()];
        assert_eq!(typed(&pairs).unwrap(), json!({ "n": 1, "b": true, "t": "x=y", "q": "1" }));
        let pairs = ["a: 1".to_owned(), "b=c:d".to_owned()];
        assert_eq!(json!(headers(&pairs).unwrap()), json!({ "a": "1", "b": "c:d" }));
        assert!(typed(&["x".to_owned()]).is_err());
    }

    #[test]
    fn scripts_must_be_sure() {
        assert!(confirm("orders", Sure { yes: true }).is_ok());
    }
}
