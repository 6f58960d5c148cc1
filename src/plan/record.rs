//! What the agent remembers of an object: written before an effect, forgotten after the host is clean.

use super::{Settings, Wanted};
use crate::spec::{IdRange, InstanceId, LimitPointer, Object, ObjectId, Provenance, Resources, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub id: ObjectId,
    /// The last valid revision that was accepted, whatever the file says now.
    pub accepted: Arc<Object>,
    pub provenance: Provenance,
    /// Counts accepted revisions from 1.
    pub generation: u64,
    /// The number that the next instance gets.
    pub next_instance: u64,
    /// What stands on the host, or may stand there because we set out to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceRecord>,
    #[serde(default)]
    pub attempts: Attempts,
    /// How often its process was started again by policy.
    #[serde(default)]
    pub restarts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// A person's word that stands above the manifest's `desiredState`.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub override_: Option<Override>,
    /// Nothing is done about it until a person, or the time that was set, lets it go on: `plim suspend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Word>,
    /// Limits that stand above the manifest's: `plim set resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The last generation that was found startable, so that what runs may be stopped for it.
    #[serde(default)]
    pub checked: u64,
    /// Since when a complete listing has not contained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
}

/// One life on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRecord {
    pub id: InstanceId,
    pub phase: Phase,
    /// Its user namespace's ids on the host; `None` with `userNamespace: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRange>,
    /// The object that the running process was started from.
    pub started_from: Arc<Object>,
    pub generation: u64,
    /// How often a process was started in it: names the log file of the run.
    pub run: u64,
    /// `sha256:…` of the image that it runs; an image without an identity has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The limits last written successfully.
    #[serde(default)]
    pub actuated: Resources,
    /// What the kernel answered when they were read back, by control file. A different answer
    /// later is drift; a rounded one at once is not.
    #[serde(default)]
    pub readback: BTreeMap<String, String>,
    /// What `readback` leaves out, because others may change it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<LimitPointer>,
    /// Advisory limits that this host has no knob for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<Deferred>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// What its probes said of the run that is to be ended, or was, for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<GivenUp>,
}

/// A run that is ended because it does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    pub reason: String,
    /// How many ends came before it, for the wait after it: not to be mixed with failures to end it.
    pub failures: u32,
}

/// What we have set out to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Phase {
    /// To be made and started; how far that got only the host knows.
    Starting,
    Running,
    /// To end; killed at `kill_at`, once it has been asked.
    #[serde(rename_all = "camelCase")]
    Stopping {
        kill_at: Timestamp,
        /// It is known to have been asked. Until then it may still be left alone.
        signalled: bool,
    },
    /// Its process has ended by itself, and the restart policy says what follows; its root
    /// filesystem stands.
    Exited,
    /// Its process has ended because we asked for it; its root filesystem stands.
    Stopped,
    /// To be taken away with everything it has on the host.
    Removing,
}

/// A limit that could not be lowered without harm, and waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deferred {
    /// For a person: `memory 512Mi → 256Mi: 301Mi in use`.
    pub message: String,
    pub next_try: Timestamp,
    /// How often it has been tried.
    pub tries: u32,
}

/// Failures of the present revision, so that it is not hammered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempts {
    pub failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The field of the manifest that names what this host does not have, where that was the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// 0 to 255; 128 + the signal's number after a signal; `None` when nobody saw it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub at: Timestamp,
    /// The kernel's OOM killer ended a process of the container during the run.
    pub oom_killed: bool,
}

/// Who said something, when and why, and until when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Word {
    /// The caller's user id, by the socket's credentials.
    pub by: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A person's `plim stop`, `plim start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    pub state: OverrideState,
    #[serde(flatten)]
    pub word: Word,
}

/// A person's `plim set resources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// What is set here stands above the manifest; what is not, the manifest says.
    pub resources: Resources,
    #[serde(flatten)]
    pub word: Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OverrideState {
    Stopped,
    Running,
    /// Stop it once, then do as the manifest says: `plim restart`.
    Restart,
}

impl Record {
    /// Of an object that is asked for and was not known before.
    pub fn first(wanted: &Wanted) -> Self {
        Self {
            id: wanted.object.id.clone(),
            accepted: Arc::clone(&wanted.object),
            provenance: wanted.provenance.clone(),
            generation: 1,
            next_instance: 1,
            instance: None,
            attempts: Attempts::default(),
            restarts: 0,
            last_exit: None,
            override_: None,
            suspended: None,
            limits: None,
            checked: 0,
            absent_since: None,
        }
    }

    /// The limits that are to hold: the manifest's, and above them what a person has set.
    pub fn wanted_resources(&self) -> Cow<'_, Resources> {
        let own = &self.accepted.spec.resources;
        match &self.limits {
            Some(Limits { resources, word: _ }) => Cow::Owned(own.with(resources)),
            None => Cow::Borrowed(own),
        }
    }

    /// When the removal of what is absent may begin: whoever has agreed to it need not wait for a file
    /// that comes back.
    pub fn removal_at(&self, settings: &Settings, approved: bool) -> Option<Timestamp> {
        let grace = if approved { Span(0) } else { settings.deletion_grace };
        self.absent_since.map(|since| since.after(grace))
    }
}

impl Word {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl fmt::Display for Word {
    /// `by uid 1000, until 12:00: disk swap`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, reason, since: _, until } = self;
        write!(f, "by uid {by}")?;
        if let Some(until) = until {
            write!(f, ", until {until}")?;
        }
        match reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Exit {
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

impl Attempts {
    /// What failed before has worked, or is overtaken; how often it failed is not forgotten.
    pub(super) fn forget_error(&mut self) {
        (self.last_error, self.missing) = (None, None);
    }

    /// The wait after the given number of failures: 1 s doubled up to 5 min.
    pub fn backoff(failures: u32) -> Span {
        Span::from_secs((1_u64 << failures.saturating_sub(1).min(16)).min(300))
    }
}
