//! Writing everything anew at once that may not stay as it is: the end of a repair.

use std::collections::BTreeSet;

use crate::{
    error::Failure,
    flush::{Flusher, Job, choose, copy::Copying},
    place::WalFile,
};

impl Flusher {
    /// Flushes the whole log, copies what is sound of `damaged` segments, and has the manifest
    /// name the result. Old files go then.
    ///
    /// `before` is where the log ends that is written to by now.
    ///
    /// Errors: whatever keeps it from being written; nothing is given up before that.
    pub(crate) fn rewrite(
        &mut self,
        damaged: &BTreeSet<u32>,
        before: WalFile,
    ) -> Result<(), Failure> {
        let flush = {
            let shared = self.shared.lock();
            let newest = shared.sealed.back().copied();
            newest.map(|wal| Copying::flush(&shared, wal))
        };
        let repair = {
            let shared = self.shared.lock();
            Copying::repair(choose::groups(&shared, damaged))
        };
        for mut copying in flush.into_iter().chain([repair]) {
            while !copying.step(&self.home, &self.shared, &self.numbers)? {}
            copying.switch(&self.shared, &self.segments);
            self.flushed.extend(copying.flushed());
        }
        if self.flushed.is_empty() {
            self.flushed.push(before);
        }
        self.job = Job::Base(self.new_base());
        while !self.is_resting && self.step()? {}
        match self.last_failure.take().filter(|_| self.is_resting) {
            Some(why) => Err(Failure::Fatal(why)),
            None => Ok(()),
        }
    }
}
