//! Says when to look at a source again.
//!
//! An event carries no news but "look again": the listing is what counts, and a periodic one finds
//! what nobody tells (network file systems). Nothing is coalesced here.

use super::mounts::Mounts;
use super::way::{Found, Way};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something may have changed.
    Changed,
    /// The kernel dropped events: everything may have changed.
    Overflow,
    /// Something is not watched any more, and only the periodic listing will find its changes.
    Lost(String),
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("starting to watch for changes (fs.inotify.max_user_instances may be used up)")]
    Start(#[source] notify::Error),
    #[error("watching {} (fs.inotify.max_user_watches may be used up)", path.display())]
    Watch {
        path: PathBuf,
        #[source]
        source: notify::Error,
    },
}

/// Watches as long as it lives.
pub struct Watcher {
    inner: RecommendedWatcher,
    paths: Vec<PathBuf>,
    scope: Arc<RwLock<Scope>>,
    /// Something that is watched may have lost its watch: `notify` forgets a path when it hears that
    /// it was removed, also when another directory is there by then.
    stale: Arc<AtomicBool>,
    ways: Vec<Way>,
    /// `None` where the kernel's table of mounts cannot be watched.
    _mounts: Option<Mounts>,
}

/// Which events are about a source.
#[derive(Debug, Default)]
struct Scope {
    /// Directories with everything below them.
    roots: BTreeSet<PathBuf>,
    /// Links and directories on the way, in directories where others may be busy with other things.
    names: BTreeSet<PathBuf>,
}

impl Scope {
    fn loses(&self, event: &Event) -> bool {
        let moves = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
        let watched = |path: &PathBuf| self.names.contains(path) || self.roots.contains(path);
        event.need_rescan() || (moves && event.paths.iter().any(watched))
    }

    fn concerns(&self, path: &Path) -> bool {
        self.names.contains(path) || self.roots.iter().any(|root| path.starts_with(root))
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("paths", &self.paths).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Watches directories and what decides where their paths lead: the parents, and every link on the
/// way. Call before the first listing, so that nothing falls between.
///
/// `wake` is called from a thread of the watcher's own, for every event.
///
/// # Errors
/// When the host's limits are used up: a listing every now and then has to do.
pub fn watch(paths: &[PathBuf], wake: impl Fn(WatchEvent) + Send + Sync + 'static) -> Result<Watcher, WatchError> {
    let scope = Arc::new(RwLock::new(Scope::default()));
    let stale = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(wake);
    let remounted = Arc::clone(&wake);
    let (seen, lost) = (Arc::clone(&scope), Arc::clone(&stale));
    let handler = move |event: notify::Result<Event>| {
        let scope = seen.read().unwrap_or_else(PoisonError::into_inner);
        if event.as_ref().map_or(true, |event| scope.loses(event)) {
            lost.store(true, Ordering::Release);
        }
        let event = judge(&event, &scope);
        // Whoever is woken may call `refresh`, which writes it.
        drop(scope);
        if let Some(event) = event {
            wake(event);
        }
    };
    let config = notify::Config::default().with_follow_symlinks(false);
    let inner = RecommendedWatcher::new(handler, config).map_err(WatchError::Start)?;
    let paths: Vec<PathBuf> =
        paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect();
    // A listing every now and then has to do where that is refused.
    let mounts = Mounts::watch(paths.clone(), move || remounted(WatchEvent::Changed)).ok();
    let mut watcher = Watcher { inner, paths, scope, stale, ways: Vec::new(), _mounts: mounts };
    watcher.refresh()?;
    Ok(watcher)
}

fn judge(event: &notify::Result<Event>, scope: &Scope) -> Option<WatchEvent> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return Some(WatchEvent::Lost(error.to_string())),
    };
    // An overflow has no paths.
    if event.need_rescan() {
        return Some(WatchEvent::Overflow);
    }
    let telling = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        // Our own reading opens files, and what is being written is not to be read yet.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    };
    let concerns = event.paths.is_empty() || event.paths.iter().any(|path| scope.concerns(path));
    (telling && concerns).then_some(WatchEvent::Changed)
}

impl Watcher {
    /// Follows the paths anew, and watches what they lead to now. To be called before each listing:
    /// it costs a few `lstat`s when nothing has moved. True when it had to change something.
    pub fn refresh(&mut self) -> Result<bool, WatchError> {
        // What moves between following and watching is followed once more; what never stops moving
        // is left to the event that it causes.
        for round in 0..8 {
            let ways: Vec<Way> = self.paths.iter().map(|path| Way::to(path).outline()).collect();
            if !self.stale.swap(false, Ordering::AcqRel) && ways == self.ways {
                return Ok(round > 0);
            }
            self.watch_ways(ways)?;
        }
        Ok(true)
    }

    fn watch_ways(&mut self, ways: Vec<Way>) -> Result<(), WatchError> {
        let mut wanted = Scope::default();
        let mut parents = BTreeSet::new();
        for way in &ways {
            for step in &way.steps {
                let is_end = way.end.as_ref() == Some(&step.path);
                if is_end || matches!(step.found, Found::Link | Found::Missing) {
                    wanted.names.insert(step.path.clone());
                    parents.extend(step.path.parent().map(Path::to_owned));
                }
            }
            wanted.roots.extend(way.end.clone());
        }
        let before = {
            let mut scope = self.scope.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *scope, wanted)
        };
        // Whatever changes from here on is not known yet.
        let old_ways = std::mem::replace(&mut self.ways, ways);
        let old = old_ways.iter().flat_map(|way| &way.steps).filter_map(|step| step.path.parent());
        for path in before.roots.iter().map(PathBuf::as_path).chain(old) {
            // An error says that it was not watched: a directory that is gone takes its watch along.
            let _ = self.inner.unwatch(path);
        }
        let scope = self.scope.read().unwrap_or_else(PoisonError::into_inner);
        let roots: Vec<PathBuf> = scope.roots.iter().cloned().collect();
        drop(scope);
        // Parents first: a directory of one source may be the parent of another, and the wider watch
        // is the one that stays.
        let parents = parents.into_iter().map(|path| (path, RecursiveMode::NonRecursive));
        for (path, mode) in parents.chain(roots.into_iter().map(|path| (path, RecursiveMode::Recursive))) {
            match self.inner.watch(&path, mode) {
                Ok(()) => {}
                // Gone since it was followed: the next look at the way sees that.
                Err(error) if is_missing(&error) => {}
                Err(source) => {
                    self.ways.clear();
                    return Err(WatchError::Watch { path, source });
                }
            }
        }
        Ok(())
    }
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
