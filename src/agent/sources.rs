//! The watched directories, and when to read them.

use super::SourceView;
use super::inbox::{Message, Sender};
use super::options::Pace;
use super::places::Places;
use crate::plan::{Desired, SourceState};
use crate::source::{Directory, Fold, Snapshot, Trust, WatchError, WatchEvent, Watcher};
use crate::spec::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// All sources of this agent, with what was last read of each.
pub(super) struct Sources {
    inputs: Vec<Input>,
    inbox: Sender,
    pace: Pace,
    fold: Fold,
    places: Places,
    /// They could not be written down the last time.
    unsaved: bool,
    /// The first and the last event of a burst that has not been answered.
    burst: Option<(Instant, Instant)>,
    /// A file was too fresh to be trusted: read again then.
    settle: Option<Instant>,
    watcher: Option<Watcher>,
    /// Why events do not come, so that the directories are looked at every second.
    unwatched: Option<String>,
}

struct Input {
    name: String,
    path: PathBuf,
    directory: Directory,
    snapshot: Option<Snapshot>,
    last_read: Option<Timestamp>,
}

impl Sources {
    pub fn new(paths: &[PathBuf], trust: &Trust, places: Places, inbox: Sender, pace: Pace) -> Self {
        let name = |path: &Path, number: usize| {
            let stem = path.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
            if number == 0 { stem } else { format!("{stem}-{number}") }
        };
        let mut inputs: Vec<Input> = Vec::new();
        for path in paths {
            let twins = inputs.iter().filter(|input| input.path.file_name() == path.file_name()).count();
            let name = name(path, twins);
            let mut directory = Directory::new(&name, path, trust.clone());
            if let Some(before) = places.of(path) {
                directory.remember_place(before);
            }
            inputs.push(Input { directory, name, path: path.clone(), snapshot: None, last_read: None });
        }
        Self {
            inputs,
            inbox,
            pace,
            fold: Fold::default(),
            places,
            unsaved: false,
            burst: None,
            settle: None,
            watcher: None,
            unwatched: None,
        }
    }

    /// An event came, at that time.
    pub fn touched(&mut self, at: Instant) {
        let (first, last) = self.burst.unwrap_or((at, at));
        self.burst = Some((first, last.max(at)));
    }

    /// Events were lost: watch anew.
    pub fn lost(&mut self) {
        self.watcher = None;
        self.touched(Instant::now());
    }

    /// When to read again, if nothing more comes.
    pub fn due(&self) -> Option<Instant> {
        let burst = self.burst.map(|(first, last)| (last + self.pace.trailing).min(first + self.pace.longest));
        [burst, self.settle].into_iter().flatten().min()
    }

    /// Whether the directories have to be polled because they cannot be watched.
    pub fn polling(&self) -> bool {
        self.unwatched.is_some()
    }

    /// Lists every source and folds them into one desired state; `None` when it is as it was the last
    /// time.
    pub fn read(&mut self, now: Timestamp) -> Option<Desired> {
        self.burst = None;
        self.settle = None;
        // Subscribe before listing: a change between the two would be lost.
        self.unwatched = self.watch().err().map(|error| crate::host::chain(&error));
        for input in &mut self.inputs {
            let snapshot = input.directory.snapshot();
            if let Some(wait) = snapshot.settle {
                let at = Instant::now() + wait;
                self.settle = Some(self.settle.map_or(at, |settle| settle.min(at)));
            }
            input.last_read = Some(now);
            input.snapshot = Some(snapshot);
        }
        let places = self.inputs.iter().filter_map(|input| Some((input.path.clone(), input.directory.last_place()?)));
        // Said once, tried again in the next round.
        match self.places.save(places.collect()) {
            Err(error) if !std::mem::replace(&mut self.unsaved, true) => {
                tracing::warn!(%error, "where the sources are could not be written down");
            }
            result => self.unsaved = result.is_err(),
        }
        let snapshots = self.inputs.iter().filter_map(|input| Some((input.name.as_str(), input.snapshot.as_ref()?)));
        self.fold.fold(&snapshots.collect::<Vec<_>>())
    }

    /// Takes a source's directory for what it is now. False when there is no such source.
    pub fn accept(&mut self, name: &str) -> bool {
        let Some(input) = self.inputs.iter_mut().find(|input| input.name == name) else { return false };
        input.directory.forget_place();
        self.touched(Instant::now());
        true
    }

    /// Watches every directory where it is now.
    fn watch(&mut self) -> Result<(), WatchError> {
        if let Some(watcher) = &mut self.watcher {
            return watcher.refresh().map(drop);
        }
        let inbox = self.inbox.clone();
        let wake = move |event| {
            let message = match event {
                WatchEvent::Changed => Message::SourceChanged(Instant::now()),
                WatchEvent::Overflow => Message::WatchLost("the kernel dropped file events".to_owned()),
                WatchEvent::Lost(reason) => Message::WatchLost(reason),
            };
            // The driver has left: nobody is to be woken.
            drop(inbox.send(message));
        };
        let paths: Vec<PathBuf> = self.inputs.iter().map(|input| input.path.clone()).collect();
        self.watcher = Some(crate::source::watch(&paths, wake)?);
        Ok(())
    }

    pub fn views(&self, desired: &Desired) -> Vec<SourceView> {
        let view = |input: &Input| {
            let (complete, mut message) = match desired.sources.get(&input.name) {
                Some(SourceState::Complete) => (true, String::new()),
                Some(SourceState::Unavailable { reason }) => (false, reason.to_string()),
                None => (false, "not read yet".to_owned()),
            };
            if let (Some(error), true) = (&self.unwatched, complete) {
                message = format!("not watched, looked at every second: {error}");
            }
            let of_this = |(source, _): &&(String, String)| *source == input.name;
            let held = desired.held_files.iter().filter(|(key, _)| of_this(key));
            SourceView {
                name: input.name.clone(),
                path: input.path.display().to_string(),
                complete,
                message,
                objects: desired.objects.values().filter(|wish| wish.provenance().source == input.name).count(),
                last_read: input.last_read,
                ignored: input.snapshot.as_ref().map(|snapshot| snapshot.ignored.clone()).unwrap_or_default(),
                problems: held.map(|(_, reason)| reason.to_string()).collect(),
            }
        };
        self.inputs.iter().map(view).collect()
    }
}
