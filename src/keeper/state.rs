//! What a keeper hands to the program that it executes in its own place.
//!
//! Everything that cannot be found out again, as JSON, with descriptors as numbers of what comes
//! beside it ([`handover`](super::handover)). A version that the next program does not know is asked
//! about before, because after it there is no way back.

use super::protocol::{Exit, LogCounters, LogTarget};
use crate::spec::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The versions that this build takes over, the oldest and the newest; the newest is what it writes.
/// A new field with a default needs no new version.
pub(super) const STATES: (u32, u32) = (1, 1);

/// The number of a descriptor among those that come along.
pub(super) type Slot = usize;

/// The version alone, of a state that may be of another shape.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub version: u32,
    pub run: PathBuf,
    #[serde(default)]
    pub log: Option<PathBuf>,
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    pub start_timeout_ms: u64,
    /// Where the next program is looked for.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// The limit of descriptors that children get, soft and hard.
    pub descriptors: [Option<u64>; 2],
    pub listener: Slot,
    #[serde(default)]
    pub lock: Option<Slot>,
    /// The last number that was given to anything.
    pub next: u64,
    #[serde(default)]
    pub wakeups: u64,
    /// Programs that this process has executed in its place, the coming one included.
    #[serde(default)]
    pub upgrades: u64,
    /// Who is told that it went well: a connection and its call.
    #[serde(default)]
    pub asker: Option<(u64, u64)>,
    pub containers: Vec<ContainerState>,
    pub execs: Vec<ExecState>,
    pub connections: Vec<ConnectionState>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChildState {
    pub pid: u32,
    pub pidfd: Slot,
    pub ours: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerState {
    pub id: u64,
    pub instance: InstanceId,
    pub child: ChildState,
    /// How it has ended; it runs when there is none.
    #[serde(default)]
    pub exit: Option<Exit>,
    pub since: Timestamp,
    pub log: LogState,
    #[serde(default)]
    pub stdout: Option<FifoState>,
    #[serde(default)]
    pub stderr: Option<FifoState>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogState {
    pub target: LogTarget,
    #[serde(default)]
    pub counters: LogCounters,
    /// The file that is open, wherever its name is now.
    #[serde(default)]
    pub file: Option<Slot>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FifoState {
    pub path: PathBuf,
    pub fd: Slot,
    /// The beginning of a line that has not ended.
    #[serde(default)]
    pub begun: Octets,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecState {
    pub id: u64,
    pub instance: InstanceId,
    pub child: ChildState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionState {
    pub id: u64,
    pub socket: Slot,
    pub greeted: bool,
    #[serde(default)]
    pub waiting: Vec<PacketState>,
}

/// A message that the other side has not taken yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PacketState {
    pub bytes: Octets,
    #[serde(default)]
    pub payload: Option<Slot>,
}

/// Bytes of any kind, as text in JSON: each is the character of the same number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Octets(pub Vec<u8>);

impl From<Octets> for String {
    fn from(Octets(bytes): Octets) -> Self {
        bytes.into_iter().map(char::from).collect()
    }
}

impl TryFrom<String> for Octets {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all = Octets((0..=255).collect());

        let text = serde_json::to_string(&all).unwrap();

        assert_eq!(serde_json::from_str::<Octets>(&text).unwrap(), all);
    }

    /// Golden: what has been written once has to be understood for as long as its version is.
    #[test]
    fn the_shortest_state_of_version_1_is_understood() {
        let text = r#"{"version": 1, "run": "/run/plimsoll", "startTimeoutMs": 60000, "descriptors": [1024, null],
            "listener": 0, "next": 7,
            "containers": [{"id": 3, "instance": "default_web.1", "child": {"pid": 10, "pidfd": 1, "ours": true},
                "since": "1970-01-01T00:00:00Z", "log": {"target": {"path": "/log", "maxSize": 10, "files": 2}}}],
            "execs": [{"id": 4, "instance": "default_web.1", "child": {"pid": 11, "pidfd": 2, "ours": true}}],
            "connections": [{"id": 5, "socket": 3, "greeted": true}], "more": "of a later build"}"#;

        let state: State = serde_json::from_str(text).unwrap();

        assert_eq!((state.containers.len(), state.execs.len(), state.connections.len()), (1, 1, 1));
        assert_eq!(state.upgrades, 0);
    }
}
