//! Logins by SCRAM.

use polymq_contract::{ChannelBindings, Scram, ScramHash};
use polymq_scram::{ClientFirst, Exchange, Failed, NONCE_BYTES, Verifier};

use crate::sight;

/// The randomness of every case, so that inputs can know the server's nonce.
const RANDOM: [u8; NONCE_BYTES] = [5; NONCE_BYTES];

/// The first byte chooses hash and binding; behind it are the client's two messages, with a line
/// feed between them. What is read of the first stays within it, and nobody gets in who does not
/// know a password. The text of a verifier is read and written as the same.
pub fn scram(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(rest)
        && let Ok(verifier) = text.parse::<Verifier>()
    {
        assert!(verifier.to_string().parse() == Ok(verifier), "{text}");
    }
    let hash = if mode & 1 == 0 { ScramHash::Sha256 } else { ScramHash::Sha1 };
    let scram = Scram { hash, is_bound: mode & 2 != 0, offers_bound: mode & 4 != 0 };
    let exporter = (mode & 8 == 0).then_some([9; 32]);
    let server_end_point = if mode & 16 == 0 { vec![1, 2] } else { Vec::new() };
    let bindings = ChannelBindings { exporter, server_end_point };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (first, last) = rest.split_at(at);
    let Ok(read) = ClientFirst::parse(first, scram, &bindings) else {
        return sight::note("refused", first);
    };
    sight::note_value((mode & 31, read.user.len().min(9), first.len().checked_ilog2()));
    assert!(!read.user.is_empty() && read.user.len() < first.len());
    let verifier = Verifier::of_nobody(hash, &read.user, &[7; 32]);
    let exchange = Exchange::start(read, verifier, RANDOM);
    assert!(exchange.server_first.len() <= first.len() + 128, "{}", exchange.server_first);
    let last = last.get(1..).unwrap_or_default();
    assert_eq!(exchange.finish(last), Err(Failed), "nobody has this password");
}
