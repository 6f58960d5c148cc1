//! The driver: it waits, calls the pure part, hands steps to the host. It decides nothing.
//!
//! [`run`] starts one agent: it opens the store, finds or starts the keeper, looks at what runs, and
//! then makes rounds. A round is a function of what is there now, so a missed event costs a delay
//! and never a state. [`Handle`] is how the rest of the program talks to it.

mod clock;
mod config;
mod counts;
mod driver;
mod durable;
mod fetcher;
mod given;
mod handle;
mod history;
mod inbox;
mod journal;
mod options;
mod orders;
mod overrides;
mod places;
mod preview;
mod queue;
mod reload;
mod repositories;
mod revisions;
mod sources;
mod status;
mod view;

pub use crate::host::{ExecRequest, ExecSession, Figures, KeeperBy, Usage};
pub use config::{Config, ConfigError, Keeper, MaxDelete, ReadOnlySocket, SourceConfig};
pub use counts::{Change, Counts};
pub use given::SourceError;
pub use handle::{Command, CommandError, Handle, Metrics, PlanReport, PlanRequest, PlannedChange};
pub use history::Report;
pub use options::{AgentError, Options};
pub use reload::Reread;
pub use revisions::{Kept, Pin};
pub use view::{
    Condition, ContainerStatus, Event, EventType, Generations, Item, List, Metadata, ResourcesView, SourceView,
    StatusSource, Summary, View, Which,
};

use crate::host::{HostEvent, ID_RANGES, Machine, Paths};
use crate::plan::{Desired, Seen};
use crate::source::Trust;
use crate::store::{SledStore, Store as _};
use inbox::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;
use tokio::sync::{oneshot, watch};

/// A started agent.
pub struct Running {
    driver: oneshot::Receiver<driver::Left>,
    machine: Arc<Machine>,
    pub paths: Paths,
}

impl Running {
    /// Waits until the agent has left. After everything was stopped, the keeper and the cgroups'
    /// parent go too.
    pub async fn wait(self) {
        let left = self.driver.await;
        if matches!(left, Ok(driver::Left::Stopped)) {
            let machine = self.machine.clone();
            // A panic in there would have ended the process.
            drop(tokio::task::spawn_blocking(move || machine.leave_clean()).await);
        }
    }
}

