//! `exec`: another program in a running container.

use super::args::{Exec, Global, UsageError};
use super::attributes::{Modules, Moment};
use super::build::{self, Given};
use super::config::{self, Capabilities, Process};
use super::create::{descriptors, end, hear, told, write_pid};
use super::filter;
use super::foreground::{self, Console, Stay, Watch, supervise};
use super::log;
use super::passwd;
use super::relay;
use super::service;
use super::state::{Home, Status};
use super::{OciError, SUCCESS};
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::{Controller, Version};
use crate::sandbox::program::Hidden;
use crate::sandbox::{CgroupJoin, ExecPlan, LaunchError, Launched, Namespace, Report, exec_script, launch_exec};
use std::os::fd::AsFd;
use std::path::Path;

pub(super) fn exec(global: &Global, wish: &Exec, hidden: Hidden) -> Result<u8, OciError> {
    let mut watch = Watch::begin()?;
    // What it took to start it is let go here, while the program runs, rather than when it has ended.
    let Begun { launched, place } = begin(global, wish, &mut watch)?;
    if wish.detach {
        return Ok(SUCCESS);
    }
    drop(hidden);
    supervise(&launched, &mut watch).inspect_err(|_| give_up(&launched, &place))
}

/// A program that runs, and the cgroup that it is in.
struct Begun {
    launched: Launched,
    place: Place,
}

fn begin(global: &Global, wish: &Exec, watch: &mut Watch) -> Result<Begun, OciError> {
    let root = &global.root;
    let keep_descriptors = descriptors(wish.preserve_fds, 0);
    let home = Home::of(root, &wish.id);
    let record = home.load(&wish.id)?;
    let (status, target) = home.look(&record);
    let refuse = |what| Err(OciError::State { id: wish.id.clone(), status: status.word(), what });
    let gone = "cannot exec in a container without a process";
    let (Some(init), Some(target)) = (&record.init, target) else { return refuse(gone) };
    if status == Status::Paused && !wish.ignore_paused {
        return refuse("cannot exec in a paused container, where a program would stand still; --ignore-paused does");
    }
    let mut process = process(&init.process, wish)?;
    passwd::give_home(&mut process, Path::new(&format!("/proc/{}/root", init.pid)));
    let enter: Vec<Namespace> =
        Namespace::ALL.into_iter().filter(|namespace| init.namespaces & namespace.bit() != 0).collect();
    let given = Given {
        seccomp: init.filter,
        user_namespace: enter.contains(&Namespace::User),
        keep_descriptors,
        common: &init.common,
        modules: Modules::of_this_host(),
        moment: Moment::Exec,
    };
    let place = within(&record.place(), &wish.cgroups)?;
    let join = place.join();
    let mut plan = ExecPlan {
        enter,
        root: init.covered.then(|| format!("/proc/{}/root", init.pid)),
        cgroup: CgroupJoin { unified: join.unified, v1: join.v1 },
        process: build::process(&process, "process", &given)?,
    };
    if wish.console_socket.is_none() {
        relay::begin_as_large_as_ours(&mut plan.process.terminal);
    }
    let mut script = exec_script(&plan)?;
    log::debug(global, || script.to_string());
    let filter = init.filter.map(|_| filter::kept(&home.path)).transpose()?;
    let stay = if wish.detach { Stay::Detached } else { Stay::Foreground };
    let console = Console::open(process.terminal, wish.console_socket.as_deref(), stay)?;
    let seccomp = filter.as_ref().map(AsFd::as_fd);
    let launched = match launch_exec(&script, target.as_fd(), console.io(), seccomp) {
        // One of its own has made groups below and gone into one: beside them there is no place for us.
        Err(LaunchError::Operation { failure, .. }) if failure.errno == libc::EBUSY && wish.cgroups.is_empty() => {
            plan.cgroup.unified = beside(&place, init.pid).or(plan.cgroup.unified);
            script = exec_script(&plan)?;
            launch_exec(&script, target.as_fd(), console.io(), seccomp)?
        }
        Err(LaunchError::Operation { failure, words }) if failure.errno == libc::EBUSY && words.contains("cgroup") => {
            let group = plan.cgroup.unified.unwrap_or_default();
            let what = format!(
                "exec: --cgroup: adding pid of the program to cgroups: {group}/cgroup.procs: device or resource busy: \
                 its controllers are for the groups below, one of which can be named"
            );
            return Err(OciError::Start(what));
        }
        result => result?,
    };
    watch.join(console);
    let finish = |watch: &mut Watch| {
        if let Some(path) = &wish.pid_file {
            write_pid(path, launched.pid.as_raw_nonzero().get())?;
        }
        if let Some(path) = &wish.pidfd_socket {
            foreground::send_pidfd(path, launched.pidfd.as_fd())?;
        }
        let pid = launched.pid.as_raw_nonzero().get();
        let heard = hear(&launched, watch, |fd| match &init.listener {
            Some(listener) => listener.hand_over(&fd, &home, &record, pid),
            None => Ok(()),
        })?;
        match heard {
            Report::Executed => Ok(()),
            Report::Failed(failure) => Err(told(&script.explain(&failure), failure.errno)),
            Report::Ended => Err(OciError::Start("the process was killed on its way".to_owned())),
            Report::Waiting | Report::Listener(_) => Err(OciError::Start("the process waits for nobody".to_owned())),
        }
    };
    finish(watch).inspect_err(|_| give_up(&launched, &place)).inspect_err(|_| watch.drain())?;
    Ok(Begun { launched, place })
}

