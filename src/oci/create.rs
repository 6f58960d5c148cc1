//! `create` and `run`.

use super::args::{Create, Global};
use super::attributes::{Common, Modules};
use super::build::{self, Built, Context};
use super::config::{Config, Invalid, Mount, NamespaceKind};
use super::driver::{self, Planned};
use super::exposed;
use super::filter;
use super::foreground::{self, Console, Stay, Watch, supervise};
use super::hooks;
use super::log;
use super::netdevices;
use super::passwd;
use super::rdt::{self, Group};
use super::relay;
use super::resources::{self, Moment};
use super::seccomp;
use super::service;
use super::state::{self, Home, Init, Record, Status};
use super::{OciError, SUCCESS};
use crate::cgroup::place::{self, Place};
use crate::cgroup::table::Version;
use crate::sandbox::program::Hidden;
use crate::sandbox::{
    self, Blueprint, ChangeRoot, Failure, LaunchError, Launched, Namespace, Report, Root, Script, launch, proceed,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) fn create(global: &Global, wish: &Create) -> Result<(), OciError> {
    let mut watch = Watch::begin()?;
    let mut container = ManuallyDrop::new(Container::prepare(global, wish, Waits::ForStart, &watch)?);
    container.launch(wish, &mut watch).inspect_err(|_| container.undo(&watch))?;
    Ok(())
}

pub(super) fn run(global: &Global, wish: &Create, hidden: Hidden) -> Result<u8, OciError> {
    if wish.print_script {
        super::show::print(&Scripted::of(global, wish, Waits::Not)?.script.to_string())?;
        return Ok(SUCCESS);
    }
    let mut watch = Watch::begin()?;
    // We end soon, and all memory at once: what is freed before costs a fault for every page, since the
    // child had a copy of it.
    let mut container = ManuallyDrop::new(Container::prepare(global, wish, Waits::Not, &watch)?);
    if wish.subreaper && !wish.detach {
        let us = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(us))
            .map_err(|errno| io("becoming the reaper of orphans", errno))
            .inspect_err(|_| container.undo(&watch))?;
    }
    let launched = container.launch(wish, &mut watch).inspect_err(|_| container.undo(&watch))?;
    let code = container.see_through(wish, &launched, &mut watch, hidden).inspect_err(|_| {
        end(&launched);
        container.undo(&watch);
    })?;
    let Some(code) = code else { return Ok(SUCCESS) };
    if !wish.keep {
        container.remove(&watch)?;
    }
    Ok(code)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    ForStart,
    Not,
}

/// Whether we are there until the container's end.
fn stays(wish: &Create, waits: Waits) -> bool {
    waits == Waits::Not && !wish.detach
}

/// A container on its way.
struct Container {
    home: Home,
    planned: Planned,
    record: Record,
    config: Config,
    script: Script,
    /// Which mount of the configuration each of the script's is for.
    origins: Vec<usize>,
    filter: Option<std::fs::File>,
    waits: Waits,
    console: Console,
    common: Common,
}

fn io(what: impl Into<String>, errno: Errno) -> OciError {
    OciError::Io { what: what.into(), source: errno.into() }
}

/// What a configuration comes to, with nothing made on the host.
struct Scripted {
    bundle: PathBuf,
    config: Config,
    planned: Planned,
    blueprint: Blueprint,
    origins: Vec<usize>,
    script: Script,
    common: Common,
}

