//! What the sources say about each object that exists anywhere: asked for, unusable, absent.
//!
//! Only an absence that was seen may lead to a deletion, and not when too many are absent at once:
//! then the likeliest story is a wrong directory.

use super::known::Known;
use super::{Inputs, MaxDelete, Phase, Pruning, Record, Settings, SourceState, Wanted, Wish};
use crate::spec::DeletionPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How an object stands in the sources.
#[derive(Debug, Clone)]
pub(super) enum Presence<'a> {
    Wanted(&'a Wanted),
    /// There is a text of it that cannot be used.
    Invalid(Arc<str>),
    /// A source cannot be read, so nothing can be said about it.
    Unavailable(Arc<str>),
    /// A complete listing did not have it.
    Absent,
    /// Absent as too many others are.
    Held(Arc<str>),
}

/// Answers for each object, with the sums over all objects worked out once.
pub(super) struct Presences<'a> {
    inputs: Inputs<'a>,
    /// Why nothing counts as absent at the moment.
    incomplete: Option<Arc<str>>,
    /// Why absent objects wait for consent.
    guard: Option<Arc<str>>,
    /// The same for those of a source with a limit of its own.
    guards: BTreeMap<&'a str, Arc<str>>,
}

impl<'a> Presences<'a> {
    pub(super) fn new(inputs: Inputs<'a>, objects: &[Known<'_>]) -> Self {
        let mut incomplete = inputs.desired.sources.iter().filter_map(|(name, state)| match state {
            SourceState::Complete => None,
            SourceState::Unavailable { reason } => Some(format!("source {name}: {reason}")),
        });
        let (guard, guards) = (None, BTreeMap::new());
        let mut presences = Self { inputs, incomplete: incomplete.next().map(Arc::from), guard, guards };
        let Settings { max_delete: count, max_delete_percent: percent, .. } = *inputs.settings;
        presences.guard = presences.wipe_guard(objects, None, MaxDelete { count, percent });
        for (source, pruning) in &inputs.settings.pruning {
            let guard = pruning.max_delete.and_then(|limit| presences.wipe_guard(objects, Some(source), limit));
            presences.guards.extend(guard.map(|guard| (source.as_str(), guard)));
        }
        presences
    }

    pub(super) fn of<'b>(&self, object: &Known<'b>) -> Presence<'b> {
        match object.wish {
            Some(Wish::Present(wanted)) => return Presence::Wanted(wanted),
            Some(Wish::Invalid { message, provenance: _ }) => return Presence::Invalid(message.clone()),
            None => {}
        }
        if let Some(message) = self.held_by_its_file(object) {
            return Presence::Invalid(message);
        }
        if let Some(reason) = &self.incomplete {
            return Presence::Unavailable(reason.clone());
        }
        if self.inputs.approved.contains(&*object.id) {
            return Presence::Absent;
        }
        let record = object.record;
        let kept = record.and_then(|record| record.accepted.kept_without_consent()).map(Arc::from);
        let unpruned = || record.and_then(|record| self.unpruned(record));
        let guard = || {
            let guard = match record.and_then(|record| self.limited(record)) {
                Some(source) => self.guards.get(source),
                None => self.guard.as_ref(),
            };
            guard.cloned().filter(|_| !record.is_some_and(|record| self.is_let_go(record)))
        };
        match kept.or_else(unpruned).or_else(guard) {
            Some(reason) => Presence::Held(reason),
            None => Presence::Absent,
        }
    }

    fn held_by_its_file(&self, object: &Known<'_>) -> Option<Arc<str>> {
        let held = &self.inputs.desired.held_files;
        if held.is_empty() {
            return None;
        }
        match object.record {
            Some(record) => {
                let from = &record.provenance;
                held.get(&(from.source.clone(), from.file.clone())).cloned()
            }
            // Without a record nobody knows which file it came from: it may be this one.
            None => held.values().next().cloned(),
        }
    }

    fn pruning<'b>(&self, record: &'b Record) -> Option<(&'b str, &'a Pruning)> {
        let source = record.provenance.source.as_str();
        Some((source, self.inputs.settings.pruning.get(source)?))
    }

    /// Why nothing that is gone from its source is removed.
    fn unpruned(&self, record: &Record) -> Option<Arc<str>> {
        let (source, pruning) = self.pruning(record)?;
        (!pruning.prune).then(|| format!("file removed, and the source {source} does not prune").into())
    }

    /// Its source, if that has a limit of its own.
    fn limited<'b>(&self, record: &'b Record) -> Option<&'b str> {
        self.pruning(record).filter(|(_, pruning)| pruning.max_delete.is_some()).map(|(source, _)| source)
    }

    /// Its deletion was allowed, and all that is left of it is kept for a while or for good.
    fn is_let_go(&self, record: &Record) -> bool {
        let Inputs { settings, approved, now, .. } = self.inputs;
        let removal_at = record.removal_at(settings, approved.contains(&record.id));
        let phase = record.instance.as_ref().map(|instance| instance.phase);
        let left = record.accepted.spec.deletion_policy == DeletionPolicy::Orphan || phase == Some(Phase::Stopped);
        left && removal_at.is_some_and(|at| at <= now)
    }

    /// Counts what is absent now, deletions under way included, so that a directory that empties
    /// in slow motion is noticed like one that empties at once. Of one source, or of all that have no limit of
    /// their own.
    fn wipe_guard(&self, objects: &[Known<'_>], source: Option<&str>, limit: MaxDelete) -> Option<Arc<str>> {
        let desired = &self.inputs.desired.objects;
        // What runs without a record is never removed, so it does not count; nor does what is only held because
        // its source does not prune.
        let counts = |object: &&Known<'_>| match object.record {
            Some(record) => {
                let stays = object.wish.is_none() && self.unpruned(record).is_some();
                self.limited(record) == source && !stays && !self.is_let_go(record)
            }
            None => source.is_none() && object.is_stray() && !object.runs(),
        };
        let gone = |object: &&Known<'_>| object.wish.is_none() && self.held_by_its_file(object).is_none();
        let managed = objects.iter().filter(counts).count();
        let absent = objects.iter().filter(counts).filter(gone).count();
        let limit = limit.of(managed);
        let is_empty = || match source {
            None => desired.is_empty(),
            Some(source) => !desired.values().any(|wish| wish.provenance().source == source),
        };
        let whose = source.map_or_else(|| "the manifests".to_owned(), |source| format!("the source {source}"));
        if absent > 1 && absent == managed && is_empty() {
            Some(format!("all {managed} objects are gone from {whose}").into())
        } else if absent > limit {
            Some(format!("{absent} of {managed} objects are gone from {whose}, more than {limit} at once").into())
        } else {
            None
        }
    }
}
