//! Records in memory, for the simulated host: what was not flushed is lost in a crash.

use super::{Store, StoreError};
use crate::plan::Record;
use crate::spec::ObjectId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clones share one content, as two openings of one directory would.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    /// As the process sees it.
    written: BTreeMap<ObjectId, Record>,
    /// As a later process will find it.
    durable: BTreeMap<ObjectId, Record>,
    /// Where the two differ.
    careless: BTreeSet<ObjectId>,
}

impl Content {
    fn flush(&mut self) {
        for id in std::mem::take(&mut self.careless) {
            if let Some(record) = self.written.get(&id) {
                self.durable.insert(id, record.clone());
            }
        }
    }
}

impl MemoryStore {
    /// Writes that do not flush: what a store without care would do. They are lost in a crash.
    pub fn put_carelessly(&self, records: &[Record]) {
        let mut content = self.lock();
        content.careless.extend(records.iter().map(|record| record.id.clone()));
        content.written.extend(records.iter().map(|record| (record.id.clone(), record.clone())));
    }

    /// The process is gone: what was not made durable is lost.
    pub fn crash(&self) {
        let mut content = self.lock();
        content.written = content.durable.clone();
        content.careless.clear();
    }

    /// The disk is gone.
    pub fn lose_everything(&self) {
        *self.lock() = Content::default();
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A panic of another test thread leaves whole maps behind.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn scan(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.lock().written.values().cloned().collect())
    }

    fn load(&self, id: &ObjectId) -> Result<Option<Record>, StoreError> {
        Ok(self.lock().written.get(id).cloned())
    }

    fn put(&self, records: &[Record]) -> Result<(), StoreError> {
        self.put_carelessly(records);
        self.lock().flush();
        Ok(())
    }

    fn forget(&self, ids: &[ObjectId]) -> Result<(), StoreError> {
        let mut content = self.lock();
        content.flush();
        for id in ids {
            content.written.remove(id);
            content.durable.remove(id);
        }
        Ok(())
    }
}
