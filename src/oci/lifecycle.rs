//! Commands for a container that there is: `start`, `kill`, `delete`, `pause`, `resume`, `update`.

use super::OciError;
use super::args::Update;
use super::config::{self, Invalid, Resources};
use super::create::told;
use super::driver;
use super::hooks;
use super::list;
use super::log;
use super::resources::{self, Moment};
use super::state::{self, Home, Init, Record, Status};
use crate::cgroup::place::{self, Freeze, Place};
use crate::cgroup::table::Controller;
use crate::sandbox::{self, StartError};
use crate::sys::Pattern;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

fn refuse<T>(id: &str, status: Status, what: &'static str) -> Result<T, OciError> {
    Err(OciError::State { id: id.to_owned(), status: status.word(), what })
}

fn io(what: String, source: impl Into<std::io::Error>) -> OciError {
    OciError::Io { what, source: source.into() }
}

const NOT_RUNNING: &str = "container not running, no process to send a signal to";

fn running(record: &Record) -> Option<OwnedFd> {
    record.init.as_ref().and_then(Init::alive)
}

pub(super) fn start(root: &Path, id: &str) -> Result<(), OciError> {
    let home = Home::of(root, id);
    let _lock = home.lock(id)?;
    let record = home.load(id)?;
    let status = home.status(&record);
    let (Status::Created, Some(init)) = (status, &record.init) else {
        return refuse(id, status, "only a created one can be started");
    };
    let failed = |errno: Errno| io(format!("connecting to {}", home.socket().display()), errno);
    let (address, _directory) = home.socket_address()?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        // Its end of the socket went with it.
        Err(Errno::CONNREFUSED) => return refuse(id, Status::Stopped, "only a created one can be started"),
        result => result.map_err(failed)?,
    }
    // First: from here on it runs or ends, and waits no more.
    std::fs::remove_file(home.socket()).map_err(|error| io(format!("removing {}", home.socket().display()), error))?;
    let Some(pid) = rustix::process::Pid::from_raw(init.pid) else {
        return refuse(id, Status::Stopped, "only a created one can be started");
    };
    let Some(pidfd) = running(&record) else {
        return refuse(id, Status::Stopped, "only a created one can be started");
    };
    let give = |fd: OwnedFd| match &init.listener {
        Some(listener) => listener.hand_over(&fd, &home, &record, init.pid).map_err(std::io::Error::other),
        None => Ok(()),
    };
    match sandbox::start(socket.as_fd(), (pid, pidfd.as_fd()), give) {
        Ok(()) => hooks::after_start(&record, None).inspect_err(|_| {
            // What is left of it is for who deletes it. It may have ended already.
            let _ = crate::sys::pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
            let _ = state::wait_for_end(init.pid, &pidfd, &record.place());
        }),
        Err(StartError::Failed(failure)) => {
            let position = init.after_start.iter().find(|(position, _)| *position == failure.operation);
            let what = position.map_or("starting", |(_, words)| words.as_str());
            let error = sandbox::reason(failure.errno);
            Err(told(&format!("{what}: {error}"), failure.errno))
        }
        // A child that still waits for us ends with the connection.
        Err(error) => {
            Err(OciError::Io { what: "starting the container".to_owned(), source: std::io::Error::other(error) })
        }
    }
}

pub(super) fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<(), OciError> {
    let home = Home::of(root, id);
    let record = home.load(id)?;
    let place = record.place();
    if all {
        return Ok(place.signal(signal)?);
    }
    let shares_pids = record.init.as_ref().is_some_and(|init| init.shares_pids);
    if signal == libc::SIGKILL && shares_pids && !place.procs()?.is_empty() {
        // Nothing else would end the others: not even that the first one has.
        place.signal(signal)?;
    } else {
        let Some(pidfd) = running(&record) else {
            return refuse(id, home.status(&record), NOT_RUNNING);
        };
        match crate::sys::pidfd_kill(pidfd.as_fd(), signal) {
            Err(Errno::SRCH) => return refuse(id, Status::Stopped, NOT_RUNNING),
            result => result.map_err(|errno| io(format!("sending signal {signal}"), errno))?,
        }
    }
    if signal == libc::SIGKILL && place.is_frozen() {
        // In a v1 freezer it would never come to its end.
        place.freeze(Freeze::Thawed)?;
    }
    Ok(())
}

pub(super) fn delete(root: &Path, id: &str, force: bool) -> Result<(), OciError> {
    let home = Home::of(root, id);
    let _lock = match home.lock(id) {
        Err(OciError::NoContainer(_)) if force => return Ok(()),
        result => result?,
    };
    let record = match home.load(id) {
        // Its creator was interrupted before anything else was made.
        Err(OciError::NoContainer(_)) if force => return home.remove(),
        result => result?,
    };
    let status = home.status(&record);
    if status != Status::Stopped && !force {
        return refuse(id, status, "only a stopped one can be deleted; --force kills it first");
    }
    let place = record.place();
    if let (Some(init), Some(pidfd)) = (&record.init, running(&record)) {
        if status == Status::Paused {
            place.freeze(Freeze::Thawed)?;
        }
        match crate::sys::pidfd_kill(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(io("killing the process".to_owned(), errno)),
        }
        state::wait_for_end(init.pid, &pidfd, &place)?;
    }
    driver::remove(&place, record.scope.as_deref())?;
    place::remove_made(&record.made, &place);
    if let Some(group) = &record.rdt {
        group.remove()?;
    }
    home.remove()?;
    if record.init.is_some() {
        hooks::after_end(&record, None);
    }
    Ok(())
}

