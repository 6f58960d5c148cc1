//! What agent and keeper say to each other.
//!
//! Versioned by a range: the client offers what it speaks, the keeper picks the highest it knows too.
//! Within a version, an unknown optional field is ignored and a missing one has its default, so that
//! an older keeper serves a newer agent across an upgrade.

use crate::sandbox::Script;
use crate::spec::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The versions that this build speaks, the oldest and the newest.
pub(super) const VERSIONS: (u32, u32) = (1, 1);

/// A request with the number that its reply carries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call<B> {
    pub id: u64,
    pub body: B,
}

/// The number alone, of a request that is not understood.
#[derive(Debug, Deserialize)]
pub(super) struct CallId {
    pub id: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    /// The first message of a connection; nothing else is answered before it.
    Hello {
        oldest: u32,
        newest: u32,
    },
    /// Comes with the compiled seccomp filter as its only descriptor when the script wants one.
    Start(Box<Start>),
    Signal {
        instance: InstanceId,
        signal: i32,
    },
    List,
    Release {
        instance: InstanceId,
    },
    Adopt(Box<Adopt>),
    SetLog {
        instance: InstanceId,
        log: LogTarget,
    },
    /// Comes with three descriptors for 0, 1 and 2 (with a terminal: one, the socket that gets its
    /// master), and then the compiled seccomp filter when the script wants one.
    Exec(Box<Exec>),
    /// To a command that runs, and to whatever of its session has not left its process group.
    SignalExec {
        exec: u64,
        signal: i32,
    },
    Ping,
    /// Answered by the program that has been executed in place of the one that was asked.
    Upgrade {
        program: PathBuf,
    },
    Shutdown {
        force: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    pub instance: InstanceId,
    pub script: Script,
    pub output: Output,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Adopt {
    pub instance: InstanceId,
    pub find: Whereabouts,
    pub output: Output,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exec {
    pub instance: InstanceId,
    pub script: Script,
    pub terminal: bool,
}

/// Where a container's standard output and error go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    pub log: LogTarget,
    /// FIFOs that the keeper makes; their directory must exist and belong to nobody else.
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    /// The host's ids of the container's user, who owns the FIFOs.
    pub uid: u32,
    pub gid: u32,
}

/// A log file and how it is turned over: `path`, `path.1`, `path.2`… Its directory must exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogTarget {
    pub path: PathBuf,
    /// Turned over before it would grow beyond this.
    pub max_size: u64,
    /// How many files are kept, the one that is written included.
    pub files: u32,
}

/// How to find PID 1 of a container whose keeper has died.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Whereabouts {
    /// The container's cgroup directories, in any hierarchy. They are looked through until it is found.
    pub cgroups: Vec<PathBuf>,
    /// What its PID was. It decides only among processes that are in the cgroup.
    pub pid: Option<u32>,
    /// When it was started, if the caller remembers.
    pub since: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Frame {
    Reply { id: u64, reply: Reply },
    Event(Event),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reply {
    Welcome {
        version: u32,
    },
    Done,
    Started(Started),
    ExecStarted {
        pid: u32,
        exec: u64,
    },
    List(Vec<Handle>),
    Stats(Stats),
    Failed {
        #[serde(default)]
        fault: Fault,
        text: String,
    },
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The keeper has no such instance, or its process has ended.
    NotFound,
    /// The instance is there already.
    Exists,
    /// Something still runs.
    Running,
    /// The process was not started; the text says where and why.
    StartFailed,
    /// The process was not started, because its program is not there.
    NoSuchProgram,
    /// The process was not started, because its program can't be executed.
    NotExecutable,
    /// The request makes no sense to this keeper.
    Invalid,
    /// Not at this moment: something is half done.
    Busy,
    #[default]
    #[serde(other)]
    Other,
}

/// News from the keeper, to every connection alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    Started {
        instance: InstanceId,
        pid: u32,
    },
    StartFailed {
        instance: InstanceId,
        text: String,
    },
    Exited {
        instance: InstanceId,
        exit: Exit,
    },
    ExecExited {
        instance: InstanceId,
        exec: u64,
        exit: Exit,
    },
    /// What the keeper holds, as an answer to [`Client::list`](super::Client::list) says: told here too, because
    /// here it has its place among the other events.
    #[serde(skip)]
    Listed(Vec<Handle>),
    /// The connection has ended: every call fails from now on, and events may have been missed.
    Lost,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// 0 to 255; 128 + the signal's number after a signal; `None` when nobody saw it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// PID 1 of the container, in the host's numbers.
    pub pid: u32,
    pub since: Timestamp,
}

/// One container, as the keeper knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handle {
    pub instance: InstanceId,
    pub pid: u32,
    pub state: HandleState,
    pub since: Timestamp,
    /// Taken over from a keeper that died, so it is not our child.
    #[serde(default)]
    pub adopted: bool,
    #[serde(default)]
    pub log: LogCounters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandleState {
    /// Between clone and exec.
    Starting,
    Running,
    /// Kept until it is released.
    Exited(Exit),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogCounters {
    pub lines: u64,
    pub bytes: u64,
    /// Lines that were thrown away because the log could not be written.
    pub dropped: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    pub pid: u32,
    pub containers: u64,
    pub starting: u64,
    pub execs: u64,
    pub connections: u64,
    /// Times that the loop woke up: stands still when nothing happens.
    pub wakeups: u64,
    /// How many times it has executed another program in its place.
    pub upgrades: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_keeper_says_is_understood_as_far_as_it_goes() {
        let reply = r#"{"reply": {"id": 1, "reply": {"failed": {"fault": "tooTired", "text": "no", "since": 3}}}}"#;
        let stats = r#"{"pid": 7, "mood": "good"}"#;

        let Ok(Frame::Reply { reply: Reply::Failed { fault, .. }, .. }) = serde_json::from_str(reply) else {
            panic!("not understood")
        };
        assert_eq!(fault, Fault::Other);
        assert_eq!(serde_json::from_str::<Stats>(stats).unwrap(), Stats { pid: 7, ..Stats::default() });
    }
}
