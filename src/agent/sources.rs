//! The sources: watched directories and repositories, and when to read them.

use super::fetcher::{Ending, Fetched};
use super::given::{Given, Place, SourceError};
use super::inbox::{Message, Sender};
use super::options::Pace;
use super::places::Places;
use super::repositories::{GitSource, News};
use super::revisions::Kept;
use super::{CommandError, MaxDelete, PlanReport, SourceView};
use crate::plan::{self, Desired, Pruning, SourceState};
use crate::source::{Directory, Fold, Snapshot, Trust, WatchError, WatchEvent, Watcher};
use crate::spec::Timestamp;
use std::collections::BTreeMap;
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
    trust: Trust,
    /// What belongs to each of them alone is below this.
    lib: PathBuf,
    /// Those who asked servers for what a source was before.
    ending: BTreeMap<String, Ending>,
    /// Why events do not come, so that the directories are looked at every second.
    unwatched: Option<String>,
}

struct Input {
    given: Given,
    origin: From,
    snapshot: Option<Snapshot>,
    last_read: Option<Timestamp>,
}

/// How a source differs from what it was.
pub(super) struct Change {
    pub source: String,
    /// One word, for events.
    pub reason: &'static str,
    /// `was added`.
    pub what: &'static str,
    /// Whoever waits for its server waits for nobody.
    pub ends_asking: bool,
}

impl Change {
    fn of(given: &Given, old: Option<&Input>) -> Self {
        let (reason, what) = match old {
            None => ("Added", "was added"),
            Some(_) => ("Changed", "was changed"),
        };
        Self { source: given.name.clone(), reason, what, ends_asking: old.is_some() }
    }

