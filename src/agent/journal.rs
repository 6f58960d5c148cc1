//! What happened: a bounded memory for `plim events` and `plim describe`, and a live stream.

use super::{Event, EventType};
use crate::spec::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// How many events are remembered.
const REMEMBERED: usize = 4096;
/// How many a live reader may lag behind before it is told that it missed some.
const BACKLOG: usize = 1024;

/// Shared by the driver, which writes, and every connection, which reads.
#[derive(Clone)]
pub(super) struct Journal {
    inner: Arc<Mutex<Inner>>,
    live: broadcast::Sender<Event>,
}

struct Inner {
    events: VecDeque<Event>,
    last: u64,
}

impl Journal {
    pub fn new() -> Self {
        let inner = Inner { events: VecDeque::new(), last: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), live: broadcast::channel(BACKLOG).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process (`panic = "abort"`); in tests a poisoned journal is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one event and tells the log and every live reader.
    pub fn note(&self, at: Timestamp, kind: EventType, object: &str, reason: &str, message: String) {
        // The object also in the words: journalctl shows no field beside them.
        match kind {
            EventType::Normal => tracing::info!(object, reason, "{object}: {message}"),
            EventType::Warning => tracing::warn!(object, reason, "{object}: {message}"),
        }
        let mut inner = self.lock();
        inner.last += 1;
        let event = Event { id: inner.last, at, kind, object: object.to_owned(), reason: reason.to_owned(), message };
        if inner.events.len() == REMEMBERED {
            inner.events.pop_front();
        }
        inner.events.push_back(event.clone());
        // No reader is no error.
        drop(self.live.send(event));
    }

    /// The remembered events after `after`, and every one from now on, without a gap between.
    pub fn since(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let inner = self.lock();
        let live = self.live.subscribe();
        (inner.events.iter().filter(|event| event.id > after).cloned().collect(), live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_forgets_the_oldest_and_keeps_counting() {
        let journal = Journal::new();

        for number in 0..REMEMBERED + 10 {
            journal.note(Timestamp(0), EventType::Normal, "agent", "Test", number.to_string());
        }

        let (events, _live) = journal.since(0);
        assert_eq!(events.len(), REMEMBERED);
        assert_eq!(events[0].id, 11);
        assert_eq!(journal.since(u64::try_from(REMEMBERED).unwrap() + 9).0.len(), 1);
    }
}
