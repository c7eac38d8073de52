//! Loads certificates as the configuration names them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use polymq_driver::{CertificateField, ClientCertificates, Tls, server_config};

use crate::config::{
    self,
    value::{CertificateUser, ClientAuth},
};

/// Loads every certificate, by name.
///
/// Errors: a file that cannot be read, or that does not hold what it should.
pub(crate) fn load(
    named: &BTreeMap<String, config::Tls>,
) -> anyhow::Result<BTreeMap<String, Arc<Tls>>> {
    let load = |(name, tls): (&String, &config::Tls)| {
        let loaded = load_one(tls).with_context(|| format!("certificate `{name}`"))?;
        Ok((name.clone(), loaded))
    };
    named.iter().map(load).collect()
}

/// The key whose file keeps a certificate from being used, and why. Keys without a file are told
/// elsewhere.
pub(crate) fn mistake(tls: &config::Tls) -> Option<(&'static str, anyhow::Error)> {
    let mut files = vec![("cert_file", &tls.cert_file), ("key_file", &tls.key_file)];
    if tls.client_auth != ClientAuth::None {
        files.push(("client_ca_file", &tls.client_ca_file));
    }
    if files.iter().any(|(_, file)| file.as_os_str().is_empty()) {
        return None;
    }
    let unread = |(key, file): (&'static str, &PathBuf)| Some((key, read(file).err()?));
    let unread = files.into_iter().find_map(unread);
    unread.or_else(|| Some(("cert_file", load_one(tls).err()?)))
}

fn load_one(tls: &config::Tls) -> anyhow::Result<Arc<Tls>> {
    let (certificates, key) = (read(&tls.cert_file)?, read(&tls.key_file)?);
    let authorities = match tls.client_auth {
        ClientAuth::None => Vec::new(),
        ClientAuth::Optional | ClientAuth::Required => read(&tls.client_ca_file)?,
    };
    let clients = match tls.client_auth {
        ClientAuth::None => ClientCertificates::Ignored,
        ClientAuth::Optional => ClientCertificates::Optional(&authorities),
        ClientAuth::Required => ClientCertificates::Required(&authorities),
    };
    let field = match tls.client_user {
        CertificateUser::CommonName => CertificateField::CommonName,
        CertificateUser::DnsName => CertificateField::DnsName,
        CertificateUser::Email => CertificateField::Email,
        CertificateUser::Uri => CertificateField::Uri,
    };
    let tls = Tls::new(server_config(&certificates, &key, clients)?, Some(field));
    Ok(Arc::new(tls.with_certificates(&certificates)))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))
}
