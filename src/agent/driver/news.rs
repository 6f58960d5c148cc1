//! What is said: events, findings, the agent's own trouble, and what there is to see.

use super::super::{Counts, EventType, View, Which, status};
use super::{Driver, RETRY, now};
use crate::plan::{Desired, Finding};
use crate::spec::ObjectId;
use std::collections::BTreeMap;
use std::time::Instant;

impl Driver {
    /// The agent itself cannot go on: said once, tried again in a moment.
    pub(super) fn fail(&mut self, reason: &str, text: String) {
        self.retry_at = Some(Instant::now() + RETRY);
        if self.trouble.as_ref() != Some(&text) {
            self.journal.note(now(), EventType::Warning, "agent", reason, text.clone());
            self.trouble = Some(text);
            self.dirty_view = true;
        }
    }

    pub(super) fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.journal.note(now(), EventType::Normal, "agent", "Recovered", "it works again".to_owned());
            self.dirty_view = true;
        }
    }

    /// Says what became different about an object's standing, once.
    pub(super) fn note_findings(&mut self, findings: BTreeMap<ObjectId, Finding>) {
        use crate::plan::Sync;
        if findings == self.findings {
            return;
        }
        self.dirty_view = true;
        for (id, finding) in &findings {
            let before = self.findings.get(id).map(|finding| (finding.sync, &finding.message));
            if before.is_some_and(|before| before == (finding.sync, &finding.message)) {
                continue;
            }
            let kind = match finding.sync {
                Sync::Invalid | Sync::Unavailable | Sync::Held => EventType::Warning,
                // Everything is leaving; what its text says does not matter any more.
                _ if self.settings.stop_all => continue,
                Sync::Deleting | Sync::Overridden | Sync::Suspended => EventType::Normal,
                // Their steps say it.
                Sync::Synced | Sync::Pending | Sync::Failed | Sync::Deferred => continue,
            };
            if before.is_some_and(|(sync, _)| sync == finding.sync) && finding.sync == Sync::Deleting {
                continue;
            }
            let reason = format!("{:?}", finding.sync);
            // The rest of a diagnostic is the line itself with its caret: for the status, not for here.
            let first = finding.message.lines().next().unwrap_or_default().to_owned();
            self.journal.note(now(), kind, &id.to_string(), &reason, first);
        }
        self.findings = findings;
    }

    /// Says once when a source goes away or comes back, and marks what changed to be looked at.
    pub(super) fn note_source_changes(&mut self, desired: &Desired) {
        use crate::plan::SourceState;
        for (name, state) in &desired.sources {
            if self.desired.sources.get(name) == Some(state) {
                continue;
            }
            let object = format!("Source/{name}");
            match state {
                SourceState::Complete => {
                    let text = format!("read completely, {} objects in all sources", desired.objects.len());
                    self.journal.note(now(), EventType::Normal, &object, "SourceRead", text);
                }
                SourceState::Unavailable { reason } => {
                    self.counts.source_failed(name);
                    self.journal.note(now(), EventType::Warning, &object, "SourceUnavailable", reason.to_string());
                }
            }
        }
        for (key, reason) in &desired.held_files {
            if self.desired.held_files.get(key) != Some(reason) {
                let object = format!("Source/{}", key.0);
                self.journal.note(now(), EventType::Warning, &object, "Invalid", reason.to_string());
            }
        }
    }

    pub(super) fn show(&mut self) {
        self.dirty_view = false;
        self.last_shown = Instant::now();
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn view(&self, which: &Which) -> View {
        let sources = self.sources.views(&self.desired, &self.settings.pruning);
        let mut view = status::view(&self.inputs(), &self.findings, &self.facts, sources, &self.machine, which);
        view.counts =
            Counts { waiting: self.queue.waiting().count(), working: self.queue.busy(), ..self.counts.clone() };
        view.summary.warnings.extend(self.trouble.clone());
        view.summary.warnings.extend(self.machine.keeper_warning());
        view
    }
}
