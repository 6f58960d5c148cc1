//! The sources: watched directories and repositories, and when to read them.

use super::config::{Origin, SourceConfig};
use super::fetcher::Fetched;
use super::inbox::{Message, Sender};
use super::options::Pace;
use super::places::Places;
use super::repositories::{GitSource, News};
use super::revisions::Kept;
use super::{CommandError, SourceView};
use crate::plan::{Desired, SourceState};
use crate::source::{Directory, Fold, Rights, Snapshot, Trust, WatchError, WatchEvent, Watcher};
use crate::spec::Timestamp;
use std::collections::BTreeMap;
use std::io;
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
    origin: From,
    snapshot: Option<Snapshot>,
    last_read: Option<Timestamp>,
}

enum From {
    Directory(Box<Directory>),
    Git(Box<GitSource>),
}

impl Input {
    fn directory(&self) -> Option<&Directory> {
        match &self.origin {
            From::Directory(directory) => Some(directory),
            From::Git(_) => None,
        }
    }
}

impl Sources {
    /// None yet.
    pub fn new(places: Places, inbox: Sender, pace: Pace) -> Self {
        Self {
            inputs: Vec::new(),
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

    /// A directory that has no name of its own: it is called as its last part is.
    pub fn add_directory(&mut self, path: &Path, trust: &Trust) {
        let stem = path.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
        let is_taken = |name: &String| self.inputs.iter().any(|input| input.name == *name);
        let numbered = (1..).map(|number| format!("{stem}-{number}"));
        let name = std::iter::once(stem.clone()).chain(numbered).find(|name| !is_taken(name));
        self.push_directory(name.unwrap_or(stem), path, trust, Rights::default());
    }

    /// A source of the configuration.
    ///
    /// # Errors
    /// When its own directory cannot be made, or its name is another's.
    pub fn add(&mut self, source: SourceConfig, trust: &Trust, lib: &Path) -> io::Result<()> {
        let SourceConfig { name, origin, rights, suspend } = source;
        let name = name.to_string();
        if self.inputs.iter().any(|input| input.name == name) {
            return Err(io::Error::other("there is another one of this name"));
        }
        match origin {
            Origin::Directory(path) => self.push_directory(name, Path::new(path.as_str()), trust, rights),
            Origin::Git(git) => {
                let source = GitSource::open(&name, *git, rights, suspend, lib, self.inbox.clone())?;
                self.inputs.push(Input { name, origin: From::Git(Box::new(source)), snapshot: None, last_read: None });
            }
        }
        Ok(())
    }

    fn push_directory(&mut self, name: String, path: &Path, trust: &Trust, rights: Rights) {
        let mut directory = Directory::new(&name, path, trust.clone()).with_rights(rights);
        if let Some(before) = self.places.of(path) {
            directory.remember_place(before);
        }
        self.inputs.push(Input { name, origin: From::Directory(Box::new(directory)), snapshot: None, last_read: None });
    }

    fn git(&mut self, name: &str) -> Result<&mut GitSource, CommandError> {
        match self.inputs.iter_mut().find(|input| input.name == name).map(|input| &mut input.origin) {
            Some(From::Git(source)) => Ok(source),
            Some(From::Directory(_)) => Err(CommandError::Refused(format!("source {name} is a directory"))),
            None => Err(CommandError::NotFound(format!("source {name}"))),
        }
    }

    /// Takes in what a server answered; comes back with what is new about it, and why it is not used.
    pub fn fetched(&mut self, fetched: Fetched) -> (Option<News>, Option<String>) {
        let name = fetched.source.clone();
        self.touched(Instant::now());
        let Ok(source) = self.git(&name) else { return (None, None) };
        let news = source.fetched(fetched);
        (news, source.problem().map(str::to_owned))
    }

    /// Asks the servers of one source, or of all of them, at once. Comes back with those who will answer, and how
    /// many kicks an answer to this has seen.
    pub fn kick(&self, name: Option<&str>) -> Result<BTreeMap<String, u64>, CommandError> {
        if let Some(name) = name
            && !self.inputs.iter().any(|input| input.name == name)
        {
            return Err(CommandError::NotFound(format!("source {name}")));
        }
        let asked = self.inputs.iter().filter(|input| name.is_none_or(|name| input.name == name));
        let kick = |input: &Input| match &input.origin {
            From::Git(source) => Some((input.name.clone(), source.kick()?)),
            From::Directory(_) => None,
        };
        Ok(asked.filter_map(kick).collect())
    }

    pub fn revisions(&mut self, name: &str) -> Result<Vec<Kept>, CommandError> {
        Ok(self.git(name)?.revisions())
    }

    pub fn roll_back(
        &mut self,
        name: &str,
        to: Option<&str>,
        by: u32,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<String, CommandError> {
        let said = self.git(name)?.roll_back(to, by, reason, now)?;
        self.touched(Instant::now());
        Ok(said)
    }

    pub fn unpin(&mut self, name: &str) -> Result<String, CommandError> {
        let said = self.git(name)?.unpin()?;
        self.touched(Instant::now());
        Ok(said)
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
            let snapshot = match &mut input.origin {
                From::Directory(directory) => directory.snapshot(),
                From::Git(source) => source.snapshot(),
            };
            if let Some(wait) = snapshot.settle {
                let at = Instant::now() + wait;
                self.settle = Some(self.settle.map_or(at, |settle| settle.min(at)));
            }
            input.last_read = Some(now);
            input.snapshot = Some(snapshot);
        }
        let directories = self.inputs.iter().filter_map(Input::directory);
        let places = directories.filter_map(|source| Some((source.path().to_owned(), source.last_place()?)));
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

    /// Takes a source for what it is now: its directory, or the rewritten history of its repository.
    pub fn accept(&mut self, name: &str) -> Result<String, CommandError> {
        let Some(input) = self.inputs.iter_mut().find(|input| input.name == name) else {
            return Err(CommandError::NotFound(format!("source {name}")));
        };
        let said = match &mut input.origin {
            From::Directory(directory) => {
                directory.forget_place();
                "its directory is taken for what it is now".to_owned()
            }
            From::Git(source) => source.consent()?,
        };
        self.touched(Instant::now());
        Ok(said)
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
        let directories = self.inputs.iter().filter_map(Input::directory);
        let paths: Vec<PathBuf> = directories.map(|source| source.path().to_owned()).collect();
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
            if let (Some(error), true, Some(_)) = (&self.unwatched, complete, input.directory()) {
                message = format!("not watched, looked at every second: {error}");
            }
            let of_this = |(source, _): &&(String, String)| *source == input.name;
            let held = desired.held_files.iter().filter(|(key, _)| of_this(key));
            let mut view = SourceView {
                name: input.name.clone(),
                path: input.directory().map_or_else(String::new, |source| source.path().display().to_string()),
                complete,
                message,
                objects: desired.objects.values().filter(|wish| wish.provenance().source == input.name).count(),
                last_read: input.last_read,
                ignored: input.snapshot.as_ref().map(|snapshot| snapshot.ignored.clone()).unwrap_or_default(),
                problems: held.map(|(_, reason)| reason.to_string()).collect(),
                ..SourceView::default()
            };
            if let From::Git(source) = &input.origin {
                source.describe(&mut view);
            }
            view
        };
        self.inputs.iter().map(view).collect()
    }
}
