//! What the agent remembers, in memory and in the store.
//!
//! Memory is right and the store may be behind it, after a failure to write; never the other way round.

use super::super::EventType;
use super::super::clock::Reading;
use super::{Driver, now};
use crate::plan::Record;
use crate::sys::may_die;

impl Driver {
    /// The store could not be read when the agent started. Until it can be, nothing is decided.
    pub fn is_without_memory(&mut self, error: &crate::store::StoreError) {
        self.unread = true;
        self.store_failed(error);
    }

    /// Reads what could not be read before. False: still not.
    pub(super) fn remember(&mut self) -> bool {
        match self.store.scan() {
            Ok(records) => {
                self.records = records.into_iter().map(|record| (record.id.clone(), record)).collect();
                self.share();
            }
            // Whoever takes everything along needs no memory of it.
            Err(error) if self.settings.stop_all => self.store_failed(&error),
            Err(error) => {
                self.store_failed(&error);
                return false;
            }
        }
        self.unread = false;
        true
    }

    /// Before anything is reckoned by a clock that was set forward: what waits goes on waiting as long as it
    /// was to. What cannot be written down now is as if no agent had run since, and the next one sees to it.
    pub(super) fn carry_waits(&mut self) {
        if self.unread {
            return;
        }
        if let Some(by) = self.clock.set_forward(Reading::now()) {
            let carried = self.records.values().filter_map(|record| crate::plan::carry(record, by));
            let carried: Vec<Record> = carried.collect();
            // The two clocks are not read at the same instant.
            let seconds = std::time::Duration::from_secs((by.0 + 500) / 1000);
            let span = humantime::format_duration(seconds);
            let text = format!("the clock was set forward by {span}; {} objects wait as long as before", carried.len());
            self.journal.note(now(), EventType::Normal, "agent", "ClockSet", text);
            self.records.extend(carried.iter().map(|record| (record.id.clone(), record.clone())));
            if !carried.is_empty() && !self.unsaved {
                let written = self.store.put(&carried);
                self.keep(written);
            }
            self.again = true;
        }
        if !self.unsaved
            && let Err(error) = self.clock.keep()
        {
            // Only for the next agent, which then believes the clock.
            tracing::debug!(error = %error, "noting the clock failed");
        }
    }

    /// Writes down what came of the actions that ended since the last round: all in one, because each
    /// write waits for the disk.
    pub(super) fn save_settled(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        let records: Vec<Record> = settled.iter().filter_map(|id| self.records.get(id).cloned()).collect();
        if !records.is_empty() {
            may_die("done");
            let written = self.store.put(&records);
            self.keep(written);
            may_die("settled");
        }
    }

    /// What is remembered in memory is right; what is on disk is older, and a restart that finds it so
    /// does the step again, which is harmless.
    pub(super) fn keep(&mut self, written: Result<(), crate::store::StoreError>) {
        if let Err(error) = written {
            self.store_failed(&error);
        }
    }

    pub(super) fn store_failed(&mut self, error: &crate::store::StoreError) {
        let text = format!("{}; nothing is changed on the host until it can be written", crate::host::chain(error));
        self.unsaved = true;
        self.note_store_news();
        self.fail("StoreFailed", text);
    }

    /// What happened to the store is said, and stays in the status.
    pub(super) fn note_store_news(&mut self) {
        for text in self.store.news() {
            self.journal.note(now(), EventType::Warning, "agent", "DatabaseDamaged", text.clone());
            self.facts.warnings.push(text);
            self.dirty_view = true;
        }
    }
}
