//! `plim plan`.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::{render, yaml};
use crate::agent::{PlanReport, PlanRequest};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Show what would change, with class and reason; never changes anything
///
/// Without a path: what the agent is about to do. With paths: what it would do if the objects in
/// those files replaced the ones of the same names. Exit code 0: no changes, 1: there are some,
/// 4: a manifest cannot be used.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim plan\n  plim plan web.yaml && echo nothing to do")]
pub struct Args {
    /// Files or directories with manifests
    paths: Vec<PathBuf>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    // The agent reads the files, and has another working directory.
    let absolute = |path: &PathBuf| {
        path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CliError::NotFound(format!("{}: {error}", path.display())),
            _ => CliError::io(format!("reading {}", path.display()), error),
        })
    };
    let paths = args.paths.iter().map(absolute).collect::<Result<Vec<PathBuf>, CliError>>()?;
    let report = context.client().plan(&PlanRequest { paths }).await?;
    let text = match args.output {
        Format::Text => render::plan::report(&report, context.screen.paint),
        Format::Json => yaml::json(&report)?,
    };
    context.screen.put(&text)?;
    Ok(exit(&report))
}

pub(super) fn exit(report: &PlanReport) -> Exit {
    let changes = report.changes.iter().any(|change| change.verb != "none");
    match (report.problems.is_empty(), changes) {
        (false, _) => Exit::Invalid,
        (true, true) => Exit::Different,
        (true, false) => Exit::Ok,
    }
}
