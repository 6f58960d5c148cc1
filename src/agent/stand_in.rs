//! The agent's entry points as the commands call them, until the agent is joined.

use super::Handle;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Options {
    pub root: Option<PathBuf>,
    pub manifests: Vec<PathBuf>,
    pub foreground: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent is not here")]
    NotHere,
}

pub struct Paths;

impl Paths {
    pub fn socket(&self) -> PathBuf {
        PathBuf::new()
    }
}

pub struct Running {
    pub paths: Paths,
}

impl Running {
    pub async fn wait(self) {}
}

impl Handle {
    pub fn leave(&self) {}
}

pub async fn run(options: Options) -> Result<(Handle, Running), AgentError> {
    let Options { root: _, manifests: _, foreground: _ } = options;
    Err(AgentError::NotHere)
}
