//! `plim completion`, and the names that a shell is offered.

use super::context::{Context, client};
use super::exit::{CliError, Exit};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use std::path::PathBuf;
use std::time::Duration;

/// The variable by which a shell's script asks this program what could come next.
pub const VARIABLE: &str = "PLIM_COMPLETE";
const NAME: &str = "plim";
/// Nobody waits longer for an agent while typing.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print what a shell needs to complete verbs, options and names
///
/// The names are those that the agent knows at that moment. The package installs this for every user.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim completion bash > /etc/bash_completion.d/plim\n  \
    plim completion zsh > ~/.zfunc/_plim\n  plim completion fish > ~/.config/fish/completions/plim.fish")]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script);
    written.map_err(|error| CliError::io("writing the script", error))?;
    context.screen.put(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// For arguments that are the name of a container.
pub fn names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| ask().unwrap_or_default())
}

/// Nothing where no agent answers: whoever types is told so by the command.
fn ask() -> Option<Vec<CompletionCandidate>> {
    let root = std::env::var_os("PLIM_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
    let client = client(root.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let items = runtime.block_on(async { tokio::time::timeout(PATIENCE, client.containers(None, "")).await });
    let items = items.ok()?.ok()?;
    Some(items.iter().map(|item| CompletionCandidate::new(&item.metadata.name)).collect())
}
