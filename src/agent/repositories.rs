//! A git source: what was fetched, what of it holds, and how it stands with its server.

use super::config::Git;
use super::fetcher::{Asking, Ending, Fetched, Fetcher};
use super::inbox::Sender;
use super::revisions::{Kept, Pin, Revisions};
use super::{CommandError, EventType, PlanReport, SourceView};
use crate::fetch::{Answer, Refusal};
use crate::source::{Repository, Revision, Rights, Snapshot};
use crate::spec::Timestamp;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// One source of this kind.
pub(super) struct GitSource {
    source: Repository,
    kept: Revisions,
    /// `None` before it is begun, and where nothing newer is read.
    fetcher: Option<Fetcher>,
    git: Git,
    suspended: bool,
    last_success: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
    next_attempt: Option<Timestamp>,
    /// Why what is newest is not used.
    problem: Option<String>,
    /// A commit that waits for consent.
    rewritten: Option<String>,
}

/// Something to be told: kind, reason, text.
pub(super) type News = (EventType, &'static str, String);

impl GitSource {
    /// Goes on with what was accepted last; nobody is asked before [`GitSource::begin`].
    pub fn open(name: &str, git: Git, rights: Rights, suspended: bool, lib: &Path) -> io::Result<Self> {
        let own = own(lib, name);
        // Whoever fetches comes through to the directory that is its own.
        DirBuilder::new().recursive(true).mode(0o711).create(&own)?;
        let kept = Revisions::open(own.join("revisions"))?;
        let mut source = Repository::new(name, rights);
        let mut problem = None;
        if let Some(in_force) = kept.in_force()
            && let Err(reason) = load(&kept, in_force).and_then(|revision| source.take(&revision).map(drop))
        {
            problem = Some(format!("revision {} cannot be used: {reason}", in_force.commit.short()));
        }
        if suspended {
            source.is_missing("it is suspended, and nothing was fetched before");
        }
        Ok(Self {
            source,
            kept,
            fetcher: None,
            git,
            suspended,
            last_success: None,
            last_attempt: None,
            next_attempt: None,
            problem,
            rewritten: None,
        })
    }

    /// Asks the server, now and from now on. `before` is who asked it until now.
    pub fn begin(&mut self, name: &str, lib: &Path, inbox: Sender, before: Option<Ending>) {
        if self.suspended {
            return;
        }
        let after = self.kept.newest_of(&origin(&self.git)).filter(|_| self.source.commit().is_some());
        let asking = Asking { after: after.map(|kept| kept.commit.id.clone()), accepted: None };
        let directory = own(lib, name).join("fetched");
        match Fetcher::start(name, self.git.clone(), directory, asking, inbox, before) {
            Ok(fetcher) => self.fetcher = Some(fetcher),
            Err(error) => self.has(format!("its server cannot be asked: {error}; `plim reload` tries again")),
        }
    }

    /// Asks the server no more, and comes back with who may still be at it.
    pub fn end(self) -> Option<Ending> {
        self.fetcher.map(Fetcher::end)
    }

    /// Whether that was asked for by what this source is now.
    pub fn asked(&self, fetched: &Fetched) -> bool {
        self.fetcher.as_ref().is_some_and(|fetcher| fetcher.asked(fetched))
    }

    pub fn snapshot(&self) -> Snapshot {
        self.source.snapshot()
    }

    pub fn revisions(&self) -> Vec<Kept> {
        self.kept.list().to_vec()
    }

    /// Asks the server at once; see [`Fetcher::kick`]. `None` where nothing newer is read.
    pub fn kick(&self) -> Option<u64> {
        self.fetcher.as_ref().map(Fetcher::kick)
    }

    /// Why what is newest is not used.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes in what came of asking; comes back with what is new about it.
    pub fn fetched(&mut self, fetched: Fetched) -> Option<News> {
        let Fetched { source: _, result, at, next, kicks: _, by: _ } = fetched;
        (self.last_attempt, self.next_attempt) = (Some(at), Some(next));
        let before = self.problem.take();
        self.rewritten = None;
        let problem = match result {
            Ok(Answer::Unchanged) => None,
            Ok(Answer::Revision(revision)) => match self.accept(&revision, at) {
                Ok(text) => {
                    self.last_success = Some(at);
                    return Some((EventType::Normal, "RevisionAccepted", text));
                }
                Err(reason) => Some(reason),
            },
            Ok(Answer::Refused { commit, why, reason }) => {
                self.rewritten = (why == Refusal::Rewritten).then(|| commit.clone());
                let short = commit.get(..12).unwrap_or(&commit);
                let hint = match why {
                    Refusal::Rewritten => "; `plim approve --source` accepts it",
                    Refusal::Signature | Refusal::Content => "",
                };
                Some(format!("{short} is not used: {reason}{hint}"))
            }
            Ok(Answer::Failed { reason }) | Err(reason) => Some(reason),
        };
        let Some(problem) = problem else {
            self.last_success = Some(at);
            return before
                .map(|_| (EventType::Normal, "Fetched", "the server answers, and all is as it was".to_owned()));
        };
        let news = (before.as_ref() != Some(&problem)).then(|| (EventType::Warning, "FetchFailed", problem.clone()));
        self.has(problem);
        news
    }

    /// It has this problem until the server answers well.
    fn has(&mut self, problem: String) {
        if self.source.commit().is_none() {
            self.source.is_missing(&problem);
        }
        self.problem = Some(problem);
    }

    /// Keeps a new revision, and uses it unless another one is pinned.
    fn accept(&mut self, revision: &Revision, now: Timestamp) -> Result<String, String> {
        let about = &revision.about;
        let is_pinned = self.kept.pinned().is_some();
        let mut parsed = None;
        if !is_pinned {
            // Before it is kept: what cannot be used is not come back to at the next start.
            let taken = self.source.take(revision);
            parsed = Some(taken.map_err(|reason| format!("{} cannot be used: {reason}", about.short()))?);
        }
        let is_known = self.kept.newest_of(&origin(&self.git)).is_some_and(|newest| newest.commit.id == about.id);
        if !is_known {
            let added = self.kept.add(revision, &origin(&self.git), now);
            added.map_err(|error| format!("revision {} cannot be written down: {error}", about.short()))?;
        }
        if let Some(fetcher) = &self.fetcher {
            fetcher.ask(|asking| *asking = Asking { after: Some(about.id.clone()), accepted: None });
        }
        let what = format!("{} “{}” by {}", about.short(), about.summary, about.author);
        Ok(match parsed {
            Some(parsed) => format!("{what}; {parsed} of {} files are new", revision.files.len()),
            None => format!("{what}; another one is pinned, and holds"),
        })
    }

    /// Uses the commit that waits for consent.
    pub fn consent(&mut self) -> Result<String, CommandError> {
        let (Some(commit), Some(fetcher)) = (&self.rewritten, &self.fetcher) else {
            return Err(CommandError::Refused("nothing of it waits for consent".to_owned()));
        };
        fetcher.ask(|asking| asking.accepted = Some(commit.clone()));
        fetcher.kick();
        Ok(format!("commit {} is accepted", commit.get(..12).unwrap_or(commit)))
    }

    /// Goes back to an accepted revision, the one before the one in force if none is named, and stays there.
    pub fn roll_back(
        &mut self,
        to: Option<&str>,
        by: u32,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<String, CommandError> {
        let found = match to {
            Some(text) => self.kept.find(text).ok_or_else(|| CommandError::NotFound(format!("revision {text}")))?,
            None => {
                let current = self.kept.in_force().map_or(0, |kept| kept.number);
                let earlier = self.kept.list().iter().rev().find(|kept| kept.number < current);
                earlier.ok_or_else(|| CommandError::Refused("there is no earlier revision".to_owned()))?
            }
        }
        .clone();
        self.use_kept(&found)?;
        self.kept.pin(Some(Pin { number: found.number, by, since: now, reason })).map_err(unwritten)?;
        Ok(format!("revision {} ({}) holds until `plim source unpin`", found.number, found.commit.short()))
    }

    /// Follows the newest revision again.
    pub fn unpin(&mut self) -> Result<String, CommandError> {
        if self.kept.pinned().is_none() {
            return Err(CommandError::Refused("it is not pinned".to_owned()));
        }
        let newest = self.kept.newest().cloned();
        if let Some(newest) = &newest {
            self.use_kept(newest)?;
        }
        self.kept.pin(None).map_err(unwritten)?;
        Ok(newest
            .map_or_else(String::new, |newest| format!("revision {} ({}) holds", newest.number, newest.commit.short())))
    }

    /// What changes from one accepted revision to another; to the one in force, if no other is named.
    pub fn compare(&self, from: &str, to: Option<&str>) -> Result<PlanReport, CommandError> {
        let desired = |kept: Option<&Kept>, text: &str| {
            let kept = kept.ok_or_else(|| CommandError::NotFound(format!("revision {text}")))?;
            let mut source = self.source.empty();
            let taken = load(&self.kept, kept).and_then(|revision| source.take(&revision));
            taken
                .map_err(|reason| CommandError::Failed(format!("revision {} cannot be read: {reason}", kept.number)))?;
            Ok::<_, CommandError>(crate::source::desired(&[("", &source.snapshot())]))
        };
        let old = desired(self.kept.find(from), from)?;
        let new = desired(to.map_or_else(|| self.kept.in_force(), |to| self.kept.find(to)), to.unwrap_or("in force"))?;
        Ok(super::preview::between(&old, &new))
    }

    fn use_kept(&mut self, kept: &Kept) -> Result<(), CommandError> {
        let taken = load(&self.kept, kept).and_then(|revision| self.source.take(&revision).map(drop));
        taken.map_err(|reason| CommandError::Failed(format!("revision {} cannot be used: {reason}", kept.number)))
    }

    /// Adds what is to be seen of it.
    pub fn describe(&self, view: &mut SourceView) {
        view.path = format!("{} {}", self.git.url, self.git.reference);
        if !self.git.path.is_empty() {
            view.path = format!("{} {}", view.path, self.git.path);
        }
        let in_force = self.kept.in_force();
        let newest = self.kept.newest().filter(|newest| Some(*newest) != in_force);
        view.revision = in_force.cloned();
        view.newest = newest.cloned();
        view.pinned = self.kept.pinned().cloned();
        view.suspended = self.suspended;
        view.last_success = self.last_success;
        view.last_attempt = self.last_attempt;
        view.next_attempt = self.next_attempt;
        if let (true, Some(problem)) = (view.complete, &self.problem) {
            view.message.clone_from(problem);
        } else if view.complete && view.pinned.is_some() {
            view.message = "pinned".to_owned();
        } else if view.complete && view.suspended {
            view.message = "suspended".to_owned();
        }
    }
}

/// What belongs to a source alone.
fn own(lib: &Path, name: &str) -> PathBuf {
    lib.join("sources").join(name)
}

fn load(kept: &Revisions, which: &Kept) -> Result<Revision, String> {
    kept.load(which).map_err(|error| error.to_string())
}

fn unwritten(error: io::Error) -> CommandError {
    CommandError::Failed(format!("it could not be written down: {error}"))
}

/// What revisions of one history have in common.
fn origin(git: &Git) -> String {
    format!("{}\n{}\n{}", git.url, git.reference, git.path)
}