    fn taken_out(old: &Input) -> Self {
        let what = "was taken out, and what came from it goes";
        Self { source: old.given.name.clone(), reason: "TakenOut", what, ends_asking: true }
    }
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
    pub fn new(lib: &Path, trust: Trust, inbox: Sender, pace: Pace) -> Self {
        let places = Places::load(lib.join("sources.json"));
        Self {
            trust,
            lib: lib.to_owned(),
            ending: BTreeMap::new(),
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

    /// Has these from now on, in their order. What is asked for as before goes on as it is. Comes back with what
    /// differs.
    ///
    /// # Errors
    /// When one of them cannot be opened; then all goes on as before.
    pub fn set(&mut self, given: Vec<Given>) -> Result<Vec<Change>, SourceError> {
        let is_same = |given: &Given| self.inputs.iter().any(|input| input.given == *given);
        let mut opened = Vec::with_capacity(given.len());
        for given in given {
            opened.push(if is_same(&given) { Err(given) } else { Ok(self.open(given)?) });
        }
        let mut before = std::mem::take(&mut self.inputs);
        let mut changes = Vec::new();
        for opened in opened {
            let name = opened.as_ref().map_or_else(|given| &given.name, |input| &input.given.name);
            let old = before.iter().position(|input| input.given.name == *name).map(|at| before.swap_remove(at));
            match (opened, old) {
                (Err(_), Some(old)) => self.inputs.push(old),
                // It was there a moment ago, and names are given once.
                (Err(_), None) => {}
                (Ok(mut new), old) => {
                    changes.push(Change::of(&new.given, old.as_ref()));
                    if let Some(old) = old {
                        self.end(old);
                    }
                    if let From::Git(source) = &mut new.origin {
                        let before = self.ending.remove(&new.given.name);
                        source.begin(&new.given.name, &self.lib, self.inbox.clone(), before);
                    }
                    self.inputs.push(new);
                }
            }
        }
        for old in before {
            changes.push(Change::taken_out(&old));
            self.end(old);
        }
        self.ending.retain(|_, ending| !ending.is_over());
        if !changes.is_empty() {
            self.watcher = None;
            self.touched(Instant::now());
        }
        Ok(changes)
    }

    fn open(&self, given: Given) -> Result<Input, SourceError> {
        let Given { name, from, rights, suspend } = given.clone();
        let origin = match from {
            Place::Directory(path) => {
                let mut directory = Directory::new(&name, &path, self.trust.clone()).with_rights(rights);
                if let Some(before) = self.places.of(&path) {
                    directory.remember_place(before);
                }
                From::Directory(Box::new(directory))
            }
            Place::Git(git) => {
                let source = GitSource::open(&name, *git, rights, suspend, &self.lib);
                From::Git(Box::new(source.map_err(|source| SourceError::Open { name, source })?))
            }
        };
        Ok(Input { given, origin, snapshot: None, last_read: None })
    }

    fn end(&mut self, input: Input) {
        if let From::Git(source) = input.origin
            && let Some(ending) = source.end()
        {
            self.ending.insert(input.given.name, ending);
        }
    }

    fn git(&mut self, name: &str) -> Result<&mut GitSource, CommandError> {
        match self.inputs.iter_mut().find(|input| input.given.name == name).map(|input| &mut input.origin) {
            Some(From::Git(source)) => Ok(source),
            Some(From::Directory(_)) => Err(CommandError::Refused(format!("source {name} is a directory"))),
            None => Err(CommandError::NotFound(format!("source {name}"))),
        }
    }

    /// Takes in what a server answered; comes back with what is new about it, and why it is not used. `None` for an
    /// answer to what nobody asks any more.
    pub fn fetched(&mut self, fetched: Fetched) -> Option<(Option<News>, Option<String>)> {
        let name = fetched.source.clone();
        self.touched(Instant::now());
        let source = self.git(&name).ok().filter(|source| source.asked(&fetched))?;
        let news = source.fetched(fetched);
        Some((news, source.problem().map(str::to_owned)))
    }

    /// Asks the servers of one source, or of all of them, at once. Comes back with those who will answer, and how
    /// many kicks an answer to this has seen.
    pub fn kick(&self, name: Option<&str>) -> Result<BTreeMap<String, u64>, CommandError> {
        if let Some(name) = name
            && !self.inputs.iter().any(|input| input.given.name == name)
        {
            return Err(CommandError::NotFound(format!("source {name}")));
        }
        let asked = self.inputs.iter().filter(|input| name.is_none_or(|name| input.given.name == name));
        let kick = |input: &Input| match &input.origin {
            From::Git(source) => Some((input.given.name.clone(), source.kick()?)),
            From::Directory(_) => None,
        };
        Ok(asked.filter_map(kick).collect())
    }

    pub fn revisions(&mut self, name: &str) -> Result<Vec<Kept>, CommandError> {
        Ok(self.git(name)?.revisions())
    }

    pub fn compare(&mut self, name: &str, from: &str, to: Option<&str>) -> Result<PlanReport, CommandError> {
        self.git(name)?.compare(from, to)
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
        let snapshots =
            self.inputs.iter().filter_map(|input| Some((input.given.name.as_str(), input.snapshot.as_ref()?)));
        self.fold.fold(&snapshots.collect::<Vec<_>>())
    }

    /// Takes a source for what it is now: its directory, or the rewritten history of its repository.
    pub fn accept(&mut self, name: &str) -> Result<String, CommandError> {
        let Some(input) = self.inputs.iter_mut().find(|input| input.given.name == name) else {
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

    pub fn views(&self, desired: &Desired, pruning: &BTreeMap<String, Pruning>) -> Vec<SourceView> {
        let view = |input: &Input| {
            let (complete, mut message) = match desired.sources.get(&input.given.name) {
                Some(SourceState::Complete) => (true, String::new()),
                Some(SourceState::Unavailable { reason }) => (false, reason.to_string()),
                None => (false, "not read yet".to_owned()),
            };
            if let (Some(error), true, Some(_)) = (&self.unwatched, complete, input.directory()) {
                message = format!("not watched, looked at every second: {error}");
            }
            let of_this = |(source, _): &&(String, String)| *source == input.given.name;
            let held = desired.held_files.iter().filter(|(key, _)| of_this(key));
            let mut view = SourceView {
                name: input.given.name.clone(),
                path: input.directory().map_or_else(String::new, |source| source.path().display().to_string()),
                complete,
                message,
                objects: desired.objects.values().filter(|wish| wish.provenance().source == input.given.name).count(),
                last_read: input.last_read,
                ignored: input.snapshot.as_ref().map(|snapshot| snapshot.ignored.clone()).unwrap_or_default(),
                problems: held.map(|(_, reason)| reason.to_string()).collect(),
                ..SourceView::default()
            };
            if let Some(Pruning { prune, max_delete }) = pruning.get(&input.given.name) {
                view.keeps = !prune;
                view.max_delete = max_delete.map(|plan::MaxDelete { count, percent }| MaxDelete { count, percent });
            }
            if let From::Git(source) = &input.origin {
                source.describe(&mut view);
            }
            view
        };
        self.inputs.iter().map(view).collect()
    }
}
