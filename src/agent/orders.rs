//! What people order: a recorded override, a consent, a look at everything.

use super::EventType;
use super::driver::{Driver, now};
use super::fetcher::Fetched;
use super::handle::{Command, CommandError};
use crate::plan::{Action, OverrideState, ProcessSeen, Record, Sync, Word};
use crate::spec::{ObjectId, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;
use tokio::sync::oneshot;

/// Somebody who waits for servers, and then for a round.
pub(super) struct Asked {
    /// How many kicks the answers that are waited for have seen.
    servers: BTreeMap<String, u64>,
    problems: Vec<String>,
    reply: Reply,
}

impl Asked {
    /// The round has been.
    pub(super) fn answer(self) {
        let answer = match self.problems.is_empty() {
            true => Ok("every source and the whole host were looked at".to_owned()),
            false => Err(CommandError::Failed(self.problems.join("\n"))),
        };
        // Whoever asked may have gone away meanwhile.
        drop(self.reply.send(answer));
    }
}

type Reply = oneshot::Sender<Result<String, CommandError>>;

fn said(by: u32, reason: Option<String>, until: Option<Timestamp>) -> Word {
    Word { by, reason, since: now(), until }
}

impl Driver {
    pub(super) fn order(&mut self, command: Command, by: u32, reply: Reply) {
        let answer = match command {
            Command::Stop { object, reason, until } => {
                self.override_(&object, OverrideState::Stopped, said(by, reason, until))
            }
            Command::Start { object, reason, until } => self.start(&object, said(by, reason, until)),
            Command::Restart { object, reason } => {
                self.override_(&object, OverrideState::Restart, said(by, reason, None))
            }
            Command::Suspend { objects, all, reason, until } => self.suspend(&objects, all, &said(by, reason, until)),
            Command::Resume { objects, all } => self.resume(&objects, all, by),
            Command::SetResources { object, resources, reason, until } => {
                self.set_resources(&object, *resources, said(by, reason, until))
            }
            Command::Approve { objects, all } => self.approve(&objects, all),
            Command::AcceptSource { name } => self.accept_source(&name),
            Command::Reconcile { source } => match self.sources.kick(source.as_deref()) {
                Ok(servers) => {
                    self.asked.push(Asked { servers, problems: Vec::new(), reply });
                    self.wait_for_a_round();
                    return;
                }
                Err(error) => Err(error),
            },
            Command::Reload => self.reload(),
            Command::RollBackSource { name, to, reason } => {
                let said = self.sources.roll_back(&name, to.as_deref(), by, reason, now());
                self.note_source(&name, "RolledBack", said)
            }
            Command::UnpinSource { name } => {
                let said = self.sources.unpin(&name);
                self.note_source(&name, "Unpinned", said)
            }
            Command::StopAll { kill } => {
                self.stop_all(kill);
                self.stopping.push(reply);
                return;
            }
        };
        // Whoever ordered it may have gone away; it is done nevertheless.
        drop(reply.send(answer));
    }

    fn approve(&mut self, objects: &[ObjectId], all: bool) -> Result<String, CommandError> {
        let held = |id: &&ObjectId| self.findings.get(id).is_some_and(|finding| finding.sync == Sync::Held);
        let chosen: Vec<ObjectId> = if all {
            self.findings.keys().filter(held).cloned().collect()
        } else {
            // What is only kept for a while may go before its time.
            let kept = |id: &&ObjectId| self.findings.get(id).is_some_and(|finding| finding.sync == Sync::Deleting);
            if let Some(other) = objects.iter().find(|id| !held(id) && !kept(id)) {
                return Err(match self.records.contains_key(other) {
                    true => CommandError::Refused(format!("nothing about {other} waits for consent")),
                    false => CommandError::NotFound(other.to_string()),
                });
            }
            objects.to_vec()
        };
        for id in &chosen {
            self.journal.note(now(), EventType::Normal, &id.to_string(), "Approved", "removal approved".to_owned());
        }
        let count = chosen.len();
        self.approved.extend(chosen);
        Ok(format!("{count} held removals released"))
    }

    fn accept_source(&mut self, name: &str) -> Result<String, CommandError> {
        let said = self.sources.accept(name);
        self.note_source(name, "Approved", said)
    }

    fn note_source(
        &mut self,
        name: &str,
        reason: &str,
        said: Result<String, CommandError>,
    ) -> Result<String, CommandError> {
        let text = said?;
        self.journal.note(now(), EventType::Normal, &format!("Source/{name}"), reason, text.clone());
        self.dirty_view = true;
        Ok(format!("source {name}: {text}"))
    }

    /// A server was asked for its newest revision.
    pub(super) fn fetched(&mut self, fetched: Fetched) {
        let (name, kicks) = (fetched.source.clone(), fetched.kicks);
        let Some((news, problem)) = self.sources.fetched(fetched) else { return };
        if let Some((kind, reason, text)) = news {
            self.journal.note(now(), kind, &format!("Source/{name}"), reason, text);
        }
        if problem.is_some() {
            self.counts.source_failed(&name);
        }
        for asked in &mut self.asked {
            if asked.servers.get(&name).is_some_and(|needed| kicks >= *needed) {
                asked.servers.remove(&name);
                asked.problems.extend(problem.as_ref().map(|problem| format!("source {name}: {problem}")));
            }
        }
        self.wait_for_a_round();
        self.dirty_view = true;
    }

    /// A source is not the one any more whose server was asked.
    pub(super) fn is_asked_no_more(&mut self, name: &str) {
        for asked in &mut self.asked {
            if asked.servers.remove(name).is_some() {
                asked.problems.push(format!("source {name}: the configuration has changed it meanwhile"));
            }
        }
        self.wait_for_a_round();
    }

    /// Whoever waits for servers that have all answered waits for the next whole round.
    fn wait_for_a_round(&mut self) {
        for asked in self.asked.extract_if(.., |asked| asked.servers.is_empty()) {
            self.sources.touched(Instant::now());
            self.next_resync = Instant::now();
            self.reconciled.push(asked);
        }
    }

    fn stop_all(&mut self, kill: bool) {
        if !self.settings.stop_all {
            self.settings.stop_all = true;
            self.take_back(|_| true);
            self.journal.note(now(), EventType::Normal, "agent", "StoppingAll", "stopping everything".to_owned());
        }
        if !kill {
            return;
        }
        self.journal.note(now(), EventType::Warning, "agent", "KillingAll", "killing everything".to_owned());
        for (instance, sighting) in &self.seen.instances {
            if !matches!(sighting.process, ProcessSeen::Running { .. }) {
                continue;
            }
            let (host, instance) = (self.host.clone(), instance.clone());
            // Beside the plan on purpose: it is a person's second word, and killing twice is no harm.
            // The keeper reports the exits, and the plan goes on from there.
            self.runtime.spawn_blocking(move || host.apply(&Action::Kill { instance }));
        }
    }

    pub(super) fn record(&self, object: &ObjectId) -> Result<&Record, CommandError> {
        self.records.get(object).ok_or_else(|| CommandError::NotFound(object.to_string()))
    }

    pub(super) fn change(&mut self, object: &ObjectId, change: impl FnOnce(&mut Record)) -> Result<(), CommandError> {
        let mut record = self.record(object)?.clone();
        change(&mut record);
        let written = self.store.put(std::slice::from_ref(&record));
        written.map_err(|error| CommandError::Failed(crate::host::chain(&error)))?;
        self.records.insert(object.clone(), record);
        self.take_back(|waiting| waiting == object);
        self.dirty_view = true;
        Ok(())
    }

    /// The last decision about an object, in sentences.
    pub(super) fn why(&self, object: &ObjectId) -> Result<String, CommandError> {
        let record = self.records.get(object);
        let finding = self.findings.get(object);
        if record.is_none() && finding.is_none() {
            return Err(CommandError::NotFound(object.to_string()));
        }
        let mut text = String::new();
        let mut line = |words: String| {
            let _infallible = writeln!(text, "{words}");
        };
        if let Some(finding) = finding {
            let dash = if finding.message.is_empty() { "" } else { " — " };
            let message = finding.message.lines().next().unwrap_or_default();
            line(format!("{object} is {}{dash}{message}", super::status::word(Some(finding))));
        }
        if let Some(record) = record {
            line(format!(
                "generation {} from {}:{}",
                record.generation, record.provenance.path, record.provenance.line
            ));
        }
        match self.decisions.get(object) {
            None => line("nothing has been decided about it since this agent started".to_owned()),
            Some(decision) => {
                line(format!(
                    "at {}: {} (class {}): {}",
                    decision.at,
                    decision.action.to_lowercase(),
                    decision.class,
                    decision.reason
                ));
                let result = decision.result.clone();
                line(format!("result: {}", result.unwrap_or_else(|| "under way".to_owned())));
            }
        }
        if let Some(record) = record {
            if let Some(error) = &record.attempts.last_error {
                line(format!("last error: {error}"));
            }
            if let Some(at) = record.attempts.next_try {
                line(format!("failures in a row: {}; next try {at}", record.attempts.failures));
            }
            if let Some(deferred) = record.instance.as_ref().and_then(|instance| instance.deferred.as_ref()) {
                line(format!("{}; next try {}", deferred.message, deferred.next_try));
            }
        }
        Ok(text)
    }
}
