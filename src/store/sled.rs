//! Records in sled: one versioned JSON value per object, flushed before `put` returns.

use super::{Store, StoreError};
use crate::plan::Record;
use crate::spec::{ObjectId, Timestamp};
use nix::sys::prctl;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

/// The shape of what is stored. A newer agent migrates; an older one refuses.
const SCHEMA_VERSION: u32 = 1;
const SCHEMA_KEY: &[u8] = b"schema_version";
const RECORDS: &[u8] = b"records";
/// Records are small and few; sled's own default is 1 GiB.
const CACHE_BYTES: u64 = 8 << 20;
/// An agent that is being replaced needs a moment to let go of the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Our own lock goes with the last thread of the database that was closed.
const REOPEN_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The agent's database. One process at a time.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    /// Closed after a failed write: sled repeats the first error for ever, also when the disk has
    /// room again. Whoever needs it next opens it anew.
    open: Mutex<Option<Open>>,
    news: Mutex<Vec<String>>,
    /// Nothing was in it when it was opened, not even a schema.
    is_new: bool,
}

#[derive(Debug)]
struct Open {
    database: ::sled::Db,
    records: ::sled::Tree,
    /// Which file holds the log, by device and number.
    log: Option<(u64, u64)>,
}

/// A store that has been opened, and what a person has to know about how.
#[derive(Debug)]
pub struct Opened {
    pub store: SledStore,
    /// Set when the database was damaged: what was lost, and where the damaged one is kept.
    pub note: Option<String>,
}

/// A value as it is written.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    record: T,
}

impl SledStore {
    /// Opens or makes the database in `dir`.
    ///
    /// Waits a few seconds for another agent to leave. A damaged database is copied aside; what can
    /// be saved of it is used, else an empty one: the records are a memory, and are rebuilt from
    /// what runs and what the manifests say. On a disk that is full or can't be written the store
    /// begins closed, and whoever needs it next opens it anew.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        match Self::open_within(dir, LOCK_PATIENCE) {
            Err(error) if error.is_transient() => {
                let store = Self { dir: dir.to_owned(), open: Mutex::default(), news: Mutex::default(), is_new: false };
                Ok(Opened { store, note: None })
            }
            result => result,
        }
    }

    fn open_within(dir: &Path, patience: Duration) -> Result<Opened, StoreError> {
        let stood = fs::metadata(dir.join("db")).is_ok_and(|log| log.len() > 0);
        let damage = match Self::open_as_is(dir, patience) {
            Ok(store) => {
                // sled takes a log that is damaged from its start for an empty one.
                let emptied = stood && store.is_new;
                let note = emptied.then(|| "nothing in the database could be read: it begins empty".to_owned());
                return Ok(Opened { store, note });
            }
            Err(StoreError::Open { path: _, source }) if is_damage(&source) => source,
            Err(error) => return Err(error),
        };
        let aside = set_aside(dir)?;
        let kept = match aside {
            Some(aside) => format!("a copy is in {}", aside.display()),
            None => "there was no room for a copy".to_owned(),
        };
        // sled writes its snapshot without care; the log alone gives a prefix of what was there.
        remove_snapshots(dir)?;
        let saved = match Self::open_as_is(dir, patience) {
            Ok(store) => match store.readable() {
                true => Some(store),
                false => None,
            },
            Err(StoreError::Open { path: _, source }) if is_damage(&source) => None,
            Err(error) => return Err(error),
        };
        if let Some(store) = saved {
            let note = format!("the database was damaged ({damage}): an older state of it is used, {kept}");
            return Ok(Opened { store, note: Some(note) });
        }
        fs::remove_dir_all(dir).map_err(|source| StoreError::SetAside { path: dir.to_owned(), source })?;
        let store = Self::open_as_is(dir, patience)?;
        let note = format!("the database was damaged ({damage}): it begins empty, {kept}");
        Ok(Opened { store, note: Some(note) })
    }

    fn open_as_is(dir: &Path, patience: Duration) -> Result<Self, StoreError> {
        let error = |source| StoreError::Open { path: dir.to_owned(), source };
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(::sled::Mode::LowSpace)
            // Every put flushes by itself, so a timer would only wake the machine.
            .flush_every_ms(None);
        let patience = Instant::now() + patience;
        // sled's workers wake every second for as long as the process lives. They inherit the slack of
        // whoever makes them (prctl(2), PR_SET_TIMERSLACK), and with some they do it together, when the
        // machine is awake anyway. Whoever waits for a worker's work is not kept: that is no timer.
        let _slack = Slack::set();
        let database = loop {
            match config.open() {
                Ok(database) => break database,
                Err(source) if is_locked(&source) && Instant::now() < patience => thread::sleep(LOCK_PAUSE),
                Err(source) if is_locked(&source) => return Err(StoreError::Locked { path: dir.to_owned(), source }),
                Err(source) => return Err(error(source)),
            }
        };
        let is_new = match database.get(SCHEMA_KEY).map_err(error)? {
            Some(bytes) => {
                let found = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<u32>().ok());
                match found {
                    Some(SCHEMA_VERSION) => false,
                    Some(found) if found > SCHEMA_VERSION => {
                        return Err(StoreError::Newer { path: dir.to_owned(), found, known: SCHEMA_VERSION });
                    }
                    Some(_) | None => {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        return Err(StoreError::Schema { path: dir.to_owned(), text });
                    }
                }
            }
            None => {
                database.insert(SCHEMA_KEY, SCHEMA_VERSION.to_string().as_bytes()).map_err(error)?;
                database.flush().map_err(error)?;
                true
            }
        };
        let records = database.open_tree(RECORDS).map_err(error)?;
        let open = Open { database, records, log: identity(dir) };
        Ok(Self { dir: dir.to_owned(), open: Mutex::new(Some(open)), news: Mutex::default(), is_new })
    }

    fn readable(&self) -> bool {
        self.scan().is_ok()
    }

    /// Does something with the database, which is opened for it if it has been closed.
    fn with<T>(
        &self,
        operation: &'static str,
        object: &dyn std::fmt::Display,
        work: impl FnOnce(&Open) -> Result<T, ::sled::Error>,
    ) -> Result<T, StoreError> {
        // A panic ends the process; in tests what is behind a poisoned lock is still whole.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // What is written to a file without a name is lost with this process.
        if open.as_ref().is_some_and(|open| open.log != identity(&self.dir)) {
            *open = None;
            let path = self.dir.clone();
            self.tell(format!("the database in {} was taken away under the agent, and is made anew", path.display()));
            return Err(StoreError::TakenAway { path });
        }
        if open.is_none() {
            let Opened { store, note } = Self::open_within(&self.dir, REOPEN_PATIENCE)?;
            note.into_iter().for_each(|note| self.tell(note));
            *open = store.open.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        let result = match &*open {
            Some(open) => work(open),
            None => Err(::sled::Error::Io(io::ErrorKind::NotConnected.into())),
        };
        if result.is_err() {
            *open = None;
        }
        result.map_err(|source| StoreError::Access { operation, object: object.to_string(), source })
    }
}

