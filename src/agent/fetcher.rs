//! Asks the server of a source time and again, on a thread of its own.

use super::config::{Git, LoginConfig, SshConfig, VerifyConfig};
use super::inbox::{Message, Sender};
use crate::fetch::{self, Answer, Fetching, Login, Order, Ssh, Verify};
use crate::source::Trust;
use crate::spec::{AbsolutePath, Span, Timestamp};
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// After a failure the server is asked again after this long, then after twice as long, up to `interval`.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// Passwords, keys and lists are no longer than this.
const MAX_SECRET: u64 = 1 << 20;

/// What came of asking once.
pub(super) struct Fetched {
    pub source: String,
    pub result: Result<Answer, String>,
    pub at: Timestamp,
    /// When the server is asked again.
    pub next: Timestamp,
    /// How many kicks there had been when it was asked.
    pub kicks: u64,
    /// Which fetcher asked: the source may have another one by now.
    pub by: u64,
}

/// What the next question depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Asking {
    pub after: Option<String>,
    pub accepted: Option<String>,
}

/// Ends when it is dropped, after what it is at.
pub(super) struct Fetcher {
    kick: mpsc::Sender<()>,
    kicks: Arc<AtomicU64>,
    asking: Arc<Mutex<Asking>>,
    number: u64,
    thread: JoinHandle<()>,
}

/// One of them that was dropped, and may still be at something.
pub(super) struct Ending(JoinHandle<()>);

impl Ending {
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

impl Fetcher {
    /// `directory` holds the copy of the repository, which `before` may still be at.
    pub fn start(
        source: &str,
        git: Git,
        directory: PathBuf,
        asking: Asking,
        inbox: Sender,
        before: Option<Ending>,
    ) -> std::io::Result<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (kick, kicked) = mpsc::channel();
        let asking = Arc::new(Mutex::new(asking));
        let kicks = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            source: source.to_owned(),
            git,
            directory,
            asking: Arc::clone(&asking),
            kicks: Arc::clone(&kicks),
            inbox,
            failures: 0,
            number,
        };
        let run = move || {
            if let Some(Ending(before)) = before {
                // A panic in there would have ended the process.
                drop(before.join());
            }
            worker.run(&kicked);
        };
        let thread = std::thread::Builder::new().name(format!("fetch {source}")).spawn(run)?;
        Ok(Self { kick, kicks, asking, number, thread })
    }

    /// Whether it was this one that asked.
    pub fn asked(&self, fetched: &Fetched) -> bool {
        fetched.by == self.number
    }

    /// Ends it after what it is at.
    pub fn end(self) -> Ending {
        Ending(self.thread)
    }

    /// Asks at once. What was fetched for this has seen as many kicks as are returned.
    pub fn kick(&self) -> u64 {
        let kicks = self.kicks.fetch_add(1, Ordering::AcqRel) + 1;
        // It lives as long as we do.
        let _ = self.kick.send(());
        kicks
    }

    pub fn ask(&self, change: impl FnOnce(&mut Asking)) {
        change(&mut self.asking.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Worker {
    source: String,
    git: Git,
    directory: PathBuf,
    asking: Arc<Mutex<Asking>>,
    kicks: Arc<AtomicU64>,
    inbox: Sender,
    failures: u32,
    number: u64,
}

impl Worker {
    fn run(mut self, kicked: &mpsc::Receiver<()>) {
        loop {
            let kicks = self.kicks.load(Ordering::Acquire);
            let result = self.fetch();
            self.failures = if result.is_err() { self.failures.saturating_add(1) } else { 0 };
            let wait = self.wait();
            let at = super::driver::now();
            let next = at.after(Span(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
            let fetched = Fetched { source: self.source.clone(), result, at, next, kicks, by: self.number };
            if self.inbox.send(Message::Fetched(Box::new(fetched))).is_err() {
                return;
            }
            match kicked.recv_timeout(wait) {
                // Several kicks are one.
                Ok(()) => while kicked.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn wait(&self) -> Duration {
        let interval = self.git.interval.duration();
        let base = match self.failures {
            0 => interval,
            failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(interval),
        };
        // Give or take a quarter, so that many hosts do not ask at once.
        let random = u32::try_from(RandomState::new().hash_one(&self.source) % 1000).unwrap_or(0);
        base * 3 / 4 + base * random / 2000
    }

    fn fetch(&self) -> Result<Answer, String> {
        let Git { url, reference, path, interval: _, timeout, login, ssh, certificates_file, verify } = &self.git;
        let Asking { after, accepted } = self.asking.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let login = login.as_ref().map(|LoginConfig { username, password_file }| {
            let password = read(password_file, Secrecy::Secret)?.trim_end_matches(['\n', '\r']).to_owned();
            Ok::<_, String>(Login { username: username.clone(), password })
        });
        let ssh = ssh.as_ref().map(|SshConfig { key_file, known_hosts_file }| {
            let known_hosts = read(known_hosts_file, Secrecy::Public)?;
            Ok::<_, String>(Ssh { key: read(key_file, Secrecy::Secret)?, known_hosts })
        });
        let verify = verify.as_ref().map(|VerifyConfig { allowed_signers_file, every }| {
            let allowed_signers = read(allowed_signers_file, Secrecy::Public)?;
            Ok::<_, String>(Verify { allowed_signers, every: *every })
        });
        let certificates = certificates_file.as_ref().map(|path| read(path, Secrecy::Public)).transpose()?;
        let order = Order {
            url: url.clone(),
            reference: reference.clone(),
            path: path.clone(),
            after,
            accepted,
            login: login.transpose()?,
            ssh: ssh.transpose()?,
            verify: verify.transpose()?,
        };
        let fetching = Fetching { directory: self.directory.clone(), certificates, timeout: timeout.duration() };
        match fetch::fetch(&fetching, &order) {
            Ok(Answer::Failed { reason }) => Err(reason),
            Ok(answer) => Ok(answer),
            Err(error) => Err(crate::host::chain(&error)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Secret,
    /// Anybody may read it, but not everybody write it.
    Public,
}

/// Reads a file that the configuration names, each time anew: it may be rotated.
fn read(path: &AbsolutePath, secrecy: Secrecy) -> Result<String, String> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |error: std::io::Error| format!("reading {path}: {error}");
    let file = std::fs::File::open(path.as_str()).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if let Some(reason) = (Trust::Strict { uids: BTreeSet::from([0]) }).objects_to(&metadata) {
        return Err(format!("{path} {reason}"));
    }
    if secrecy == Secrecy::Secret && metadata.mode() & 0o077 != 0 {
        return Err(format!("{path} can be read by others than root (chmod 600)"));
    }
    let mut text = String::new();
    file.take(MAX_SECRET).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
