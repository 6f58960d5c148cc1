//! `exec`: another program in a running container.

use super::OciError;
use super::args::{Exec, Global, UsageError};
use super::attributes::{Modules, Moment};
use super::build::{self, Given};
use super::config::{self, Capabilities, Process};
use super::create::{descriptors, end, hear, words, write_pid};
use super::filter;
use super::foreground::{self, Console, Stay, supervise};
use super::log;
use super::passwd;
use super::service;
use super::state::{Home, Status};
use crate::sandbox::{CgroupJoin, ExecPlan, Namespace, Report, exec_script, launch_exec};
use nix::sys::signal::SigSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn exec(global: &Global, wish: &Exec) -> Result<ExitCode, OciError> {
    let root = &global.root;
    if !wish.cgroups.is_empty() {
        return Err(UsageError("exec: --cgroup is not supported yet".to_owned()).into());
    }
    let keep_descriptors = descriptors(wish.preserve_fds, 0);
    let signals = SigSet::all();
    // Before there is a child whose end could be missed. The child has none blocked.
    signals
        .thread_block()
        .map_err(|errno| OciError::Io { what: "blocking signals".to_owned(), source: errno.into() })?;
    let home = Home::of(root, &wish.id);
    let record = home.load(&wish.id)?;
    let status = home.status(&record);
    let refuse = |what| Err(OciError::State { id: wish.id.clone(), status: status.word(), what });
    let Some(init) = &record.init else { return refuse("there is no process to enter") };
    let Some(target) = init.alive() else { return refuse("there is no process to enter") };
    if status == Status::Paused && !wish.ignore_paused {
        return refuse("cannot exec in a paused container, where a program would stand still; --ignore-paused does");
    }
    let mut process = process(&init.process, wish)?;
    passwd::give_home(&mut process, Path::new(&format!("/proc/{}/root", init.pid)));
    let all = [
        Namespace::User,
        Namespace::Pid,
        Namespace::Net,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
        Namespace::Time,
        Namespace::Mount,
    ];
    let enter: Vec<Namespace> = all.into_iter().filter(|namespace| init.namespaces & namespace.bit() != 0).collect();
    let given = Given {
        seccomp: init.filter,
        user_namespace: enter.contains(&Namespace::User),
        keep_descriptors,
        common: &init.common,
        modules: Modules::of_this_host(),
        moment: Moment::Exec,
    };
    let join = record.place().join();
    let plan = ExecPlan {
        enter,
        cgroup: CgroupJoin { unified: join.unified, v1: join.v1 },
        process: build::process(&process, "process", &given)?,
    };
    let script = exec_script(&plan)?;
    log::debug(global, || script.to_string());
    let filter = init.filter.map(|_| filter::kept(&home.path)).transpose()?;
    let stay = if wish.detach { Stay::Detached } else { Stay::Foreground };
    let console = Console::open(process.terminal, wish.console_socket.as_deref(), stay)?;
    let seccomp = filter.as_ref().map(AsFd::as_fd);
    let launched = launch_exec(&script, target.as_fd(), console.io(), seccomp)?;
    let finish = || {
        if let Some(path) = &wish.pid_file {
            write_pid(path, launched.pid.as_raw_nonzero().get())?;
        }
        if let Some(path) = &wish.pidfd_socket {
            foreground::send_pidfd(path, launched.pidfd.as_fd())?;
        }
        let pid = launched.pid.as_raw_nonzero().get();
        let heard = hear(&launched, |fd| match &init.listener {
            Some(listener) => listener.hand_over(&fd, &home, &record, pid),
            None => Ok(()),
        })?;
        match heard {
            Report::Executed => Ok(()),
            Report::Failed(failure) => Err(OciError::Start(words(&script.explain(&failure), failure.errno))),
            Report::Ended => Err(OciError::Start("the process was killed on its way".to_owned())),
            Report::Waiting | Report::Listener(_) => Err(OciError::Start("the process waits for nobody".to_owned())),
        }
    };
    finish().inspect_err(|_| end(&launched))?;
    if wish.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = console.relay().inspect_err(|_| end(&launched))?;
    Ok(ExitCode::from(supervise(&launched, &signals, terminal)?))
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