fn give_up(launched: &Launched, place: &Place) {
    if place.is_frozen() {
        // It ends when it goes on, and nobody knows when that is.
        let _ = crate::sys::pidfd_kill(launched.pidfd.as_fd(), libc::SIGKILL);
    } else {
        end(launched);
    }
}

/// `PATH`s below the container's cgroup, each for all hierarchies or, as `CONTROLLER[,CONTROLLER]:PATH`,
/// for those of v1 that are named.
fn within(place: &Place, wishes: &[String]) -> Result<Place, OciError> {
    // In the words that callers may look for.
    let wrong = |what: String| Err(UsageError(format!("exec: --cgroup: {what}")).into());
    let mut directories = place.directories().to_vec();
    for wish in wishes {
        let (names, path) = match wish.split_once(':') {
            Some((names, path)) => (Some(names.split(',').collect::<Vec<_>>()), path),
            None => (None, wish.as_str()),
        };
        if path.split('/').any(|part| part == "." || part == "..") {
            return wrong(format!("{path} is not a sub cgroup path"));
        }
        let path = path.trim_matches('/');
        if names.is_none() && wishes.len() > 1 {
            return wrong(format!("{wish:?} names no controller, and is not the only one"));
        }
        for name in names.iter().flatten() {
            if !directories.iter().any(|directory| has(directory, name)) {
                return wrong(format!("unknown controller {name:?}: the container has no v1 hierarchy of it"));
            }
        }
        for directory in &mut directories {
            if names.as_ref().is_none_or(|names| names.iter().any(|name| has(directory, name))) && !path.is_empty() {
                directory.path = format!("{}/{path}", directory.path.trim_end_matches('/'));
                if !Path::new(&directory.full()).is_dir() {
                    return wrong(format!(
                        "adding pid to {}/cgroup.procs: no such file or directory",
                        directory.full()
                    ));
                }
            }
        }
    }
    Ok(Place::of(directories))
}

fn has(directory: &Directory, controller: &str) -> bool {
    let is = |one: &Controller| one.name(Version::V1) == controller;
    directory.version == Version::V1 && directory.controllers.iter().any(is)
}

/// The group of the v2 hierarchy that the container's first process is in by now (cgroups(7)).
fn beside(place: &Place, pid: i32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = place.unified()?;
    // Below the container's, as it can't be elsewhere by its own doing.
    path.starts_with(&own.path).then(|| format!("{}{path}", own.mount))
}

/// A whole process from a file, or the container's own with what the options change.
fn process(own: &Process, wish: &Exec) -> Result<Process, OciError> {
    if let Some(path) = &wish.process {
        return Ok(config::read_process(path)?);
    }
    let mut process = Process { args: wish.args.clone(), terminal: wish.terminal, ..own.clone() };
    service::forget(&mut process.env);
    if let Some(cwd) = &wish.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = wish.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
        process.env.retain(|entry| !entry.starts_with("HOME="));
    }
    process.user.additional_gids.extend(&wish.groups);
    for entry in &wish.env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        process.env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
        process.env.push(entry.clone());
    }
    if !wish.capabilities.is_empty() {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        // One that is inherited stays with whoever the program becomes.
        let inherited = wish.capabilities.iter().filter(|name| sets.inheritable.contains(name));
        sets.ambient.extend(inherited.cloned().collect::<Vec<_>>());
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(wish.capabilities.iter().filter(|name| !set.contains(name)).cloned().collect::<Vec<_>>());
        }
    }
    if let Some(profile) = &wish.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &wish.process_label {
        process.selinux_label.clone_from(label);
    }
    process.no_new_privileges |= wish.no_new_privileges;
    Ok(process)
}
