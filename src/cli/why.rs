//! `plim why`.

use super::completion::names;
use super::context::Context;
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::screen::printable;

/// Explain the last decision about an object
///
/// What changed, what class of change that is, by which rule, and when the next try is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim why container web")]
pub struct Args {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT", add = names())]
    object: Vec<String>,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let target = Target::from_words(&args.object)?;
    let id = target.resolve(&client, args.namespace.as_deref(), Match::Prefix).await?;
    let answer = client.why(&id).await?;
    for line in answer.lines() {
        context.screen.put(&format!("{}\n", printable(line)))?;
    }
    Ok(Exit::Ok)
}
