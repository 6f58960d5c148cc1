//! The command line of an OCI runtime: what podman and containerd call.
//!
//! A `config.json` becomes what the sandbox builds ([`crate::sandbox::Blueprint`]); from there on it is
//! the code that starts the agent's containers, too. There is no process of ours beside a container:
//! one that waits for its start is the container's own first process.
//!
//! - `args`: the words; `config`: the file; `build`, `mounts`: what it asks for; `resources`, `rows`: limits.
//! - `attributes`: how the kernel is to treat a process; `hooks`: programs of others on the way.
//! - `state`: what is known of a container; `seccomp`: its profile; `filter`: compiled ones.
//! - `driver`: who makes the cgroup; `rdt`: shares of caches.
//! - `service`: what a service manager gives.
//! - `manifest`: a `config.json` of a manifest.
//! - `create`, `lifecycle`, `exec`, `events`, `features`, `list`, `show`, `spec`: the commands; `foreground`, `relay`: what
//!   connects them with who called.

mod args;
mod attributes;
mod build;
pub mod config;
mod create;
mod driver;
mod events;
mod exec;
mod exposed;
mod features;
mod filter;
mod foreground;
#[cfg(test)]
mod fuzz;
mod hooks;
mod lifecycle;
mod list;
mod log;
mod manifest;
mod mounts;
mod netdevices;
mod passwd;
mod rdt;
mod relay;
mod resources;
mod rows;
mod seccomp;
mod service;
mod show;
mod spec;
mod state;

use crate::sandbox::guard::{self, Guard};
use crate::sandbox::program::{self, Hidden};
pub use args::FromManifest;
use args::{Chosen, Command};
pub use manifest::from_manifest;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(transparent)]
    Usage(#[from] args::UsageError),
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error("config.json")]
    Invalid(#[from] config::Invalid),
    #[error(transparent)]
    Limit(#[from] resources::LimitError),
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    #[error(transparent)]
    Scope(#[from] crate::cgroup::ScopeError),
    #[error(transparent)]
    Rdt(#[from] rdt::RdtError),
    #[error(transparent)]
    Script(#[from] crate::sandbox::ScriptError),
    #[error(transparent)]
    Seccomp(crate::sandbox::seccomp::SeccompError),
    #[error("{0}")]
    Start(String),
    /// Its program can't be executed: told as by itself.
    #[error("{0}")]
    Program(String),
    #[error("a container with the id {0} exists")]
    Exists(String),
    #[error("container {0} does not exist")]
    NoContainer(String),
    #[error("container {id} is {status}: {what}")]
    State { id: String, status: &'static str, what: &'static str },
    /// Nothing is left of what had been begun.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    #[error("{what}")]
    Io { what: String, source: std::io::Error },
}

impl From<crate::sandbox::LaunchError> for OciError {
    fn from(error: crate::sandbox::LaunchError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Start(text)
    }
}

/// The exit code of what went well.
const SUCCESS: u8 = 0;

/// What [`main`] leaves to a program that reads manifests: [`from_manifest`].
pub type Manifests = fn(&FromManifest) -> Result<String, OciError>;

/// Runs one command, and gives its exit code; its words come without the program's own name.
/// `manifests` is what makes a `config.json` of a manifest, where the program has it.
pub fn main(words: impl Iterator<Item = std::ffi::OsString>, manifests: Option<Manifests>) -> u8 {
    let name = name();
    let words: Result<Vec<String>, _> = words.map(std::ffi::OsString::into_string).collect();
    let Ok(words) = words else {
        log::say("an argument is not UTF-8");
        return 1;
    };
    let (global, command) = match args::parse(&name, words) {
        Ok(parsed) => parsed,
        Err(error) => {
            log::say(&error.to_string());
            return 1;
        }
    };
    let is_exec = matches!(command, Command::Exec(_));
    match apart(&command).and_then(|hidden| run(&global, command, hidden, manifests)) {
        Ok(code) => code,
        Err(error) => {
            log::error(&global, &error);
            match error {
                // As a shell has it.
                OciError::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(255),
                // What a program in the container could return, too, but seldom does.
                _ if is_exec => 255,
                _ => 1,
            }
        }
    }
}

/// What has a child on its way into a container: out of its reach before there is one.
fn apart(command: &Command) -> Result<Hidden, OciError> {
    if !matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
        return Ok(Hidden::default());
    }
    let failed = |what: &str| {
        let what = what.to_owned();
        |source| OciError::Io { what, source }
    };
    let hidden = if guard::is_out(Guard::HiddenProgram) {
        Hidden::default()
    } else {
        program::hide(c"plim-oci").map_err(failed("hiding the program from the container"))?
    };
    if !guard::is_out(Guard::NotDumpable) {
        // Not later than the clone: a child of ours is in the container's pid namespace from its birth.
        crate::sys::set_not_dumpable().map_err(|errno| failed("becoming not dumpable")(errno.into()))?;
    }
    Ok(hidden)
}

/// What we were called by: tools look for the name they know in what `--version` says.
fn name() -> String {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = called.as_deref().and_then(std::path::Path::file_name).and_then(std::ffi::OsStr::to_str);
    match name {
        None | Some("" | "plim") => "plim-oci".to_owned(),
        Some(name) => name.to_owned(),
    }
}

fn run(global: &args::Global, command: Command, hidden: Hidden, manifests: Option<Manifests>) -> Result<u8, OciError> {
    let root = &global.root;
    match command {
        Command::Create(wish) => create::create(global, &wish).map(|()| SUCCESS),
        Command::Run(wish) => create::run(global, &wish, hidden),
        Command::Start { id } => lifecycle::start(root, &id).map(|()| SUCCESS),
        Command::Kill { id, signal, all } => lifecycle::kill(root, &id, signal, all).map(|()| SUCCESS),
        Command::Delete { of: Chosen::Id(id), force } => lifecycle::delete(root, &id, force).map(|()| SUCCESS),
        Command::Delete { of: Chosen::Matching(expression), force } => {
            lifecycle::delete_matching(root, &expression, force).map(|()| SUCCESS)
        }
        Command::Pause { id } => lifecycle::pause(root, &id).map(|()| SUCCESS),
        Command::Resume { id } => lifecycle::resume(root, &id).map(|()| SUCCESS),
        Command::Update(wish) => lifecycle::update(root, &wish).map(|()| SUCCESS),
        Command::Exec(wish) => exec::exec(global, &wish, hidden),
        Command::State { id } => list::state(root, &id).map(|()| SUCCESS),
        Command::List { quiet, json } => list::list(root, quiet, json).map(|()| SUCCESS),
        Command::Ps(wish) => show::ps(root, &wish).map(|()| SUCCESS),
        Command::Events(wish) => events::events(root, &wish).map(|()| SUCCESS),
        Command::SpecOf(wish) => match manifests {
            Some(make) => make(&wish).and_then(|text| show::print(&text)).map(|()| SUCCESS),
            None => Err(OciError::Start(
                "spec: --from-manifest is for `plim oci`: this program reads no manifests".to_owned(),
            )),
        },
        Command::Spec { bundle, rootless } => spec::spec(&bundle, rootless).map(|()| SUCCESS),
        Command::Features => features::features().map(|()| SUCCESS),
        Command::Version { name } => show::version(&name).map(|()| SUCCESS),
        Command::Help { text } => show::print(&text).map(|()| SUCCESS),
    }
}
