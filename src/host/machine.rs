//! The real host: each action composed from cgroups, images, storage, sandbox and keeper.

use super::blueprint::{Prepared, blueprint};
use super::health::Watch;
use super::keeper_link::{HostEvent, KeeperBy, KeeperLink};
use super::mounts::Mounts;
use super::note::InstanceNote;
use super::pid_one;
use super::privileges::{PrivilegeError, grantable};
use super::references::{self, Missing};
use super::seccomp_cache::{FilterError, SeccompCache};
use super::{Figures, Host, Paths, Scope, Usage, chain};
use crate::cgroup::{CgroupError, Cgroups};
use crate::image::{ImageError, Images};
use crate::keeper::{Client, Fault, HandleState, KeeperError, LogTarget, Output, StartRequest, Whereabouts};
use crate::plan::{Action, Deferred, Exit, Failure, HealthSeen, Outcome, ProcessSeen, Seen, Sighting};
use crate::sandbox::{self, CgroupJoin, CgroupView};
use crate::spec::change::{Class, class_between};
use crate::spec::{Bytes, IdRange, InstanceId, LimitPointer, Object, Resources, Span, Timestamp};
use crate::storage::{Storage, StorageError, UserError};
use crate::sys::may_die;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long an ended cgroup may take until it is empty.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