impl Scripted {
    fn of(global: &Global, wish: &Create, waits: Waits) -> Result<Self, OciError> {
        let listening = service::listening()?;
        let keep_descriptors = descriptors(wish.preserve_fds, listening);
        let failed = |source| OciError::Io { what: format!("opening the bundle {}", wish.bundle.display()), source };
        let bundle = wish.bundle.canonicalize().map_err(failed)?;
        let file = wish.config.clone().unwrap_or_else(|| bundle.join("config.json"));
        let mut config = Config::read(&file)?;
        build::check(&config)?;
        resources::check(&config.linux.resources, Moment::Create)?;
        let way = if stays(wish, waits) {
            let notices = Home::of(&global.root, &wish.id).notices();
            let absolute = std::path::absolute(&notices);
            service::Way::Ours(
                absolute.map_err(|source| OciError::Io { what: format!("finding {}", notices.display()), source })?,
            )
        } else {
            service::Way::TheManagers
        };
        service::pass_on(&mut config, listening, &way);
        if let (Some(process), Some(place)) = (&mut config.process, &config.root) {
            passwd::give_home(process, &bundle.join(&place.path));
        }
        if let Some(place) = &config.root
            && !bundle.join(&place.path).is_dir()
        {
            return Err(Invalid::new("root.path", format!("{} is not a directory", place.path)).into());
        }
        netdevices::find(&config.linux.net_devices)?;
        let planned = driver::plan(global.cgroups, &config, &wish.id)?;
        if planned.scope.is_some() {
            driver::settle(&mut config.linux.resources, &planned.place);
        }
        let place = &planned.place;
        if config.linux.intel_rdt.is_some() {
            rdt::root(&mounts()?)?;
        }
        if place.is_frozen() {
            // It would stand still in there, and who started it with it.
            return Err(OciError::Start("container's cgroup unexpectedly frozen".to_owned()));
        }
        let wait = waits == Waits::ForStart;
        let keyring = (!wish.no_new_keyring).then(|| format!("_ses.{}", wish.id));
        let common = Common::new(&config.linux, &config.annotations, keyring);
        let modules = Modules::of_this_host();
        let change_root = match &config.root {
            Some(place) if wish.no_pivot => {
                let root = bundle.join(&place.path);
                ChangeRoot::Cover { hidden: exposed::bare(&mounts()?, &root.canonicalize().unwrap_or(root)) }
            }
            _ => ChangeRoot::Pivot,
        };
        let context = Context { bundle: &bundle, place, wait, keep_descriptors, common, modules, change_root };
        let Built { mut blueprint, origins } = build::blueprint(&config, &context)?;
        if wish.console_socket.is_none() {
            relay::begin_as_large_as_ours(&mut blueprint.process.terminal);
        }
        let script = crate::sandbox::script(&blueprint)?;
        let common = context.common;
        Ok(Self { bundle, config, planned, blueprint, origins, script, common })
    }
}

impl Container {
    /// Everything that can be known to be wrong is found here, with nothing made on the host yet but,
    /// at the end, the directory that reserves the id.
    fn prepare(global: &Global, wish: &Create, waits: Waits, watch: &Watch) -> Result<Self, OciError> {
        let root = &global.root;
        let Scripted { bundle, config, planned, blueprint, origins, script, common } =
            Scripted::of(global, wish, waits)?;
        log::debug(global, || script.to_string());
        if let Some(profile) = &config.linux.seccomp {
            log::debug(global, || {
                format!("seccomp filter flags: {}", seccomp::flags(profile) & !crate::sys::NEW_LISTENER)
            });
        }
        let filter = match &config.linux.seccomp {
            Some(profile) => Some(filter::compiled(root, profile, blueprint.process.capabilities.bounding)?),
            None => None,
        };
        let mut record = Record {
            id: wish.id.clone(),
            oci_version: config.oci_version.clone(),
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs: rootfs(&blueprint),
            annotations: config.annotations.clone(),
            created: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            cgroup: Vec::new(),
            scope: planned.scope.as_ref().map(|scope| scope.unit.clone()),
            rdt: None,
            hooks: hooks::Later::of(&config.hooks),
            creating: blueprint.hooks.wait,
            made: Vec::new(),
            init: None,
        };
        record.put_place(&planned.place);
        let terminal = config.process.as_ref().is_some_and(|process| process.terminal);
        let stay = if stays(wish, waits) { Stay::Foreground } else { Stay::Detached };
        let console = Console::open(terminal, wish.console_socket.as_deref(), stay)?;
        let home = Home::make(root, &wish.id)?;
        let container = Self { home, planned, record, config, script, origins, filter, waits, console, common };
        container.home.save(&container.record).inspect_err(|_| container.undo(watch))?;
        Ok(container)
    }

