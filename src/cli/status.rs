//! `plim status`.

use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::{render, yaml};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Show the host at a glance: agent, sources, objects, warnings
///
/// Sources that cannot be read completely, ignored files and problems are listed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim status")]
pub struct Args {
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let summary = context.client().status().await?;
    let text = match args.output {
        Format::Text => render::status::summary(&summary, now(), context.screen.paint),
        Format::Json => yaml::json(&summary)?,
    };
    context.screen.put(&text)?;
    Ok(Exit::Ok)
}
