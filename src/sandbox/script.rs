//! The script: what the parent and the child do, as data.

use super::{Blueprint, Process, Text, text::ZeroByte};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub(super) parent: Vec<ParentOp>,
    pub(super) child: Vec<ChildOp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ParentOp {
    Clone { namespaces: u64, cgroup: Option<Text> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChildOp {
    Execute(Program),
}

/// The program and the places where it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) candidates: Vec<Text>,
    pub(super) argv: Vec<Text>,
    pub(super) env: Vec<Text>,
}

/// Why a blueprint can't become a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error(transparent)]
    ZeroByte(#[from] ZeroByte),
    #[error("no command is given")]
    NoCommand,
}

/// Turns what a container is to look like into what is to be done. Pure.
pub fn script(blueprint: &Blueprint) -> Result<Script, ScriptError> {
    let parent = vec![ParentOp::Clone { namespaces: 0, cgroup: None }];
    let child = vec![ChildOp::Execute(program(&blueprint.process)?)];
    Ok(Script { parent, child })
}

/// The script of another command in a running container.
pub(super) fn exec(plan: &super::ExecPlan) -> Result<Script, ScriptError> {
    let parent = vec![ParentOp::Clone { namespaces: 0, cgroup: None }];
    Ok(Script { parent, child: vec![ChildOp::Execute(program(&plan.process)?)] })
}

fn program(process: &Process) -> Result<Program, ScriptError> {
    let name = process.argv.first().ok_or(ScriptError::NoCommand)?;
    let path = process.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates = if name.contains('/') {
        vec![name.as_str().try_into()?]
    } else {
        path.split(':').map(|dir| format!("{dir}/{name}").try_into()).collect::<Result<_, _>>()?
    };
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().try_into()).collect::<Result<Vec<Text>, _>>();
    Ok(Program { candidates, argv: texts(&process.argv)?, env: texts(&process.env)? })
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What came of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Its program runs.
    Executed,
    /// It ended before.
    Failed(Failure),
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

impl Script {
    /// "executing /bin/nope: No such file or directory"
    pub fn explain(&self, failure: &Failure) -> String {
        format!("{failure:?}")
    }
}