    /// From the cgroup to the point where the program runs, or the process waits for its start.
    fn launch(&mut self, wish: &Create, watch: &mut Watch) -> Result<Launched, OciError> {
        let linux = &self.config.linux;
        let (_held, made) = self.planned.make(&linux.resources)?;
        self.record.made = made;
        let place = &self.planned.place;
        if !place.directories().is_empty() {
            resources::apply(place, &linux.resources, Moment::Create)?;
        }
        if let Some(uid) = owner(&self.config, place) {
            place.give_to(uid)?;
        }
        if let Some(rdt) = &linux.intel_rdt {
            self.record.rdt = Some(Group::make(&rdt::root(&mounts()?)?, rdt, &self.record.id)?);
        }
        if stays(wish, self.waits) {
            watch.pass_on(service::Notices::open(&self.home)?);
        }
        let listener = match self.waits {
            Waits::ForStart => Some(self.listen()?),
            Waits::Not => None,
        };
        let listener = listener.as_ref().map(AsFd::as_fd);
        let filter = self.filter.as_ref().map(AsFd::as_fd);
        let group = self.record.rdt.as_ref();
        group.map_or(Ok(()), Group::enter)?;
        let launched = launch(&self.script, self.console.io(), listener, filter).map_err(|error| self.placed(error))?;
        group.map_or(Ok(()), Group::leave).inspect_err(|_| end(&launched))?;
        watch.join(std::mem::take(&mut self.console));
        let finished = self.finish(&launched, wish, watch);
        if finished.is_err() {
            end(&launched);
            watch.drain();
            if let Some(path) = &wish.pid_file {
                // Not there, when that was what failed.
                let _ = std::fs::remove_file(path);
            }
        }
        finished.map(|()| launched)
    }

    /// From its program's beginning to its end, whose code it gives, or to where nobody waits for that.
    fn see_through(
        &self,
        wish: &Create,
        launched: &Launched,
        watch: &mut Watch,
        hidden: Hidden,
    ) -> Result<Option<u8>, OciError> {
        hooks::after_start(&self.record, Some(watch))?;
        if wish.detach {
            return Ok(None);
        }
        drop(hidden);
        supervise(launched, watch).map(Some)
    }

    /// What is on record before the child gets to its program.
    fn finish(&mut self, launched: &Launched, wish: &Create, watch: &mut Watch) -> Result<(), OciError> {
        // The child is at work meanwhile.
        self.filter.as_ref().map_or(Ok(()), |file| filter::keep(file, &self.home.path))?;
        let pid = launched.pid.as_raw_nonzero().get();
        let start_time =
            state::start_time(pid).ok_or_else(|| io("reading the start time of the process", Errno::SRCH))?;
        self.record.init = Some(Init {
            pid,
            start_time,
            namespaces: namespaces(&self.config),
            shares_pids: shares_pids(&self.config),
            covered: wish.no_pivot || !has_own(&self.config, NamespaceKind::Mount),
            process: self.config.process.clone().unwrap_or_default(),
            common: self.common.clone(),
            filter: self.config.linux.seccomp.as_ref().map(seccomp::flags),
            listener: self.config.linux.seccomp.as_ref().and_then(seccomp::listener),
            after_start: self.script.after_start(),
        });
        self.home.save(&self.record)?;
        if let Some(path) = &wish.pid_file {
            write_pid(path, pid)?;
        }
        if let Some(path) = &wish.pidfd_socket {
            foreground::send_pidfd(path, launched.pidfd.as_fd())?;
        }
        let listener = self.record.init.as_ref().and_then(|init| init.listener.as_ref());
        let listen = |watch: &mut Watch| {
            hear(launched, watch, |fd| match listener {
                Some(listener) => listener.hand_over(&fd, &self.home, &self.record, pid),
                None => Ok(()),
            })
        };
        let mut heard = listen(watch)?;
        if self.record.creating && heard == Report::Waiting {
            self.hooks(launched, watch)?;
            heard = listen(watch)?;
            self.record.creating = false;
            self.home.save(&self.record)?;
        }
        match (heard, self.waits) {
            (Report::Executed, Waits::Not) | (Report::Waiting, Waits::ForStart) => Ok(()),
            (Report::Failed(failure), _) => {
                Err(told(&(self.place_of(&failure) + &self.script.explain(&failure)), failure.errno))
            }
            (Report::Ended, _) => Err(OciError::Start("the process was killed on its way".to_owned())),
            (Report::Executed | Report::Waiting | Report::Listener(_), _) => {
                Err(OciError::Start("the process did not do as its script says".to_owned()))
            }
        }
    }

