//! Which user a client certificate stands for.

use aws_lc_rs::digest;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Error},
};

/// The part of a client certificate that names its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateField {
    /// The common name of the subject.
    CommonName,
    /// The DNS name among the alternative names.
    DnsName,
    /// The mail address among the alternative names.
    Email,
    /// The URI among the alternative names.
    Uri,
}

impl CertificateField {
    /// The user in a verified certificate; `None` when the field is missing, or is there more than
    /// once, so that nobody has to guess which one counts.
    pub(crate) fn user_in(self, der: &[u8]) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut values = self.values(&certificate).ok()?.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Some(value),
            _ => None,
        }
    }

    fn values(self, certificate: &X509Certificate<'_>) -> Result<Vec<String>, X509Error> {
        if self == Self::CommonName {
            let names = certificate.subject().iter_common_name();
            return names.map(|name| name.as_str().map(str::to_owned)).collect();
        }
        let Some(alternatives) = certificate.subject_alternative_name()? else {
            return Ok(Vec::new());
        };
        let of_kind = |name: &GeneralName<'_>| match (self, name) {
            (Self::DnsName, GeneralName::DNSName(value))
            | (Self::Email, GeneralName::RFC822Name(value))
            | (Self::Uri, GeneralName::URI(value)) => Some((*value).to_owned()),
            _ => None,
        };
        Ok(alternatives.value.general_names.iter().filter_map(of_kind).collect())
    }
}

/// The hash of a certificate that `tls-server-end-point` is: the one its signature uses, and
/// SHA-256 instead of weaker ones (RFC 5929, section 4.1).
pub(crate) fn end_point_hash(der: &[u8]) -> Vec<u8> {
    const SHA384: [&str; 2] = ["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"];
    const SHA512: [&str; 2] = ["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"];
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    let algorithm = match signature.as_str() {
        named if SHA384.contains(&named) => &digest::SHA384,
        named if SHA512.contains(&named) => &digest::SHA512,
        _ => &digest::SHA256,
    };
    digest::digest(algorithm, der).as_ref().to_vec()
}

/// When a certificate ends, in seconds since 1970; 0 for one that ended before (RFC 5280, section
/// 4.1.2.5).
pub(crate) fn not_after(der: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}
