//! What all sources together ask for at one instant.

use crate::spec::{Object, ObjectId, Provenance};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Every object that some source has a text of.
    pub objects: BTreeMap<ObjectId, Wish>,
    /// Files whose objects cannot be told, because the text as a whole is broken or unreadable:
    /// (source, file) and why. Whatever last came from such a file stays as it is.
    pub held_files: BTreeMap<(String, String), Arc<str>>,
    /// Every configured source. An object's absence counts only when its source is complete.
    pub sources: BTreeMap<String, SourceState>,
}

#[derive(Debug, Clone)]
pub enum Wish {
    /// Valid, and the only one of its name.
    Present(Arc<Wanted>),
    /// There is a text, and it cannot be used: it does not parse, contradicts itself, is not
    /// trusted, or stands in two places. The message is complete, with position.
    Invalid { message: Arc<str>, provenance: Provenance },
}

impl Wish {
    /// Where its text stands.
    pub fn provenance(&self) -> &Provenance {
        match self {
            Self::Present(wanted) => &wanted.provenance,
            Self::Invalid { message: _, provenance } => provenance,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// A record that accepts it shares it.
    pub object: Arc<Object>,
    pub provenance: Provenance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Listed completely: what it does not contain is absent.
    Complete,
    /// Not listed, or not completely: nothing of it may be removed.
    Unavailable { reason: Arc<str> },
}