pub struct Machine {
    pub(super) cgroups: Cgroups,
    pub(super) storage: Storage,
    pub(super) keeper: KeeperLink,
    pub(super) seccomp: SeccompCache,
    pub(super) health: Watch,
    mounts: Mounts,
    images: Images,
    /// Instances that were sent their stop signal, and whether it was lost on their PID 1.
    signalled: Mutex<BTreeMap<InstanceId, bool>>,
    /// What running processes were started from.
    noted: Mutex<BTreeMap<InstanceId, Option<Arc<Object>>>>,
    /// CPU time when usage was last asked, to tell the rate.
    measured: Mutex<BTreeMap<InstanceId, (Instant, u64)>>,
}

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error(transparent)]
    Note(#[from] super::note::NoteError),
    #[error(transparent)]
    Script(#[from] sandbox::ScriptError),
    #[error("the streams of the command")]
    Streams(#[from] rustix::io::Errno),
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("the processes of {instance} did not end within 10 s of being killed")]
    Unkillable { instance: InstanceId },
    #[error("{instance} does not run")]
    NotRunning { instance: InstanceId },
    #[error("{instance} runs already as process {pid}, and what it was started from is not known")]
    StandsAlready { instance: InstanceId, pid: u32 },
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; in tests what is behind a poisoned lock is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Prepares this host's part of the work. The keeper is looked for when it is first needed.
    pub fn new(
        paths: Paths,
        by: KeeperBy,
        notify: impl Fn(HostEvent) + Send + Sync + 'static,
    ) -> Result<Self, MachineError> {
        let cgroups = Cgroups::detect(&paths.cgroup_parent)?;
        // Before the keeper is started: its own place is among what is made.
        cgroups.prepare()?;
        let keeper = cgroups.keeper().unified.into_iter().map(PathBuf::from).collect();
        let storage = Storage::new(&paths.lib, &paths.run, &paths.log);
        if let Err(error) = storage.sweep() {
            // Empty directories are in nobody's way.
            tracing::warn!(error = %chain(&error), "removing what is left of removed containers failed");
        }
        let notify = Arc::new(notify);
        let of_health = Arc::clone(&notify);
        Ok(Self {
            health: Watch::new(move |event| of_health(event)),
            mounts: Mounts::default(),
            cgroups,
            storage,
            images: Images::new(&paths.lib),
            keeper: KeeperLink::new(paths, by, keeper, move |event| notify(event)),
            seccomp: SeccompCache::default(),
            signalled: Mutex::default(),
            noted: Mutex::default(),
            measured: Mutex::default(),
        })
    }

    pub fn describe_cgroups(&self) -> String {
        self.cgroups.describe()
    }

    pub fn keeper_pid(&self) -> Option<u32> {
        self.keeper.pid()
    }

    /// What a person has to know about the keeper.
    pub fn keeper_warning(&self) -> Option<String> {
        self.keeper.warning()
    }

    /// Where the instance's processes are, below the cgroup root.
    pub fn payload_path(&self, instance: &InstanceId) -> String {
        self.cgroups.payload_path(instance)
    }

    /// What it uses now; `None` when it has no cgroup.
    pub fn usage(&self, instance: &InstanceId) -> Option<Usage> {
        let usage = self.cgroups.usage(instance).ok()?;
        let now = Instant::now();
        let before = lock(&self.measured).insert(instance.clone(), (now, usage.cpu_usec));
        let cpu_milli = before.and_then(|(at, cpu_usec)| {
            let elapsed = u64::try_from(now.duration_since(at).as_micros()).ok().filter(|elapsed| *elapsed > 0)?;
            usage.cpu_usec.checked_sub(cpu_usec)?.checked_mul(1000)?.checked_div(elapsed)
        });
        Some(Usage { cpu_usec: usage.cpu_usec, cpu_milli, memory: Some(Bytes(usage.memory)), pids: Some(usage.pids) })
    }

    /// Everything that its cgroups tell; `None` when it has none, or they went away in the middle.
    pub fn figures(&self, instance: &InstanceId) -> Option<Figures> {
        let statistics = self.cgroups.statistics(instance).ok()?;
        Some(Figures { statistics, oom_kills: self.cgroups.oom_kills(instance).ok()? })
    }

    /// Ends the keeper and takes away what all containers shared, after the last one has gone.
    pub fn leave_clean(&self) {
        let shutdown = self.keeper.shutdown().map_err(MachineError::from);
        let removed = shutdown.and_then(|()| Ok(self.cgroups.remove_parent()?));
        match removed {
            Ok(true) => {}
            Ok(false) => tracing::warn!("something of ours is still in use in the cgroup hierarchies"),
            Err(error) => tracing::warn!(error = %chain(&error), "leaving the host clean failed"),
        }
    }

    /// The connection to the keeper. A keeper that is new to us is told of every live container that
    /// it does not know.
    pub(super) fn client(&self) -> Result<Arc<Client>, MachineError> {
        self.keeper.client(|client| self.hand_over(client))
    }

    fn hand_over(&self, client: &Client) -> Result<(), MachineError> {
        let known: BTreeSet<InstanceId> = self.keeper.instances(Scope::All).into_iter().collect();
        for instance in self.cgroups.list()? {
            if known.contains(&instance) || self.cgroups.procs(&instance)?.is_empty() {
                continue;
            }
            let note = InstanceNote::read(&self.storage.run_dir(&instance)).unwrap_or_else(|error| {
                tracing::warn!(container = %instance, error = %chain(&error), "reading what was noted of it failed");
                None
            });
            let (pid, since) = note.as_ref().map_or((None, None), |note| (note.pid, note.since));
            // Not those that were noted: others are in some of them, and one of theirs could be taken for it.
            let find = Whereabouts { cgroups: self.cgroups.own(&instance), pid, since };
            let output = match note {
                Some(note) => note.output,
                None => self.likely_output(&instance)?,
            };
            match client.adopt(&instance, find, output) {
                Ok(_) => {
                    tracing::info!(container = %instance, "the keeper took it over");
                    may_die("taken over");
                }
                // Its PID 1 ended between the two looks; the next round sees a cgroup without process.
                Err(error) if error.fault() == Some(Fault::NotFound) => {}
                // An agent that died has asked for it before.
                Err(error) if error.fault() == Some(Fault::Exists) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.keeper.refresh(client)?;
        Ok(())
    }

    /// Where the output of a container goes of which nothing is noted: everything has its place.
    fn likely_output(&self, instance: &InstanceId) -> Result<Output, MachineError> {
        let run_dir = self.storage.make_run_dir(instance)?;
        self.storage.make_log_dir(instance)?;
        let spec = crate::spec::Logs::default();
        Ok(Output {
            log: LogTarget {
                path: self.storage.log_path(instance, self.storage.last_run(instance)?),
                max_size: spec.max_size.0,
                files: u32::from(spec.files),
            },
            stdout: run_dir.join("stdout"),
            stderr: run_dir.join("stderr"),
            // Who the FIFOs belong to matters when they are made alone.
            uid: 0,
            gid: 0,
        })
    }

    fn sight(&self, instance: &InstanceId, rootfs: Option<Option<IdRange>>) -> Result<Sighting, MachineError> {
        let group = self.cgroups.observe(instance)?;
        let mut started_from = None;
        let mut health = HealthSeen::Unknown;
        let process = match self.keeper.handle(instance) {
            None => ProcessSeen::None,
            Some(handle) => match handle.state {
                // Our own start is in flight, or the agent died during one; it ends by itself.
                HandleState::Starting => ProcessSeen::None,
                HandleState::Running => {
                    started_from = self.noted(instance);
                    let missed = started_from.as_ref().and_then(|from| self.mounts.missed(instance, handle.pid, from));
                    health = match missed {
                        // A process that works on without its data is as one that does not work.
                        Some(reason) => HealthSeen::Failed(reason),
                        None => self.health.of(instance, handle.pid),
                    };
                    ProcessSeen::Running {
                        pid: handle.pid,
                        since: handle.since,
                        ignores_stop: lock(&self.signalled).get(instance) == Some(&true),
                    }
                }
                HandleState::Exited(exit) => ProcessSeen::Exited(Exit {
                    code: exit.code,
                    signal: exit.signal,
                    at: exit.at,
                    oom_killed: self.cgroups.oom_kills(instance).is_ok_and(|kills| kills > 0),
                }),
            },
        };
        Ok(Sighting { process, group, rootfs: rootfs.is_some(), ids: rootfs.flatten(), started_from, health })
    }

    /// What its process was started from. Read once; a note that cannot be read tells nothing, and then
    /// what runs is taken for what is wanted.
    fn noted(&self, instance: &InstanceId) -> Option<Arc<Object>> {
        let mut noted = lock(&self.noted);
        let read = || InstanceNote::read(&self.storage.run_dir(instance)).ok().flatten();
        noted.entry(instance.clone()).or_insert_with(|| read().map(|note| Arc::new(note.object))).clone()
    }

    fn start(
        &self,
        instance: &InstanceId,
        run: u64,
        object: &Arc<Object>,
        ids: Option<IdRange>,
    ) -> Result<Outcome, MachineError> {
        let client = self.client()?;
        lock(&self.noted).insert(instance.clone(), Some(Arc::clone(object)));
        if let Some(handle) = self.keeper.handle(instance) {
            match handle.state {
                HandleState::Running | HandleState::Starting => {
                    return Err(MachineError::StandsAlready { instance: instance.clone(), pid: handle.pid });
                }
                HandleState::Exited(_) => self.release(&client, instance)?,
            }
        }
        // What a crash left of an earlier try.
        self.cgroups.remove(instance)?;
        let spec = &object.spec;
        if let Some(missing) = references::missing(spec, None).filter(|missing| missing.field != references::COMMAND) {
            return Err(missing.into());
        }
        let image = self.images.prepare(&spec.image)?;
        may_die("image there");
        if ids.is_none() {
            self.cgroups.guards_devices()?;
        }
        let capabilities = grantable(spec.security.capabilities.mask(), ids.is_some())?;
        let filter = self.seccomp.filter(&spec.security.seccomp, capabilities)?;
        let existed = self.storage.look(instance)?.is_some();
        let result = (|| {
            let root = self.storage.create(instance, &image, ids)?;
            let user = self.storage.resolve_user(&root, &spec.user).map_err(no_user)?;
            let group = self.cgroups.create(instance, &spec.resources, &spec.ignore_drift)?;
            let cgroup = CgroupJoin { unified: group.join.unified, v1: group.join.v1 };
            let run_dir = self.storage.make_run_dir(instance)?;
            self.storage.make_log_dir(instance)?;
            self.storage.prune_logs(instance, run)?;
            let to_host = |id: u32| ids.map_or(Some(id), |ids| ids.to_host(id)).unwrap_or(id);
            let output = Output {
                log: LogTarget {
                    path: self.storage.log_path(instance, run),
                    max_size: spec.logs.max_size.0,
                    files: u32::from(spec.logs.files),
                },
                stdout: run_dir.join("stdout"),
                stderr: run_dir.join("stderr"),
                uid: to_host(user.uid),
                gid: to_host(user.gid),
            };
            let note = InstanceNote {
                object: Object::clone(object),
                ids,
                root: root.clone(),
                cgroup: cgroup.clone(),
                output: output.clone(),
                pid: None,
                since: None,
            };
            note.write(&run_dir)?;
            let prepared = Prepared {
                instance,
                root,
                ids,
                user: &user,
                cgroup,
                cgroup_view: self.cgroup_view(),
                capabilities,
                seccomp: filter.is_some(),
            };
            let script = sandbox::script(&blueprint(spec, prepared))?;
            let request = StartRequest {
                instance,
                script: &script,
                output,
                seccomp: filter.as_ref().map(|filter| filter.as_fd()),
            };
            let started = client.start(&request)?;
            may_die("started");
            self.keeper.started(instance, started);
            InstanceNote::write_process(&run_dir, started.pid, started.since)?;
            Ok(Outcome::Started {
                pid: started.pid,
                at: started.since,
                digest: image.digest.clone(),
                readback: group.readback,
                unsupported: group.unsupported,
            })
        })();
        if result.is_err() {
            may_die("not started");
            self.undo_start(instance, existed);
            may_die("start undone");
        }
        result
    }

    /// Nothing of a failed start stays, but what was there before it.
    fn undo_start(&self, instance: &InstanceId, existed: bool) {
        let groups = self.cgroups.remove(instance).map_err(MachineError::from).and_then(|()| {
            // Where a keeper died meanwhile, the one after it may have taken it over half-way: whoever looks
            // would see it run until its end is told.
            if self.keeper.handle(instance).is_some() { self.collect(instance).map(drop) } else { Ok(()) }
        });
        let groups = groups.err().map(|error| chain(&error));
        let files = if existed { None } else { self.storage.remove(instance).err().map(|error| chain(&error)) };
        for failure in groups.into_iter().chain(files) {
            tracing::warn!(container = %instance, error = %failure, "cleaning up after a failed start failed");
        }
    }

    fn cgroup_view(&self) -> CgroupView {
        if self.cgroups.is_unified() { CgroupView::Unified } else { CgroupView::Nothing }
    }

    /// Whether the object could be started in place of what runs.
    fn check(&self, instance: &InstanceId, object: &Object) -> Result<Outcome, MachineError> {
        // What was installed in its root is there for the next process too.
        let pid = self.keeper.handle(instance).map(|handle| handle.pid);
        if let Some(missing) = references::missing_beside(&object.spec, pid) {
            return Err(missing.into());
        }
        let image = self.images.prepare(&object.spec.image)?;
        let stays = InstanceNote::read(&self.storage.run_dir(instance))?
            .filter(|note| class_between(&note.object, object) < Class::Recreate);
        let root = match stays {
            Some(note) => note.root,
            None => Storage::root_of(&image)?,
        };
        self.storage.resolve_user(&root, &object.spec.user).map_err(no_user)?;
        let security = &object.spec.security;
        self.seccomp.filter(&security.seccomp, security.capabilities.mask())?;
        Ok(Outcome::Done)
    }

    fn resize(
        &self,
        instance: &InstanceId,
        from: &Resources,
        to: &Resources,
        ignored: &[LimitPointer],
    ) -> Result<Outcome, MachineError> {
        // Somebody may have taken its cgroup away under it.
        if let Some(handle) = self.keeper.handle(instance).filter(|handle| handle.state == HandleState::Running) {
            self.cgroups.restore(instance, handle.pid)?;
        }
        let resized = self.cgroups.resize(instance, from, to, ignored)?;
        let deferred = resized.deferred.map(|message| Deferred {
            message,
            // The planner paces the tries; this is the first.
            next_try: now().after(Span::from_secs(1)),
            tries: 1,
        });
        Ok(Outcome::Resized {
            actuated: resized.actuated,
            readback: resized.readback,
            unsupported: resized.unsupported,
            deferred,
        })
    }

    fn signal(&self, instance: &InstanceId, signal: i32) -> Result<Outcome, MachineError> {
        let ignored = self.keeper.handle(instance).is_some_and(|handle| pid_one::ignores(handle.pid, signal));
        lock(&self.signalled).insert(instance.clone(), ignored);
        let sent = self.client()?.signal(instance, signal);
        may_die("stop signal sent");
        match sent {
            // It has ended meanwhile: what the signal was for.
            Err(error) if error.fault() == Some(Fault::NotFound) => Ok(Outcome::Done),
            result => Ok(result.map(|()| Outcome::Done)?),
        }
    }

    /// Everything in its cgroup, and its PID 1 also where that has been taken away.
    fn kill(&self, instance: &InstanceId) -> Result<Outcome, MachineError> {
        self.cgroups.kill(instance)?;
        if self.keeper.handle(instance).is_none_or(|handle| handle.state != HandleState::Running) {
            return Ok(Outcome::Done);
        }
        match self.client()?.signal(instance, nix::libc::SIGKILL) {
            Err(error) if error.fault() == Some(Fault::NotFound) => Ok(Outcome::Done),
            result => Ok(result.map(|()| Outcome::Done)?),
        }
    }

    fn collect(&self, instance: &InstanceId) -> Result<Outcome, MachineError> {
        let client = self.client()?;
        self.end_processes(&client, instance)?;
        may_die("processes ended");
        self.release(&client, instance)?;
        may_die("released");
        self.cgroups.remove(instance)?;
        lock(&self.signalled).remove(instance);
        lock(&self.noted).remove(instance);
        lock(&self.measured).remove(instance);
        self.mounts.forget(instance);
        Ok(Outcome::Done)
    }

    fn remove(&self, instance: &InstanceId) -> Result<Outcome, MachineError> {
        self.collect(instance)?;
        self.storage.remove(instance)?;
        Ok(Outcome::Done)
    }

    /// Kills what is left, and waits until the keeper has seen the end of PID 1.
    fn end_processes(&self, client: &Client, instance: &InstanceId) -> Result<(), MachineError> {
        self.cgroups.kill(instance)?;
        let running =
            |handle: crate::keeper::Handle| matches!(handle.state, HandleState::Running | HandleState::Starting);
        if !self.keeper.handle(instance).is_some_and(running) {
            return Ok(());
        }
        match client.signal(instance, nix::libc::SIGKILL) {
            Err(error) if error.fault() == Some(Fault::NotFound) => {}
            result => result?,
        }
        let deadline = Instant::now() + KILLED_WITHIN;
        if self.keeper.wait_for(instance, deadline, |handle| !handle.cloned().is_some_and(running)) {
            Ok(())
        } else {
            Err(MachineError::Unkillable { instance: instance.clone() })
        }
    }

    fn release(&self, client: &Client, instance: &InstanceId) -> Result<(), MachineError> {
        match client.release(instance) {
            // It never knew it, or has let go of it already.
            Err(error) if error.fault() == Some(Fault::NotFound) => {}
            result => result?,
        }
        self.keeper.forget(instance);
        Ok(())
    }

    fn try_observe(&self, scope: Scope<'_>) -> Result<Seen, MachineError> {
        let client = self.client()?;
        let connection = self.keeper.number_of(&client);
        let rootfs = match scope {
            Scope::All => {
                self.keeper.refresh(&client)?;
                self.keeper.catch_up(&client);
                self.storage.list()?
            }
            Scope::Objects(objects) => self.storage.list_of(objects)?,
        };
        let kept = self.keeper.instances(scope);
        let mut all: BTreeSet<InstanceId> = rootfs.keys().cloned().chain(kept).collect();
        match scope {
            Scope::All => {
                let others = self.cgroups.others(&all)?;
                all.extend(others);
            }
            // An instance's directory on disk is the last thing that is removed of it, so none is
            // missed here; a cgroup that stands alone is found by the next look at everything.
            Scope::Objects(_) => {}
        }
        let mut instances = BTreeMap::new();
        for instance in all {
            let sighting = self.sight(&instance, rootfs.get(&instance).copied())?;
            instances.insert(instance, sighting);
        }
        // Of a keeper that went away meanwhile nothing is known, and what it held is not gone.
        if connection != Some(self.keeper.number()) {
            return Err(KeeperError::Lost.into());
        }
        Ok(Seen { instances })
    }

    fn try_apply(&self, action: &Action) -> Result<Outcome, MachineError> {
        match action {
            // The record alone changes.
            Action::Note | Action::Forget => Ok(Outcome::Done),
            Action::Start { instance, run, object, ids } => self.start(instance, *run, object, *ids),
            Action::Check { instance, object } => self.check(instance, object),
            Action::Resize { instance, from, to, ignored } => self.resize(instance, from, to, ignored),
            Action::Signal { instance, signal } => self.signal(instance, *signal),
            Action::Kill { instance } => self.kill(instance),
            Action::Collect { instance } => self.collect(instance),
            Action::Remove { instance } => self.remove(instance),
        }
    }
}

impl Host for Machine {
    fn observe(&self, scope: Scope<'_>) -> Result<Seen, Failure> {
        self.try_observe(scope).map_err(|error| failure(&error))
    }

    fn apply(&self, action: &Action) -> Result<Outcome, Failure> {
        self.try_apply(action).map_err(|error| failure(&error))
    }
}

/// A user that the image does not have is something missing, which the manifest names.
fn no_user(error: UserError) -> MachineError {
    match error {
        UserError::NoUser(_) | UserError::NoGroup(_) => {
            Missing { field: "spec.user".to_owned(), message: error.to_string() }.into()
        }
        UserError::Read { .. } | UserError::Unusable { .. } => error.into(),
    }
}

fn failure(error: &MachineError) -> Failure {
    let field = match error {
        MachineError::Missing(missing) => Some(missing.field.clone()),
        _ => None,
    };
    Failure { message: chain(error), field }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
