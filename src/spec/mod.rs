//! The words of a manifest as types: names, quantities, limits, the object kinds, classes of change.
//!
//! Pure: values in, values out. A value of one of these types has been checked; the only way to get
//! a [`Name`] is through its check. Everything here serialises to the manifest's own spelling, so a
//! record in the database and `plim get -o yaml` read like the file they came from.

pub mod change;
mod container;
mod deletion;
mod drift;
mod env;
mod health;
mod id;
mod image;
mod name;
mod order;
mod quantity;
mod resources;
mod text;
mod time;

pub use container::{
    Backoff, Capabilities, Capability, Container, ContainerType, DesiredState, IdSpec, Logs, Mount, MountSource,
    Network, Restart, RestartPolicy, Seccomp, Security, Signal, Stop, User,
};
pub use deletion::{DISABLED, DeletionPolicy, PRUNE, RECONCILE};
pub use drift::{InvalidPointer, LimitPointer};
pub use env::EnvName;
pub use health::{Health, HttpProbe, Probe, Question, TcpProbe};
pub use id::{IdRange, InstanceId, Kind, ObjectId};
pub use image::ImageRef;
pub use name::{AbsolutePath, Name};
pub use order::{Boot, Dependency, DependencyCondition};
pub use quantity::{Bytes, Count, CpuSet, MilliCpu, Weight};
pub use resources::{Cpu, HugePages, Io, IoLimit, Memory, Pids, Resources};
pub(crate) use text::Text;
pub use time::{Span, Timestamp};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The API version every manifest states.
pub const API_VERSION: &str = "plimsoll/v1";

/// One object as its author wrote it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    pub id: ObjectId,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub spec: Container,
}

/// Where an object's text stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The source's name, as in `plim source status`.
    pub source: String,
    /// The file, relative to the source's root.
    pub file: String,
    /// The file as a person finds it.
    pub path: String,
    /// Which document of the file, from 1.
    pub document: u32,
    /// The document's first line, from 1.
    pub line: u32,
    /// What the text was: `sha256:…` of the document.
    pub revision: String,
    /// What changes it, of the files in `FILE.d/`, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<String>,
}

impl Provenance {
    /// What changes it, relative to the source's root.
    pub fn drop_in_files(&self) -> Vec<String> {
        self.drop_ins.iter().map(|name| format!("{}.d/{name}", self.file)).collect()
    }
}