impl SledStore {
    fn tell(&self, news: String) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(news);
    }
}

impl Store for SledStore {
    /// What can't be read is left out and told: it is rebuilt like everything that is lost.
    fn scan(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let all = |open: &Open| open.records.iter().collect::<Result<Vec<_>, _>>();
        for (key, value) in self.with("reading", &"every object", all)? {
            match decode(&String::from_utf8_lossy(&key), &value) {
                Ok(record) => records.push(record),
                Err(error) => self.tell(format!("{error}: it is rebuilt from what runs")),
            }
        }
        Ok(records)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.with("looking for", &"every object", |_| Ok(()))
    }

    fn news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn load(&self, id: &ObjectId) -> Result<Option<Record>, StoreError> {
        let key = id.to_string();
        let found = self.with("reading", &key, |open| open.records.get(key.as_bytes()))?;
        found.map(|value| decode(&key, &value)).transpose()
    }

    fn put(&self, records: &[Record]) -> Result<(), StoreError> {
        if let [record] = records {
            // A batch of one would be written in two pieces, one after the other.
            let key = record.id.to_string();
            let value = encode(&key, record)?;
            return self.with("writing", &key, |open| {
                open.records.insert(key.as_bytes(), value)?;
                open.database.flush().map(drop)
            });
        }
        let mut batch = ::sled::Batch::default();
        for record in records {
            let key = record.id.to_string();
            batch.insert(key.as_bytes(), encode(&key, record)?);
        }
        self.apply("writing", batch, records.iter().map(|record| &record.id))
    }

    fn forget(&self, ids: &[ObjectId]) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        for id in ids {
            batch.remove(id.to_string().as_bytes());
        }
        self.apply("forgetting", batch, ids.iter())
    }
}