/// `delete --regex`: one that can't be deleted keeps none of the others.
pub(super) fn delete_matching(root: &Path, expression: &str, force: bool) -> Result<(), OciError> {
    let unusable = |what: String| OciError::Start(format!("delete: --regex: {expression:?}: {what}"));
    let text = CString::new(expression).map_err(|error| unusable(error.to_string()))?;
    let pattern = Pattern::new(&text).map_err(unusable)?;
    let mut first = None;
    for id in list::ids(root)? {
        let is_meant = CString::new(id.as_str()).is_ok_and(|name| pattern.matches(&name));
        let deleted = if is_meant { delete(root, &id, force) } else { Ok(()) };
        match (deleted, &first) {
            (Ok(()) | Err(OciError::NoContainer(_)), _) => {}
            (Err(error), None) => first = Some(error),
            (Err(error), Some(_)) => log::say(&format!("{id}: {error}")),
        }
    }
    first.map_or(Ok(()), Err)
}

pub(super) fn pause(root: &Path, id: &str) -> Result<(), OciError> {
    freeze(root, id, Freeze::Frozen)
}

pub(super) fn resume(root: &Path, id: &str) -> Result<(), OciError> {
    freeze(root, id, Freeze::Thawed)
}

fn freeze(root: &Path, id: &str, to: Freeze) -> Result<(), OciError> {
    let home = Home::of(root, id);
    let _lock = home.lock(id)?;
    let mut record = home.load(id)?;
    let status = home.status(&record);
    let mut place = record.place();
    match (status, to) {
        (Status::Running | Status::Created, Freeze::Frozen) => {
            if place.unified().is_none() {
                extend(&home, &mut record, &mut place, &[Controller::Freezer].into())?;
            }
            // Half frozen would be neither: let it go on. The first error is the one to tell.
            let undo = |_: &_| drop(place.freeze(Freeze::Thawed));
            Ok(place.freeze(to).inspect_err(undo)?)
        }
        (Status::Paused, Freeze::Thawed) => Ok(place.freeze(to)?),
        (status, Freeze::Frozen) => refuse(id, status, "only a running one can be paused"),
        (status, Freeze::Thawed) => refuse(id, status, "only a paused one can be resumed"),
    }
}

pub(super) fn update(root: &Path, wish: &Update) -> Result<(), OciError> {
    let home = Home::of(root, &wish.id);
    let _lock = home.lock(&wish.id)?;
    let mut record = home.load(&wish.id)?;
    let status = home.status(&record);
    if matches!(status, Status::Stopped | Status::Creating) {
        return refuse(&wish.id, status, "there is nothing to update");
    }
    let shares: Vec<&str> =
        [&wish.l3_cache_schema, &wish.memory_bandwidth_schema].into_iter().flatten().map(String::as_str).collect();
    match &record.rdt {
        _ if shares.is_empty() => {}
        Some(group) => group.write(&shares)?,
        None => return Err(Invalid::new("linux.intelRdt", "the container has no group of its own").into()),
    }
    let mut resources = limits(wish)?;
    resources::check(&resources, Moment::Update)?;
    let mut place = record.place();
    if record.scope.is_some() {
        driver::settle(&mut resources, &place);
    }
    // Rules for devices are in force from the start.
    let mut wanted = resources::controllers(&resources);
    wanted.remove(&Controller::Devices);
    extend(&home, &mut record, &mut place, &wanted)?;
    resources::check_use(&place, &resources)?;
    driver::update(&place, record.scope.as_deref(), &resources)?;
    Ok(resources::apply(&place, &resources, Moment::Update)?)
}

/// Takes more controllers, and notes down what was made for that.
fn extend(home: &Home, record: &mut Record, place: &mut Place, wanted: &BTreeSet<Controller>) -> Result<(), OciError> {
    let before = record.made.len();
    let extended = place.extend(wanted, &mut record.made);
    if record.made.len() > before || *place != record.place() {
        record.put_place(place);
        home.save(record)?;
    }
    Ok(extended?)
}

fn limits(wish: &Update) -> Result<Resources, OciError> {
    let text = match &wish.resources {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).map_err(|error| io("reading standard input".to_owned(), error))?;
            text
        }
        Some(path) => std::fs::read(path).map_err(|error| io(format!("reading {}", path.display()), error))?,
        None => {
            let mut tree = serde_json::Map::new();
            for (path, value) in &wish.single {
                let (part, field) = path.split_once('/').unwrap_or((path, ""));
                let part = tree.entry(part).or_insert_with(|| serde_json::json!({}));
                if let Some(part) = part.as_object_mut() {
                    part.insert(field.to_owned(), value.clone());
                }
            }
            serde_json::Value::Object(tree).to_string().into_bytes()
        }
    };
    let resources: Resources =
        config::parse(&text).map_err(|error| Invalid::new(format!("linux.resources.{}", error.path), error.what))?;
    Ok(resources)
}
