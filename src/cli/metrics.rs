//! `plim metrics`.

use super::context::Context;
use super::exit::{CliError, Exit};

/// Print what can be counted and measured, as OpenMetrics text
///
/// Rounds, changes, sources, the queue, and what each container's cgroups tell, as it is now. A monitoring system
/// reads the same from GET /metrics on the agent's socket.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim metrics | grep memory_usage")]
pub struct Args {}

pub async fn run(Args {}: Args, context: &Context) -> Result<Exit, CliError> {
    let text = context.client().metrics().await?;
    context.screen.put(&text)?;
    Ok(Exit::Ok)
}