/// Starts an agent on this host. `reread` reads the options again while it runs, where they can change.
pub async fn run(options: Options, reread: Option<Reread>) -> Result<(Handle, Running), AgentError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    crate::host::check_privileges()?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| AgentError::Directory { path, source }
    };
    if let Some(root) = &options.root {
        std::fs::create_dir_all(root).map_err(failed(root))?;
    }
    let paths =
        Paths::new(options.root.as_deref()).map_err(failed(options.root.as_deref().unwrap_or(Path::new("/"))))?;
    let paths = paths.below(options.cgroup_parent.clone());
    for dir in [&paths.lib, &paths.run, &paths.log] {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed(dir))?;
    }
    let opened = SledStore::open(&paths.database())?;
    let mut warnings: Vec<String> = opened.note.into_iter().collect();

    let pace = options::Pace::new(options.resync);
    let (sender, inbox) = mpsc::channel();
    let events = {
        let sender = sender.clone();
        move |event| {
            let message = match event {
                HostEvent::Changed(object) => Message::HostChanged(object),
                HostEvent::Health(object, good, text) => Message::HealthChanged(object, good, text),
                HostEvent::KeeperLost => Message::KeeperLost,
                HostEvent::KeeperUpgraded => {
                    let text = "the keeper runs the build that is installed now; every container went on".to_owned();
                    Message::KeeperNews(EventType::Normal, "KeeperUpgraded", text)
                }
                HostEvent::KeeperOutdated(text) => Message::KeeperNews(EventType::Warning, "KeeperOutdated", text),
            };
            // The driver has left: nobody is to be woken.
            drop(sender.send(message));
        }
    };
    let machine = Machine::new(paths.clone(), options.keeper, events)
        .map_err(|error| AgentError::Host(crate::host::chain(&error)))?;
    let machine = Arc::new(machine);
    warnings.extend(crate::storage::ids_conflicts(paths.id_base(), ID_RANGES));

    let (records, unread) = match opened.store.scan() {
        Ok(records) => (records, None),
        // What runs goes on; nothing is decided before it is known what was.
        Err(error) if error.is_transient() => (Vec::new(), Some(error)),
        Err(error) => return Err(error.into()),
    };
    warnings.extend(opened.store.news());
    let given = given::given(&options)?;
    let journal = journal::Journal::new();
    let facts = status::AgentFacts {
        root: paths.root.as_ref().map(|root| root.display().to_string()),
        started_at: driver::now(),
        rounds: 0,
        last_round: None,
        host: host_facts(),
        warnings,
    };
    let empty = View {
        items: Vec::new(),
        summary: Summary {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_pid: std::process::id(),
            keeper_pid: None,
            root: facts.root.clone(),
            started_at: facts.started_at,
            last_round: None,
            rounds: 0,
            cgroups: machine.describe_cgroups(),
            objects: BTreeMap::new(),
            sources: Vec::new(),
            warnings: facts.warnings.clone(),
        },
        version: 0,
        counts: Counts::default(),
    };
    let (changes, changed) = watch::channel(0);
    let last = Arc::new(Mutex::new(Arc::new(empty)));
    let history = history::History::new(paths.lib.join("history"));
    let handle = Handle {
        changes: changed,
        last: last.clone(),
        inbox: sender.clone(),
        journal: journal.clone(),
        history: history.clone(),
        machine: machine.clone(),
    };
    let trust = trust(&options, &given::manifests(&options));
    let mut sources = sources::Sources::new(&paths.lib, trust, sender.clone(), pace);
    sources.set(given)?;
    let mut driver = driver::Driver {
        host: machine.clone(),
        machine: machine.clone(),
        store: Box::new(opened.store),
        settings: options.settings(paths.id_base(), ID_RANGES),
        options,
        reread,
        clock: clock::Clock::open(&paths.run, clock::Reading::now()),
        pace,
        sources,
        journal,
        history,
        inbox,
        sender,
        changes,
        last,
        facts,
        counts: Counts::default(),
        desired: Desired::default(),
        records: records.into_iter().map(|record| (record.id.clone(), record)).collect(),
        seen: Seen::default(),
        findings: BTreeMap::new(),
        decisions: BTreeMap::new(),
        queue: queue::Queue::new(pace.workers),
        settled: BTreeSet::new(),
        approved: BTreeSet::new(),
        again: true,
        look: None,
        next_resync: Instant::now(),
        wake_at: None,
        wake_by: None,
        retry_at: None,
        unread: false,
        unsaved: false,
        trouble: None,
        runtime: tokio::runtime::Handle::current(),
        asked: Vec::new(),
        reconciled: Vec::new(),
        stopping: Vec::new(),
        last_shown: Instant::now(),
        dirty_view: true,
    };
    if let Some(error) = unread {
        driver.is_without_memory(&error);
    }
    let (leaves, left) = oneshot::channel();
    // Nobody waits for it any more: then nobody is told that it has left.
    let rounds = move || {
        let _told = leaves.send(driver.run());
    };
    let thread = std::thread::Builder::new().name("rounds".to_owned()).spawn(rounds);
    thread.map_err(|source| AgentError::Runtime { operation: "the rounds", source })?;
    let running = Running { driver: left, machine, paths };
    Ok((handle, running))
}

/// Who may own manifests: root, and for a person in the foreground the directory's owner, if that
/// is who called sudo. Otherwise a fresh clone would not work.
fn trust(options: &Options, manifests: &[PathBuf]) -> Trust {
    let mut uids = BTreeSet::from([0]);
    if options.foreground {
        let caller = std::env::var("SUDO_UID").ok().and_then(|text| text.parse::<u32>().ok());
        let owners = manifests.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.uid());
        uids.extend(owners.filter(|owner| Some(*owner) == caller));
    }
    Trust::Strict { uids }
}

fn host_facts() -> BTreeMap<String, String> {
    let uname = nix::sys::utsname::uname();
    let name = uname.map(|uname| uname.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    BTreeMap::from([("id".to_owned(), name)])
}
