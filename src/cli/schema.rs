//! `plim schema`.

use super::context::Context;
use super::exit::{CliError, Exit};

/// Print the JSON Schema of manifests
///
/// Editors complete and check manifests with it. Needs no agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim schema > v1.json\n  \
    # then, as the first line of a manifest:\n  # yaml-language-server: $schema=v1.json")]
pub struct Args {}

pub fn run(Args {}: Args, context: &Context) -> Result<Exit, CliError> {
    context.screen.put(&crate::manifest::schema())?;
    Ok(Exit::Ok)
}
