//! What all sources together ask for.

use super::snapshot::{FileState, Files, Snapshot};
use super::text::WishOf;
use crate::plan::{Desired, SourceState, Wish};
use crate::spec::{ObjectId, Provenance};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Folds snapshots time and again: while they are as they were the last time, there is nothing to do.
#[derive(Debug, Default)]
pub struct Fold {
    last: Vec<(String, Arc<Files>, SourceState)>,
}

impl Fold {
    /// As [`desired`]; `None` when that is the same as before.
    pub fn fold(&mut self, snapshots: &[(&str, &Snapshot)]) -> Option<Desired> {
        let same =
            |((name, files, state), (source, snapshot)): (&(String, Arc<Files>, SourceState), &(&str, &Snapshot))| {
                name == source && Arc::ptr_eq(files, &snapshot.files) && *state == snapshot.state
            };
        if self.last.len() == snapshots.len() && self.last.iter().zip(snapshots).all(same) {
            return None;
        }
        let kept = |(source, snapshot): &(&str, &Snapshot)| {
            ((*source).to_owned(), Arc::clone(&snapshot.files), snapshot.state.clone())
        };
        self.last = snapshots.iter().map(kept).collect();
        Some(desired(snapshots))
    }
}

/// Folds the snapshots of all sources into one. An object that stands in two places is nobody's
/// choice: neither text is used, and both are named.
pub fn desired(snapshots: &[(&str, &Snapshot)]) -> Desired {
    let mut desired = Desired::default();
    let mut found: BTreeMap<&ObjectId, &WishOf> = BTreeMap::new();
    let mut doubled: BTreeMap<&ObjectId, Vec<&Provenance>> = BTreeMap::new();
    for (source, snapshot) in snapshots {
        desired.sources.insert((*source).to_owned(), snapshot.state.clone());
        for (file, state) in &*snapshot.files {
            let hold = |reason: &Arc<str>| (((*source).to_owned(), file.clone()), Arc::clone(reason));
            match &**state {
                FileState::Unreadable(reason) => {
                    desired.held_files.extend([hold(&format!("{file} {reason}").into())]);
                }
                FileState::Read(text) => {
                    desired.held_files.extend(text.held.as_ref().map(hold));
                    for (id, wish) in &text.wishes {
                        match found.entry(id) {
                            Entry::Vacant(place) => {
                                place.insert(wish);
                            }
                            Entry::Occupied(first) => doubled
                                .entry(id)
                                .or_insert_with(|| vec![first.get().provenance()])
                                .push(wish.provenance()),
                        }
                    }
                }
            }
        }
    }
    desired.objects = found
        .into_iter()
        .map(|(id, wish)| {
            let wish = match doubled.get(id) {
                Some(places) => twice(id, places),
                None => Wish::from(wish),
            };
            (id.clone(), wish)
        })
        .collect();
    desired
}

fn twice(id: &ObjectId, places: &[&Provenance]) -> Wish {
    let named: Vec<String> = places.iter().map(|place| format!("{}:{}", place.path, place.line)).collect();
    let message = format!("{id} stands in {} places, and none of them is used: {}", places.len(), named.join(" and "));
    // The first in the order of sources and files, so that a round repeats.
    Wish::Invalid { message: message.into(), provenance: places[0].clone() }
}
