//! What a client settles a delivery with: it names a lease, and is signed for the one user and
//! queue that it was given to.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

const NUMBER_BYTES: usize = 8;

/// Signs receipts. Its key lives as long as the process, like the leases.
pub(crate) struct Signer(hmac::Key);

/// Whom a receipt is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bearer<'a> {
    pub(crate) user: &'a str,
    pub(crate) vhost: &'a str,
    pub(crate) queue: &'a str,
}

impl Signer {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The receipt of a lease.
    pub(crate) fn sign(&self, lease: u64, bearer: Bearer<'_>) -> String {
        let tag = hmac::sign(&self.0, &signed(lease, bearer));
        let mut bytes = lease.to_be_bytes().to_vec();
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The lease of a receipt; `None` when it is nobody's, or somebody else's.
    pub(crate) fn read(&self, receipt: &str, bearer: Bearer<'_>) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(receipt).ok()?;
        let (number, tag) = bytes.split_at_checked(NUMBER_BYTES)?;
        let lease = u64::from_be_bytes(number.try_into().ok()?);
        hmac::verify(&self.0, &signed(lease, bearer), tag).ok()?;
        Some(lease)
    }
}

/// Names end with a byte that none of them holds.
fn signed(lease: u64, bearer: Bearer<'_>) -> Vec<u8> {
    let mut bytes = lease.to_be_bytes().to_vec();
    for name in [bearer.user, bearer.vhost, bearer.queue] {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0xff);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipt_is_good_for_its_bearer_only() {
        let signer = Signer::new(&[1; 32]);
        let bearer = Bearer { user: "u", vhost: "/", queue: "q" };
        let receipt = signer.sign(7, bearer);
        assert_eq!(signer.read(&receipt, bearer), Some(7));
        for other in [
            Bearer { user: "v", ..bearer },
            Bearer { vhost: "v", ..bearer },
            Bearer { queue: "v", ..bearer },
        ] {
            assert_eq!(signer.read(&receipt, other), None);
        }
        assert_eq!(Signer::new(&[2; 32]).read(&receipt, bearer), None);
        for bad in ["", "x", "AAAA", &receipt[1..], &format!("{receipt}AA")] {
            assert_eq!(signer.read(bad, bearer), None, "{bad}");
        }
    }
}
