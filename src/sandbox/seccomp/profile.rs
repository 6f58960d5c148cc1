//! A profile: rules per system call, as the OCI and Docker write them in JSON.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is allowed, and what happens otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub default_action: Action,
    pub default_errno_ret: Option<u32>,
    #[serde(default)]
    pub architectures: Vec<Arch>,
    #[serde(default)]
    pub arch_map: Vec<ArchMap>,
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchMap {
    pub architecture: Arch,
    #[serde(default, deserialize_with = "or_null")]
    pub sub_architectures: Vec<Arch>,
}

/// Machines that this program runs on, with the older ones that their kernels also run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X8664,
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    /// A machine that this program was not made for: its calls can't occur.
    #[serde(other)]
    Other,
}

impl Arch {
    pub(super) fn family_of_this_machine() -> Vec<Self> {
        if cfg!(target_arch = "aarch64") {
            vec![Self::Aarch64, Self::Arm]
        } else {
            vec![Self::X8664, Self::X86, Self::X32]
        }
    }

    /// What the default profile covers. Not x32, which hardly any kernel has switched on: it would make
    /// the filter half as long again, which every start pays for, and its calls answer ENOSYS as they
    /// do on a kernel without it.
    pub(super) fn usual() -> Vec<Self> {
        Self::family_of_this_machine().into_iter().filter(|arch| *arch != Self::X32).collect()
    }

    /// Go's name, as conditions of a profile have it.
    pub(super) fn go_name(self) -> &'static str {
        match self {
            Self::X8664 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
            Self::Other => "",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// A listener decides (seccomp_unotify(2)).
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    #[serde(default)]
    pub names: Vec<String>,
    /// The older form of `names`.
    pub name: Option<String>,
    pub action: Action,
    pub errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_null")]
    pub args: Vec<Comparison>,
    #[serde(default)]
    pub includes: Condition,
    #[serde(default)]
    pub excludes: Condition,
}

impl Rule {
    pub(super) fn allow(names: Vec<String>) -> Self {
        Self {
            names,
            name: None,
            action: Action::Allow,
            errno_ret: None,
            args: Vec::new(),
            includes: Condition::default(),
            excludes: Condition::default(),
        }
    }
}

/// Where a rule counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(default)]
    pub caps: Vec<String>,
    #[serde(default)]
    pub arches: Vec<String>,
    pub min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    pub index: u32,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Docker's own profile has `"args": null` here and there.
fn or_null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("reading the seccomp profile {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the seccomp profile {} is not in the OCI's form", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the seccomp profile {} has SCMP_ACT_NOTIFY, and there is nobody to listen", .0.display())]
    Listener(PathBuf),
    #[error("compiling the seccomp filter: {what}")]
    Compile {
        what: String,
        #[source]
        source: libseccomp::error::SeccompError,
    },
    #[error("taking the seccomp filter from the library")]
    Export(#[source] std::io::Error),
    #[error("the seccomp filter has {0} instructions, and the kernel takes 4096")]
    TooLong(usize),
}

impl Profile {
    /// Reads a profile in JSON.
    pub fn from_file(path: &Path) -> Result<Self, SeccompError> {
        let text = std::fs::read(path).map_err(|source| SeccompError::Read { path: path.to_owned(), source })?;
        let profile: Self =
            serde_json::from_slice(&text).map_err(|source| SeccompError::Parse { path: path.to_owned(), source })?;
        let mut actions = profile.syscalls.iter().map(|rule| rule.action).chain([profile.default_action]);
        if actions.any(|action| action == Action::Notify) {
            return Err(SeccompError::Listener(path.to_owned()));
        }
        Ok(profile)
    }
}
