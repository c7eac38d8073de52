//! Numbers the broker and an engine say to each other.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($kind:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $kind);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The unit of ownership, order, epoch and commit. Version 1 has one per store.
    ShardId(u32)
}
number! {
    /// Grows by one with every opening of a shard; a batch of an older epoch is refused.
    Epoch(u64)
}
number! {
    /// The number of a batch within its shard: contiguous, 0 before the first.
    ShardBatch(u64)
}
number! {
    /// A reader of a log. The only cursor of a work queue has the number of its log.
    CursorId(u64)
}
number! {
    /// Who opens a shard: random per process start, never a configured name.
    OwnerId(u128)
}

impl ShardBatch {
    /// The batch after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
