//! `plim history`.

use super::completion::names;
use super::context::Context;
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::screen::printable;
use crate::agent::Report;

/// What was changed about an object, and what came of it
///
/// The newest 50 changes, oldest first: when, which generation, how it was changed and why, where the text
/// stood, how long it took. Also of an object that is gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim history container web")]
pub struct Args {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT", add = names())]
    object: Vec<String>,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let target = Target::from_words(&args.object)?;
    let reports = match target.resolve(&client, args.namespace.as_deref(), Match::Prefix).await {
        Ok(id) => client.history(&id).await?,
        // One that is gone has a history still, under its whole name.
        Err(unknown @ CliError::NotFound(_)) => {
            let Some(id) = target.exactly(args.namespace.as_deref()) else { return Err(unknown) };
            let reports = client.history(&id).await?;
            if reports.is_empty() {
                return Err(unknown);
            }
            reports
        }
        Err(error) => return Err(error),
    };
    for report in reports {
        let line = if args.json { json(&report) } else { told(&report) };
        context.screen.put(&format!("{line}\n"))?;
    }
    Ok(Exit::Ok)
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

/// `2026-01-02T03:04:05Z  gen 3  live  resizing  memory.limit 512Mi → 1Gi: written and read back (web.yaml:1, 2 ms)`.
fn told(report: &Report) -> String {
    let Report { at, generation, class, action, reason, changes: _, source, result, took_ms } = report;
    let place = source.split(' ').next().unwrap_or_default();
    let action = action.to_lowercase();
    let text = format!("{at}  gen {generation:<3} {class:<9} {action:<10} {reason}: {result} ({place}, {took_ms} ms)");
    printable(&text).into_owned()
}