    /// Runs the hooks of the host while the child waits for them, and lets it go on.
    fn hooks(&self, launched: &Launched, watch: &Watch) -> Result<(), OciError> {
        netdevices::hand_over(&self.config.linux.net_devices, launched.pid)?;
        hooks::before(&self.config.hooks, &self.record, watch)?;
        let creating = hooks::state(&self.record, Status::Creating)?;
        let created = hooks::state(&self.record, Status::Created)?;
        proceed(launched.report.as_fd(), creating.as_fd(), created.as_fd())
            .map_err(|source| OciError::Io { what: "letting the process go on".to_owned(), source })
    }

    /// `mounts[2]: `, where the failure is about that.
    fn place_of(&self, failure: &Failure) -> String {
        let mount = self.script.mount_of(failure).and_then(|mount| self.origins.get(mount));
        mount.map_or_else(String::new, |mount| format!("mounts[{mount}]: "))
    }

    fn placed(&self, error: LaunchError) -> OciError {
        match error {
            LaunchError::Operation { failure, words } => OciError::Start(self.place_of(&failure) + &words),
            error => error.into(),
        }
    }

    fn listen(&self) -> Result<OwnedFd, OciError> {
        let failed = |errno| io(format!("listening on {}", self.home.socket().display()), errno);
        let (address, _directory) = self.home.socket_address()?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        rustix::net::listen(&socket, 1).map_err(failed)?;
        Ok(socket)
    }

    /// After a failure: as if it had never been tried.
    fn undo(&self, watch: &Watch) {
        // The error that led here is the one to tell; what can't be removed shows in the state.
        if self.remove(watch).is_err() {
            super::log::say("something of the container could not be removed; delete --force tries again");
        }
    }

    fn remove(&self, watch: &Watch) -> Result<(), OciError> {
        // Nobody's but ours: one that stood there before had no processes, and was not made by us.
        if !self.record.made.is_empty() {
            driver::remove(&self.planned.place, self.record.scope.as_deref())?;
            place::remove_made(&self.record.made, &self.planned.place);
        }
        if let Some(group) = &self.record.rdt {
            group.remove()?;
        }
        self.home.remove()?;
        if self.record.init.is_some() {
            hooks::after_end(&self.record, Some(watch));
        }
        Ok(())
    }
}

fn mounts() -> Result<String, OciError> {
    let file = "/proc/self/mountinfo";
    std::fs::read_to_string(file).map_err(|source| OciError::Io { what: format!("reading {file}"), source })
}

/// The user of the host that the container's part of the v2 hierarchy is for: the one who runs its program,
/// where the container sees that part alone, may write in it, and is another user on the host ("Cgroup
/// ownership" of the specification).
fn owner(config: &Config, place: &Place) -> Option<u32> {
    let linux = &config.linux;
    let own = |kind| linux.namespaces.iter().any(|entry| entry.kind == kind && entry.path.is_empty());
    let is_open = |mount: &Mount| {
        matches!(mount.kind.as_str(), "cgroup" | "cgroup2") && !mount.options.iter().any(|option| option == "ro")
    };
    let v2_alone = place.directories().iter().all(|directory| directory.version == Version::V2);
    if !own(NamespaceKind::Cgroup) || !own(NamespaceKind::User) || !v2_alone || !config.mounts.iter().any(is_open) {
        return None;
    }
    let uid = config.process.as_ref()?.user.uid;
    linux.uid_mappings.iter().find_map(|mapping| {
        let within = uid.checked_sub(mapping.container).filter(|offset| *offset < mapping.size)?;
        mapping.host.checked_add(within)
    })
}

