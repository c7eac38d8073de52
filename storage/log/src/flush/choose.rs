//! Which segments are worth merging.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use polymq_store::LogId;

use crate::{
    config::LogConfig,
    flush::{
        Flusher,
        copy::{Copying, Group},
    },
    format::PAGE,
    part::Source,
    place::Shared,
};

/// The most segments of one merge.
const FILES_MAX: usize = 256;

struct Use {
    /// What it takes beside its header.
    bytes: u64,
    live: u64,
    /// Its log; `None` when several share it.
    log: Option<LogId>,
}

impl Flusher {
    /// Segments that take too much room for what lives in them, or that are too many.
    pub(super) fn worth_merging(&self) -> Option<Box<Copying>> {
        let shared = self.shared.lock();
        let mut files = uses(&shared);
        files.retain(|number, _| !self.unreadable.contains(number));
        let config = &self.home.config;
        let chosen = sparse(&files, config.segment_bytes, config.garbage_bytes)
            .or_else(|| alike(&files, config))?;
        let groups = groups(&shared, &chosen.iter().copied().collect());
        Some(Box::new(Copying::merge(chosen, groups)))
    }
}

fn uses(shared: &Shared) -> BTreeMap<u32, Use> {
    let mut files: BTreeMap<u32, Use> = BTreeMap::new();
    for (id, log) in shared.state.logs() {
        for part in log.messages().parts() {
            let Source::File(place) = &part.source else { continue };
            let bytes = place.file.bytes().saturating_sub(PAGE);
            let file = files.entry(place.file.number());
            let file = file.or_insert(Use { bytes, live: 0, log: Some(id) });
            file.live += part.record_bytes();
            file.log = file.log.filter(|log| *log == id);
        }
    }
    files
}

/// The emptiest segments, when more is dead than alive.
fn sparse(files: &BTreeMap<u32, Use>, live_max: u64, garbage_max: u64) -> Option<Vec<u32>> {
    let bytes: u64 = files.values().map(|file| file.bytes).sum();
    let live: u64 = files.values().map(|file| file.live).sum();
    if bytes <= live.saturating_mul(2).saturating_add(garbage_max) {
        return None;
    }
    let is_sparse = |file: &&(&u32, &Use)| file.1.live.saturating_mul(2) < file.1.bytes;
    let mut candidates: Vec<_> = files.iter().collect::<Vec<_>>();
    candidates.retain(|file| is_sparse(&file));
    candidates.sort_by_key(|(_, file)| file.live.saturating_mul(1000) / file.bytes.max(1));
    let (mut chosen, mut copied) = (Vec::new(), 0_u64);
    for (number, file) in candidates.into_iter().take(FILES_MAX) {
        copied += file.live;
        if copied > live_max && !chosen.is_empty() {
            break;
        }
        chosen.push(*number);
    }
    Some(chosen).filter(|chosen| !chosen.is_empty())
}

/// The oldest of many small segments; of several logs at once, when each has enough.
fn alike(files: &BTreeMap<u32, Use>, config: &LogConfig) -> Option<Vec<u32>> {
    let mut classes: BTreeMap<(Option<LogId>, u32), Vec<u32>> = BTreeMap::new();
    let (mut chosen, mut bytes) = (Vec::new(), 0_u64);
    let is_small = |file: &Use| match file.log {
        Some(_) => file.bytes * 4 <= config.segment_bytes,
        None => file.bytes * 4 <= config.shared_bytes_max(),
    };
    for (number, file) in files.iter().filter(|(_, file)| is_small(file)) {
        let class = file.bytes.max(1).ilog2() / if file.log.is_some() { 3 } else { 2 };
        let alike = classes.entry((file.log, class)).or_default();
        alike.push(*number);
        // A log has a part in each segment it shares, so there should be few of those.
        let enough = match file.log {
            Some(_) => config.alike_segments,
            None => config.alike_segments.div_ceil(2),
        };
        if alike.len() >= enough {
            bytes += alike.iter().filter_map(|n| files.get(n)).map(|file| file.bytes).sum::<u64>();
            chosen.append(alike);
        }
        if bytes >= config.segment_bytes || chosen.len() >= FILES_MAX {
            break;
        }
    }
    Some(chosen).filter(|chosen| !chosen.is_empty())
}

/// What lives in these segments, neighbours of one log together.
pub(super) fn groups(shared: &Shared, chosen: &BTreeSet<u32>) -> VecDeque<Group> {
    let mut groups = VecDeque::new();
    for (id, log) in shared.state.logs() {
        let mut open: Option<Group> = None;
        for part in log.messages().parts() {
            let is_chosen = match &part.source {
                Source::File(place) => chosen.contains(&place.file.number()),
                Source::Wal(..) => false,
            };
            match &mut open {
                Some(group) if is_chosen => group.add(part),
                _ => {
                    groups.extend(open.take());
                    open = is_chosen.then(|| Group::new(id, part));
                }
            }
        }
        groups.extend(open);
    }
    groups
}
