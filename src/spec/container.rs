//! One workload.

use super::env::{self, EnvForms, EnvName};
use super::text::Text;
use super::{
    AbsolutePath, Boot, Bytes, DeletionPolicy, Dependency, Health, ImageRef, LimitPointer, Name, Resources, Span,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a manifest of `kind: Container` asks for, under `spec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// `app`: the command is PID 1.
    #[serde(rename = "type", default)]
    pub kind: ContainerType,
    /// Whether it should run now.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// The root filesystem: `host:/`, `rootfs:/PATH`, `tar:/PATH`.
    pub image: ImageRef,
    /// The program, absolute or looked up in the container's `PATH`, and its first arguments.
    #[schemars(with = "Vec<Text>", length(min = 1))]
    pub command: Vec<String>,
    /// Arguments after those of `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Text>")]
    pub args: Vec<String>,
    /// Puts a small init as PID 1 that reaps orphans and passes signals on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Environment variables, `{MODE: prod}` or `[{name: MODE, value: prod}]`. `PATH`, `HOME`, `HOSTNAME` and
    /// `container` are set where not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "env::either")]
    #[schemars(with = "EnvForms")]
    pub env: BTreeMap<EnvName, String>,
    /// Where the command starts; made if it is missing.
    #[serde(default = "root_directory")]
    pub working_dir: AbsolutePath,
    /// Who runs the command inside: `1000`, `1000:1000`, `nobody` or `www-data:adm`.
    #[serde(default)]
    pub user: User,
    /// The hostname inside; the object's name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Name>,
    /// `none`: a network of its own with only loopback. `host`: the host's network.
    #[serde(default)]
    pub network: Network,
    /// Host directories and files, and temporary file systems, mounted in the order given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Limits; every one is changed in place.
    #[serde(default, skip_serializing_if = "super::resources::is_default")]
    pub resources: Resources,
    /// What it may do.
    #[serde(default)]
    pub security: Security,
    /// How it is found out whether it works.
    #[serde(default, skip_serializing_if = "Health::is_none")]
    pub health: Health,
    /// What happens when the command ends.
    #[serde(default)]
    pub restart: Restart,
    /// How it is asked to end.
    #[serde(default)]
    pub stop: Stop,
    /// How much of its output is kept.
    #[serde(default)]
    pub logs: Logs,
    /// Limits that somebody else may change on the host: they are written when they change here, and not
    /// set back. `[/spec/resources/memory/limit]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_drift: Vec<LimitPointer>,
    /// Containers that have to be there before this one is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Its place among those that start at once.
    #[serde(default, skip_serializing_if = "super::resources::is_default")]
    pub boot: Boot,
    /// `Delete`, `Stop`, `Orphan` or `Confirm`: what happens when its text is gone from the manifests.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn root_directory() -> AbsolutePath {
    "/".parse().expect("an absolute path")
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ContainerType {
    #[default]
    App,
}

/// Whether a container should run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DesiredState {
    #[default]
    Running,
    Stopped,
}

/// A user, and optionally a group, by number or by a name of the container's own `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct User {
    pub user: IdSpec,
    /// The user's own group when not given.
    pub group: Option<IdSpec>,
}

/// A number, or a name that the container's `/etc/passwd` or `/etc/group` explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdSpec {
    Id(u32),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    #[error("{0:?} is not a user: write 1000, 1000:1000, NAME or NAME:GROUP")]
    Unreadable(String),
    #[error("{0} is outside the container's ids, 0 to 65535")]
    OutOfRange(String),
}

impl Default for User {
    fn default() -> Self {
        Self { user: IdSpec::Id(0), group: None }
    }
}

/// `user: 1000` and `user: "1000:1000"` are both wanted.
impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = User;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user such as 1000, 1000:1000 or nobody")
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<User, E> {
                id.to_string().parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<User, E> {
                id.to_string().parse().map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<User, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for User {
    fn schema_name() -> Cow<'static, str> {
        "User".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A user, and optionally a group, by number or by a name of the container's own `/etc/passwd`.",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": super::IdRange::SIZE - 1},
                {"type": "string", "pattern": "^[A-Za-z0-9_][-A-Za-z0-9_.]*(:[A-Za-z0-9_][-A-Za-z0-9_.]*)?$"}
            ]
        })
    }
}

