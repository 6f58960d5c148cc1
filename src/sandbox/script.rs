//! A script, and the words for what becomes of it.

use super::ops::{ChildOp, ParentOp, Program, Slot};
use super::text::ZeroByte;
use super::{Link, Process, Text};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the parent and the child do, each in its own order, with the points where they meet.
///
/// Printed, it is one operation a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub(super) parent: Vec<ParentOp>,
    pub(super) child: Vec<ChildOp>,
    /// For which mount of the blueprint an operation is; for who has made the script, and stays.
    #[serde(skip)]
    pub(super) mounts: Vec<(Lane, usize, usize)>,
}

/// Why a blueprint can't become a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error(transparent)]
    ZeroByte(#[from] ZeroByte),
    #[error("no command is given")]
    NoCommand,
    #[error("more than {} mounts and layers", Slots::LIMIT)]
    TooManyMounts,
    #[error("{0} ids from {1} on do not fit into the ids of the host")]
    Ids(u32, u32),
}

pub(super) fn program(process: &Process) -> Result<Program, ScriptError> {
    let name = process.argv.first().ok_or(ScriptError::NoCommand)?;
    let path = process.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates = if name.contains('/') {
        vec![name.as_str().try_into()?]
    } else {
        // An empty element means the working directory to a shell; here it would be a surprise.
        let directories = path.split(':').filter(|directory| !directory.is_empty());
        directories.map(|directory| format!("{directory}/{name}").try_into()).collect::<Result<_, _>>()?
    };
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().try_into()).collect::<Result<Vec<Text>, _>>();
    Ok(Program { candidates, argv: texts(&process.argv)?, env: texts(&process.env)? })
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Descriptors that the parent makes are numbered from 0, as they are handed over in one message,
/// which takes 253 of them at most (unix(7)). The child's own come after.
pub(super) struct Slots {
    next: u8,
}

impl Slots {
    const LIMIT: u8 = 250;

    pub(super) fn new() -> Self {
        Self { next: 0 }
    }

    pub(super) fn take(&mut self) -> Result<Slot, ScriptError> {
        if self.next >= Self::LIMIT {
            return Err(ScriptError::TooManyMounts);
        }
        self.next += 1;
        Ok(Slot(self.next - 1))
    }
}

/// What came of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Its program runs.
    Executed,
    /// It is ready and waits for its start.
    Waiting,
    /// Its filter has a listener, which is its descriptor of this number; see [`super::hear`].
    Listener(u32),
    /// It ended before, and says why.
    Failed(Failure),
    /// It ended before, and could not say why: somebody killed it.
    Ended,
}

/// Where and why a lane stopped. [`Script::explain`] has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub lane: Lane,
    pub operation: u32,
    pub errno: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    Parent,
    Child,
}

/// What is wrong with a program that can't be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// There is none, or none of the interpreter that it names.
    Missing,
    /// It is there, and is no program or not one for this user.
    NotExecutable,
}

impl Script {
    /// Whether the program is what the failure is about.
    pub fn unfit(&self, failure: &Failure) -> Option<Unfit> {
        let position = usize::try_from(failure.operation).unwrap_or(usize::MAX);
        let executes = matches!(self.child.get(position), Some(ChildOp::Execute(_)));
        if failure.lane == Lane::Parent || !executes {
            return None;
        }
        match failure.errno {
            libc::ENOENT => Some(Unfit::Missing),
            libc::EACCES | libc::ENOEXEC | libc::EPERM | libc::ELOOP | libc::ETXTBSY | libc::ELIBBAD => {
                Some(Unfit::NotExecutable)
            }
            // No memory, too long a list of arguments: it says nothing about the program.
            _ => None,
        }
    }

    /// "executing /bin/nope: No such file or directory"
    pub fn explain(&self, failure: &Failure) -> String {
        let position = usize::try_from(failure.operation).unwrap_or(usize::MAX);
        let words = match failure.lane {
            Lane::Parent => self.parent.get(position).map(ToString::to_string),
            Lane::Child => self.child.get(position).map(|op| self.words(position, op)),
        };
        let words = words.unwrap_or_else(|| format!("operation {position}, which this script does not have"));
        let error = super::reason(failure.errno);
        let error = error.as_str();
        if let (Lane::Parent, Some(ParentOp::Tree { idmap: Some(_), .. }), libc::EINVAL) =
            (failure.lane, self.parent.get(position), failure.errno)
        {
            return format!("{words}: this kernel has no id-mapped mounts of its file system");
        }
        match self.child.get(position) {
            Some(ChildOp::Execute(_) | ChildOp::FindProgram { .. }) if failure.lane == Lane::Child => {
                match self.child.last() {
                    Some(ChildOp::Execute(program)) => explain_execute(program, failure.errno, error),
                    _ => format!("{words}: {error}"),
                }
            }
            Some(ChildOp::Mount { link: Link::Refuse, .. } | ChildOp::Attach { link: Link::Refuse, .. })
                if failure.lane == Lane::Child && matches!(failure.errno, libc::ELOOP | libc::ENOTDIR) =>
            {
                format!("{words}: it must be mounted on ordinary directory")
            }
            Some(ChildOp::WorkingDirectory { .. }) if failure.lane == Lane::Child && failure.errno == libc::EXDEV => {
                format!("{words}: it is outside of the container")
            }
            _ => format!("{words}: {error}"),
        }
    }

    /// The mount of the blueprint that the failure is about.
    pub fn mount_of(&self, failure: &Failure) -> Option<usize> {
        let position = usize::try_from(failure.operation).unwrap_or(usize::MAX);
        let (_, _, mount) = self.mounts.iter().find(|(lane, at, _)| (*lane, *at) == (failure.lane, position))?;
        Some(*mount)
    }

    /// Words for what the child does once it has been started: position and operation, for who
    /// starts it and no longer has the script.
    pub fn after_start(&self) -> Vec<(u32, String)> {
        let ops = self.child.iter().enumerate().skip_while(|(_, op)| !matches!(op, ChildOp::AwaitStart));
        ops.filter_map(|(at, op)| Some((u32::try_from(at).ok()?, op.to_string()))).collect()
    }

    /// The operation's words, with the place that "here" means.
    fn words(&self, position: usize, op: &ChildOp) -> String {
        let place = self.child.iter().take(position).rev().find_map(|op| match op {
            ChildOp::Enter { at, .. } => Some(at.as_str()),
            _ => None,
        });
        match (op, place) {
            (
                ChildOp::MountHere { .. }
                | ChildOp::MakeDirectoryHere { .. }
                | ChildOp::ReadOnlyHere { .. }
                | ChildOp::MaskHere { .. },
                Some(place),
            ) => op.to_string().replace(" here", &format!(" in {place}")),
            _ => op.to_string(),
        }
    }
}

fn explain_execute(program: &Program, errno: i32, error: &str) -> String {
    let name = program.argv.first().map_or("", Text::as_str);
    if program.candidates.len() != 1 && errno == libc::ENOENT {
        let places = program.candidates.iter().filter_map(|path| path.as_str().rsplit_once('/'));
        let places = places.map(|(directory, _)| directory).collect::<Vec<_>>().join(":");
        return format!("executing {name}: there is no such program in {places}");
    }
    match program.candidates.as_slice() {
        [path] => format!("executing {path}: {error}"),
        _ => format!("executing {name}: {error}"),
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, op) in self.parent.iter().enumerate() {
            writeln!(f, "parent {number:>3}  {op}")?;
        }
        for (number, op) in self.child.iter().enumerate() {
            writeln!(f, "child  {number:>3}  {op}")?;
        }
        Ok(())
    }
}
