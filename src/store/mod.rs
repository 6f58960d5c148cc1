//! The agent's memory: one [`Record`] per object, durable on return.

use crate::plan::Record;
use crate::spec::ObjectId;
use std::path::PathBuf;

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
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("opening the database in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: sled::Error,
    },
    #[error("{operation} the record of {object}")]
    Access {
        operation: &'static str,
        object: String,
        #[source]
        source: sled::Error,
    },
    #[error("the record of {object} cannot be read")]
    Decode {
        object: String,
        #[source]
        source: serde_json::Error,
    },
}