impl std::str::FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        // Strict on purpose: a number that is nearly one must never end as somebody else's id.
        let part = |part: &str| -> Result<IdSpec, InvalidUser> {
            let first = part.bytes().next();
            if part.bytes().all(|b| b.is_ascii_digit()) && first.is_some() {
                return match part.parse::<u32>() {
                    Ok(id) if id < super::IdRange::SIZE => Ok(IdSpec::Id(id)),
                    _ => Err(InvalidUser::OutOfRange(part.to_owned())),
                };
            }
            let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            let head = first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if head && part.len() <= 255 && part.bytes().all(inner) {
                Ok(IdSpec::Name(part.to_owned()))
            } else {
                Err(InvalidUser::Unreadable(text.to_owned()))
            }
        };
        match text.split_once(':') {
            None => Ok(Self { user: part(text)?, group: None }),
            Some((user, group)) => Ok(Self { user: part(user)?, group: Some(part(group)?) }),
        }
    }
}

impl fmt::Display for IdSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            None => write!(f, "{}", self.user),
            Some(group) => write!(f, "{}:{group}", self.user),
        }
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.to_string()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// A network namespace of its own, with loopback up and nothing else.
    #[default]
    None,
    /// The host's network namespace.
    Host,
}

/// Something mounted at `path`: exactly one of `host` and `tmpfs` says what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Where it appears inside; made if it is missing.
    pub path: AbsolutePath,
    /// A file or directory of the host, which has to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<AbsolutePath>,
    /// A file system in memory of at most this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Bytes>,
    /// Nothing can be written through it, sub-mounts included.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// What a [`Mount`] mounts, once it has been checked that it is exactly one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSource<'a> {
    Host(&'a AbsolutePath),
    Tmpfs(Bytes),
}

impl Mount {
    /// `None` when neither or both of `host` and `tmpfs` are given, which validation refuses.
    pub fn source(&self) -> Option<MountSource<'_>> {
        match (&self.host, self.tmpfs) {
            (Some(path), None) => Some(MountSource::Host(path)),
            (None, Some(size)) => Some(MountSource::Tmpfs(size)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Security {
    /// Capabilities beside or instead of the default set.
    pub capabilities: Capabilities,
    /// The filter of system calls: `default`, `unconfined`, or a file with a profile in JSON.
    pub seccomp: Seccomp,
    /// The command and its children can never gain privileges by executing a file.
    pub no_new_privileges: bool,
    /// Nothing outside of `mounts` can be written.
    pub read_only_root: bool,
    /// Maps the container's users to a range of ids that is its own.
    pub user_namespace: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::default(),
            seccomp: Seccomp::Default,
            no_new_privileges: true,
            read_only_root: false,
            user_namespace: true,
        }
    }
}

/// `drop` is applied to the default set first, then `add`. `ALL` names every capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Capabilities {
    /// What to take from the default set: `[ALL]`, `[NET_RAW]`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub drop: BTreeSet<Capability>,
    /// What to have in the end, whatever was dropped.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<Capability>,
}

/// A capability of capabilities(7) without its `CAP_` prefix (accepted with it), or `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a capability of capabilities(7){1}")]
pub struct InvalidCapability(String, String);

impl Capability {
    /// Every capability that Linux has, by number (linux/capability.h, Linux 6.18).
    pub const ALL: [&'static str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];

    /// The mask of the capabilities that this names: one bit, or all of them for `ALL`.
    pub fn mask(&self) -> u64 {
        match Self::ALL.iter().position(|name| *name == self.0) {
            Some(number) => 1 << number,
            None => (1 << Self::ALL.len()) - 1,
        }
    }
}

impl TryFrom<String> for Capability {
    type Error = InvalidCapability;

    fn try_from(text: String) -> Result<Self, InvalidCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || Self::ALL.contains(&name) {
            return Ok(Self(name.to_owned()));
        }
        let near = Self::ALL.iter().find(|known| known.starts_with(name) || name.starts_with(**known));
        let hint = near.map_or_else(String::new, |known| format!(" (did you mean {known}?)"));
        Err(InvalidCapability(text, hint))
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.0
    }
}

impl Capabilities {
    /// What Docker and Podman give by default, as a mask.
    pub const DEFAULT: u64 = {
        let numbers = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31];
        let mut mask = 0;
        let mut i = 0;
        while i < numbers.len() {
            mask |= 1 << numbers[i];
            i += 1;
        }
        mask
    };

    /// The set that results: the default, less `drop`, plus `add`.
    pub fn mask(&self) -> u64 {
        let drop = self.drop.iter().fold(0, |mask, capability| mask | capability.mask());
        let add = self.add.iter().fold(0, |mask, capability| mask | capability.mask());
        (Self::DEFAULT & !drop) | add
    }
}

