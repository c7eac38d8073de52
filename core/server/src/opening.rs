//! Opens the files that a configuration names, so that all that is wrong with them is told at once
//! and at its place, together with every other mistake.

use crate::{auth, config::Config, store, tls, xmpp};

/// The keys whose files cannot be used, and why.
pub(crate) fn mistakes(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, one) in &config.tls {
        if let Some((key, error)) = tls::mistake(one) {
            found.push((format!("tls.{name}.{key}"), format!("certificate `{name}`: {error:#}")));
        }
    }
    if let Err(error) = store::check(config) {
        found.push(("storage.postgres.url".to_owned(), format!("{error:#}")));
    }
    if let Err(error) = auth::check_keys(&config.auth_oauth) {
        found.push(("auth.oauth2.jwks".to_owned(), format!("{error:#}")));
    }
    for name in config.components.keys() {
        if let Err(error) = xmpp::component(config, name) {
            found.push((format!("components.{name}.secret_file"), format!("{error:#}")));
        }
    }
    found
}
