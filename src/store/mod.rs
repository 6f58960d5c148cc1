//! The agent's memory: one [`Record`] per object, durable on return.

mod memory;
mod sled;

pub use memory::MemoryStore;
pub use sled::{Opened, SledStore};

use crate::plan::Record;
use crate::spec::ObjectId;
use ::sled::Error as SledError;
use std::{io, path::PathBuf};

/// Where records live. Both implementations are driven by the same agent: sled, and the simulated
/// one that loses what was not flushed.
pub trait Store: Send {
    /// Every record, in the order of their ids.
    fn scan(&self) -> Result<Vec<Record>, StoreError>;

    fn load(&self, id: &ObjectId) -> Result<Option<Record>, StoreError>;

    /// All or none of them, durable on return.
    fn put(&self, records: &[Record]) -> Result<(), StoreError>;

    /// Durable on return; fine when it is not there.
    fn forget(&self, ids: &[ObjectId]) -> Result<(), StoreError>;

    /// Whether what is written now would be found later. Writes nothing.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What a person has to know of what happened to it since this was last asked.
    fn news(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("opening the database in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: SledError,
    },
    #[error("{operation} the record of {object}")]
    Access {
        operation: &'static str,
        object: String,
        #[source]
        source: SledError,
    },
    #[error("the record of {object} cannot be read")]
    Decode {
        object: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("writing the record of {object}")]
    Encode {
        object: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the database in {} is in use: another agent runs on it", path.display())]
    Locked {
        path: PathBuf,
        #[source]
        source: SledError,
    },
    #[error(
        "the database in {} was written by a newer plim (schema {found}, this one knows {known}): \
         install that version again, or move the directory away to begin anew", path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("the database in {} has the schema version {text:?}, which no plim ever wrote", path.display())]
    Schema { path: PathBuf, text: String },
    #[error("the database in {} was taken away: it is made anew", path.display())]
    TakenAway { path: PathBuf },
    #[error("setting the damaged database aside at {}", path.display())]
    SetAside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// It may be otherwise in a while, by itself or because somebody makes room. Until then nobody knows what
    /// is in the database.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Access { source, .. } => matches!(source, SledError::Io(_)),
            Self::TakenAway { .. } | Self::SetAside { .. } => true,
            Self::Decode { .. }
            | Self::Encode { .. }
            | Self::Locked { .. }
            | Self::Newer { .. }
            | Self::Schema { .. } => false,
        }
    }
}