/// `default`, `unconfined`, or `file:/PATH` of a profile in the OCI's JSON form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^(default|unconfined|file:/.+)$"))]
pub enum Seccomp {
    /// What Docker's default profile allows, less what its capabilities do not.
    Default,
    /// No filter.
    Unconfined,
    /// A profile of the host, in JSON.
    File(AbsolutePath),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSeccomp {
    #[error("{0:?} is not a seccomp profile: write default, unconfined or file:/PATH")]
    Word(String),
    #[error(transparent)]
    Path(#[from] super::name::InvalidPath),
}

impl TryFrom<String> for Seccomp {
    type Error = InvalidSeccomp;

    fn try_from(text: String) -> Result<Self, InvalidSeccomp> {
        match (text.as_str(), text.strip_prefix("file:")) {
            ("default", _) => Ok(Self::Default),
            ("unconfined", _) => Ok(Self::Unconfined),
            (_, Some(path)) => Ok(Self::File(path.parse()?)),
            _ => Err(InvalidSeccomp::Word(text)),
        }
    }
}

impl From<Seccomp> for String {
    fn from(seccomp: Seccomp) -> Self {
        match seccomp {
            Seccomp::Default => "default".to_owned(),
            Seccomp::Unconfined => "unconfined".to_owned(),
            Seccomp::File(path) => format!("file:{path}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Restart {
    /// `always`, `onFailure` or `never`.
    pub policy: RestartPolicy,
    /// How long to wait before it.
    pub backoff: Backoff,
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: RestartPolicy::Always, backoff: Backoff::default() }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// Started again whatever its exit code.
    #[default]
    Always,
    /// Started again after an exit code other than 0, or a signal.
    OnFailure,
    /// Run once; its exit code stays in the status.
    Never,
}

/// The wait before a restart: `min`, doubled each time up to `max`; back to `min` after it has run
/// for ten times as long as it had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backoff {
    /// The first wait.
    pub min: Span,
    /// The longest wait.
    pub max: Span,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Span::from_secs(1), max: Span::from_secs(300) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stop {
    /// Sent to PID 1: `TERM`, `INT`, `RTMIN+3`, …
    pub signal: Signal,
    /// How long it may take before it is killed.
    pub grace: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal("TERM".to_owned()), grace: Span::from_secs(10) }
    }
}

/// A signal by name, with or without `SIG`: `TERM`, `SIGHUP`, `RTMIN+3` (signal(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^(SIG)?[A-Z]+[0-9]?([+-][0-9]+)?$"))]
pub struct Signal(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal: write TERM, INT, HUP, RTMIN+3, …")]
pub struct InvalidSignal(String);

impl Signal {
    /// Names by number from 1, signal(7), x86 and ARM. 16 is unused and 30 is PWR.
    const NAMES: [&'static str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    /// glibc keeps 32 and 33 for itself, so `SIGRTMIN` is 34 for everyone who uses it (signal(7)).
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;

    pub fn number(&self) -> i32 {
        Self::parse(&self.0).expect("checked when made")
    }

    fn parse(name: &str) -> Option<i32> {
        if let Some(position) = Self::NAMES.iter().position(|known| *known == name) {
            return i32::try_from(position).ok().map(|position| position + 1);
        }
        let offset = |rest: &str, sign: char| -> Option<i32> {
            if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from) }
        };
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => Self::RTMIN + offset(rest, '+')?,
            (_, Some(rest)) => Self::RTMAX - offset(rest, '-')?,
            (None, None) => return None,
        };
        (Self::RTMIN..=Self::RTMAX).contains(&number).then_some(number)
    }
}

impl TryFrom<String> for Signal {
    type Error = InvalidSignal;

    fn try_from(text: String) -> Result<Self, InvalidSignal> {
        let name = text.strip_prefix("SIG").unwrap_or(&text);
        if Self::parse(name).is_some() { Ok(Self(name.to_owned())) } else { Err(InvalidSignal(text)) }
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logs {
    /// A log file is turned over at this size.
    pub max_size: Bytes,
    /// How many files are kept, the one that is written included.
    #[schemars(range(min = 1, max = 100))]
    pub files: u8,
}

impl Default for Logs {
    fn default() -> Self {
        Self { max_size: Bytes(20 << 20), files: 5 }
    }
}

#[cfg(test)]
mod tests;
