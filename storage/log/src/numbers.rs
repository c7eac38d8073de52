//! Numbers of files: each is used once, for whatever kind of file.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::error::Failure;

pub(crate) struct FileNumbers(AtomicU32);

impl FileNumbers {
    /// Goes on with `next`.
    pub(crate) fn new(next: u32) -> Self {
        Self(AtomicU32::new(next))
    }

    /// The number the next file would get.
    pub(crate) fn next(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// A number no file had before.
    pub(crate) fn take(&self) -> Result<NonZeroU32, Failure> {
        let more = |number: u32| number.checked_add(1).filter(|next| *next < u32::MAX);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let number = taken.ok().and_then(NonZeroU32::new);
        number.ok_or_else(|| Failure::Fatal("the store has used up its file numbers".into()))
    }
}
