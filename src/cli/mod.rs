//! The command line: words into one call, a result into an exit code.
//!
//! A file per verb. What is printed is made in [`render`], which is pure; answers go to standard
//! output and everything else to standard error.

mod agent;
mod check;
mod completion;
mod context;
mod describe;
mod events;
mod exec;
mod exit;
mod explain;
mod get;
mod help;
mod history;
mod launch;
mod live;
mod logging;
mod logs;
mod man;
mod metrics;
mod names;
mod orders;
mod plan;
mod render;
mod schema;
mod screen;
mod service;
mod set;
mod source;
mod status;
mod suspend;
mod terminal;
mod up;
mod validate;
mod why;
mod yaml;

use clap::{FromArgMatches as _, Parser, Subcommand};
use context::Context;
use exit::{CliError, Exit};
use screen::{ColorChoice, Screen};
use std::path::PathBuf;
use std::process::ExitCode;

/// Plimsoll holds this host at the line its owner has drawn: containers from manifests.
#[derive(Debug, Parser)]
#[command(name = "plim", version, disable_help_subcommand = true)]
struct Args {
    /// The directory that everything of the agent is below; the system's places when not given
    #[arg(long, env = "PLIM_ROOT", global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// When to use colours
    #[arg(long, value_enum, default_value = "auto", global = true, value_name = "WHEN")]
    color: ColorChoice,
    /// Print answers and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Agent(agent::Args),
    Up(up::Args),
    Status(status::Args),
    Get(get::Args),
    Describe(describe::Args),
    Logs(logs::Args),
    Events(events::Args),
    Why(why::Args),
    History(history::Args),
    Metrics(metrics::Args),
    Validate(validate::Args),
    #[command(visible_alias = "diff")]
    Plan(plan::Args),
    Approve(orders::ApproveArgs),
    Reconcile(orders::ReconcileArgs),
    Reload(orders::ReloadArgs),
    Source(source::Args),
    Stop(orders::StopArgs),
    Start(orders::StartArgs),
    Restart(orders::RestartArgs),
    Suspend(suspend::SuspendArgs),
    Resume(suspend::ResumeArgs),
    Set(set::Args),
    Exec(exec::Args),
    Explain(explain::Args),
    Check(check::Args),
    Schema(schema::Args),
    Completion(completion::Args),
    Man(man::Args),
    Version(VersionArgs),
}

/// Print the version of this program
///
/// Needs no agent; `plim status` shows the agent's version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim version")]
struct VersionArgs {}

/// The program `plim`.
pub fn run() -> ExitCode {
    // A shell asks what could come next; then that is all that is done.
    clap_complete::CompleteEnv::with_factory(help::command).var(completion::VARIABLE).complete();
    let matches = help::command().get_matches();
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let screen = Screen::new(args.color, args.quiet);
    let root = args.root.filter(|root| !root.as_os_str().is_empty());
    let context = Context { root, screen };
    match dispatch(args.verb, &context) {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                screen.complain(&format!("plim: {}", error.explain()));
            }
            error.exit().into()
        }
    }
}

fn dispatch(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    let long_lived = matches!(verb, Verb::Agent(_) | Verb::Up(_));
    if long_lived {
        crate::sys::keep_no_large_memory();
    }
    let mut builder = if long_lived {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().map_err(|error| CliError::io("starting", error))?;
    let exit = runtime.block_on(async {
        match verb {
            Verb::Agent(args) => agent::run(args, context).await,
            Verb::Up(args) => up::run(args, context).await,
            Verb::Status(args) => status::run(args, context).await,
            Verb::Get(args) => get::run(args, context).await,
            Verb::Describe(args) => describe::run(args, context).await,
            Verb::Logs(args) => logs::run(args, context).await,
            Verb::Events(args) => events::run(args, context).await,
            Verb::Why(args) => why::run(args, context).await,
            Verb::History(args) => history::run(args, context).await,
            Verb::Metrics(args) => metrics::run(args, context).await,
            Verb::Validate(args) => validate::run(&args, context),
            Verb::Plan(args) => plan::run(args, context).await,
            Verb::Approve(args) => orders::approve(args, context).await,
            Verb::Reconcile(args) => orders::reconcile(args, context).await,
            Verb::Reload(args) => orders::reload(args, context).await,
            Verb::Source(args) => source::run(args, context).await,
            Verb::Stop(args) => orders::stop(args, context).await,
            Verb::Suspend(args) => suspend::suspend(args, context).await,
            Verb::Resume(args) => suspend::resume(args, context).await,
            Verb::Set(args) => set::run(args, context).await,
            Verb::Start(args) => orders::start(args, context).await,
            Verb::Restart(args) => orders::restart(args, context).await,
            Verb::Exec(args) => exec::run(args, context).await,
            Verb::Explain(args) => explain::run(&args, context),
            Verb::Check(args) => check::run(args, context),
            Verb::Schema(args) => schema::run(args, context),
            Verb::Completion(args) => completion::run(&args, context),
            Verb::Man(args) => man::run(&args, context),
            Verb::Version(VersionArgs {}) => {
                context.screen.put(concat!("plim ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| Exit::Ok)
            }
        }
    });
    // A thread may still wait for a terminal's input, which nobody will type.
    runtime.shutdown_background();
    exit
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_newest_version_that_the_changelog_tells_of_is_this_one() {
        let text = include_str!("../../CHANGELOG.md");
        let newest = text.lines().find_map(|line| line.strip_prefix("## ")).unwrap();

        assert_eq!(newest.split([',', ' ']).next(), Some(env!("CARGO_PKG_VERSION")), "{newest}");
    }
}