/// In the words that callers look for, to tell one failure of a program's start from the other.
pub(super) fn told(text: &str, errno: i32) -> OciError {
    if let Some(hook) = text.strip_prefix("running ").filter(|rest| rest.starts_with("hook #")) {
        return OciError::Start(format!("error running {hook}"));
    }
    let Some(rest) = text.strip_prefix("executing ") else { return OciError::Start(text.to_owned()) };
    if errno == libc::ENOENT && rest.contains("there is no such program") {
        return OciError::Program(format!("exec {rest} (executable file not found in $PATH)"));
    }
    let cause = std::io::Error::from_raw_os_error(errno).to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default();
    OciError::Program(format!("exec {}", rest.replace(cause, &cause.to_lowercase())))
}

/// No pid namespace ends with its first process.
pub(super) fn shares_pids(config: &Config) -> bool {
    !has_own(config, NamespaceKind::Pid)
}

fn has_own(config: &Config, kind: NamespaceKind) -> bool {
    config.linux.namespaces.iter().any(|entry| entry.kind == kind && entry.path.is_empty())
}

/// Those that are not the host's, for who enters them later.
fn namespaces(config: &Config) -> u64 {
    let bit = |kind: NamespaceKind| match kind {
        NamespaceKind::Pid => Namespace::Pid.bit(),
        NamespaceKind::Network => Namespace::Net.bit(),
        NamespaceKind::Mount => Namespace::Mount.bit(),
        NamespaceKind::Ipc => Namespace::Ipc.bit(),
        NamespaceKind::Uts => Namespace::Uts.bit(),
        NamespaceKind::User => Namespace::User.bit(),
        NamespaceKind::Cgroup => Namespace::Cgroup.bit(),
        NamespaceKind::Time => Namespace::Time.bit(),
    };
    config.linux.namespaces.iter().fold(0, |all, entry| all | bit(entry.kind))
}

fn rootfs(blueprint: &Blueprint) -> String {
    match &blueprint.root {
        Root::Directory { path } => path.clone(),
        Root::Overlay { base, grafts: _ } => base.upper.clone(),
    }
}

/// Which descriptors from 3 on the program keeps: those that we were started with. What is opened here
/// may have a number between them, and does not end in the container.
pub(super) fn descriptors(preserved: u32, listening: u32) -> Vec<u32> {
    let count = preserved.saturating_add(listening);
    if count == 0 {
        return Vec::new();
    }
    // All that we open ourselves closes at `execve`.
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let within = numbers.filter(|fd| fd.checked_sub(3).is_some_and(|index| index < count));
    let mut kept: Vec<u32> = within.filter(|fd| crate::sys::is_kept_over_exec(*fd)).collect();
    kept.sort_unstable();
    kept
}

pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), OciError> {
    let failed = |source| OciError::Io { what: format!("writing {}", path.display()), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new: PathBuf = path.with_file_name(name);
    std::fs::write(&new, pid.to_string()).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}

/// What became of the child; who asks for the listener of its filter gets it before it goes on.
pub(super) fn hear(
    launched: &Launched,
    watch: &mut Watch,
    mut give: impl FnMut(OwnedFd) -> Result<(), OciError>,
) -> Result<Report, OciError> {
    let failed = RefCell::new(None);
    let keep = |error| {
        failed.replace(Some(error));
        std::io::Error::from(std::io::ErrorKind::Other)
    };
    let child = (launched.pid, launched.pidfd.as_fd());
    let ready = |report: BorrowedFd<'_>| watch.until(report).map_err(keep);
    let heard = sandbox::hear(launched.report.as_fd(), child, ready, |fd| give(fd).map_err(keep));
    let unheard = |source| OciError::Io { what: "hearing of the process".to_owned(), source };
    heard.map_err(|source| failed.take().unwrap_or_else(|| unheard(source)))
}

/// Kills and reaps a child that is not to be.
pub(super) fn end(launched: &Launched) {
    // It may have ended already. One that stands still where nothing ends it has nobody to wait for it.
    let _ = rustix::process::pidfd_send_signal(&launched.pidfd, rustix::process::Signal::KILL);
    let alone = Place::of(Vec::new());
    if state::wait_for_end(launched.pid.as_raw_nonzero().get(), &launched.pidfd, &alone).is_ok() {
        let _ = rustix::process::waitpid(Some(launched.pid), rustix::process::WaitOptions::NOHANG);
    }
}
