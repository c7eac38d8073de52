//! Randomness for what must not be guessed.

use anyhow::Context;

/// Random bytes of the operating system's quality.
///
/// Errors: when there are none.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills a buffer with such bytes.
///
/// They come from the system call: the generator of the TLS library gathers entropy of its own
/// for some 45 ms at its first use, which is half of what a start may take.
///
/// Errors: when there are none.
pub(crate) fn fill_random(bytes: &mut [u8]) -> anyhow::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let filled = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())
            .context("the system gives no randomness")?;
        rest = &mut rest[filled..];
    }
    Ok(())
}