impl SledStore {
    fn apply<'a>(
        &self,
        operation: &'static str,
        batch: ::sled::Batch,
        mut ids: impl Iterator<Item = &'a ObjectId>,
    ) -> Result<(), StoreError> {
        // The first one stands for all in an error: none of them is written.
        let Some(first) = ids.next() else { return Ok(()) };
        self.with(operation, first, |open| {
            open.records.apply_batch(batch)?;
            // What is applied alone is lost with the process: it only reaches the log's buffer.
            open.database.flush().map(|_| ())
        })
    }
}

/// The timer slack of this thread, put back at the end.
struct Slack(i32);

/// In nanoseconds.
const WORKERS_SLACK: std::ffi::c_ulong = 900_000_000;

impl Slack {
    fn set() -> Option<Self> {
        let before = prctl::get_timerslack().ok()?;
        prctl::set_timerslack(WORKERS_SLACK).ok()?;
        Some(Self(before))
    }
}

impl Drop for Slack {
    fn drop(&mut self) {
        // Set by this thread before, so it can be set again.
        let _infallible = prctl::set_timerslack(std::ffi::c_ulong::try_from(self.0).unwrap_or(0));
    }
}

fn encode(object: &str, record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Versioned { v: SCHEMA_VERSION, record })
        .map_err(|source| StoreError::Encode { object: object.to_owned(), source })
}

fn decode(object: &str, value: &[u8]) -> Result<Record, StoreError> {
    let Versioned { v: _, mut record }: Versioned<Record> =
        serde_json::from_slice(value).map_err(|source| StoreError::Decode { object: object.to_owned(), source })?;
    // Mostly the same revision; one copy of it makes every later comparison a pointer's.
    if let Some(instance) = &mut record.instance
        && instance.started_from == record.accepted
    {
        instance.started_from = Arc::clone(&record.accepted);
    }
    Ok(record)
}

fn is_damage(error: &::sled::Error) -> bool {
    match error {
        ::sled::Error::Corruption { .. } | ::sled::Error::ReportableBug(_) | ::sled::Error::Unsupported(_) => true,
        // sled says so of a log or a configuration that ends too early.
        ::sled::Error::Io(error) => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData),
        ::sled::Error::CollectionNotFound(_) => false,
    }
}

fn is_locked(error: &::sled::Error) -> bool {
    // sled wraps the refusal of its file lock into an error of another kind, with the kind as text.
    match error {
        ::sled::Error::Io(error) => {
            error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("WouldBlock")
        }
        ::sled::Error::Corruption { .. }
        | ::sled::Error::ReportableBug(_)
        | ::sled::Error::Unsupported(_)
        | ::sled::Error::CollectionNotFound(_) => false,
    }
}

/// The file that the database's log is in, by what it stays while it has its name.
fn identity(dir: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(dir.join("db")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// So many damaged databases are kept for whoever looks into it, the newest.
const KEPT_ASIDE: usize = 3;

/// Copies `dir` to `DIR.damaged-<instant>` beside it; nothing on a full disk.
fn set_aside(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let stamp = Timestamp::from_system(SystemTime::now()).to_string().replace(':', "");
    let name = dir.file_name().map_or_else(|| "db".into(), |name| name.to_string_lossy().into_owned());
    let prefix = format!("{name}.damaged-");
    remove_oldest(dir, &prefix);
    let aside = dir.with_file_name(format!("{prefix}{stamp}"));
    let Err(source) = copy_tree(dir, &aside) else { return Ok(Some(aside)) };
    // Half a copy is of no use, and it would be made again and again.
    let removed = fs::remove_dir_all(&aside);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if removed.is_ok() => Ok(None),
        _ => Err(StoreError::SetAside { path: aside, source }),
    }
}

/// Makes room for one more. What cannot be removed stays, and is in nobody's way.
fn remove_oldest(dir: &Path, prefix: &str) {
    let entries = dir.parent().and_then(|parent| fs::read_dir(parent).ok());
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut old: Vec<PathBuf> = paths.filter(is_one).collect();
    // An instant in the name sorts as it is.
    old.sort();
    for path in old.iter().rev().skip(KEPT_ASIDE - 1) {
        let _in_nobodys_way = fs::remove_dir_all(path);
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn remove_snapshots(dir: &Path) -> Result<(), StoreError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(|source| StoreError::SetAside { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests;
