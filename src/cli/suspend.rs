//! `plim suspend` and `plim resume`: hands off, until further notice.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target, id};
use super::orders::span;
use crate::agent::Command;
use crate::spec::{ObjectId, Span};

/// Which containers.
#[derive(Debug, clap::Args)]
struct Which {
    /// The containers
    #[arg(required_unless_present = "all", value_name = "NAME", add = names())]
    names: Vec<String>,
    /// Every container that the agent knows
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
}

/// Do nothing about containers until they are resumed
///
/// What runs goes on, what has ended stays so, and what their manifests say is read, shown by `plim get`
/// and `plim plan`, and not done. The annotation `plimsoll/reconcile: disabled` does the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim suspend web --reason 'looking into the leak' --for 2h")]
pub struct SuspendArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever wonders later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Go on after this time: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Span>,
}

/// Take `plim suspend` back
///
/// What has been waiting is done at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim resume web")]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

impl Which {
    async fn ids(&self, context: &Context) -> Result<Vec<ObjectId>, CliError> {
        if self.all {
            return Ok(Vec::new());
        }
        let items = context.client().containers(None, "").await?;
        let one = |name: &String| id(Target::parse(name)?.among(&items, self.namespace.as_deref(), Match::Exact)?);
        self.names.iter().map(one).collect()
    }
}

pub async fn suspend(args: SuspendArgs, context: &Context) -> Result<Exit, CliError> {
    let SuspendArgs { which, reason, span } = args;
    let objects = which.ids(context).await?;
    let until = span.map(|span| now().after(span));
    order(&Command::Suspend { objects, all: which.all, reason, until }, context).await
}

pub async fn resume(args: ResumeArgs, context: &Context) -> Result<Exit, CliError> {
    let ResumeArgs { which } = args;
    let objects = which.ids(context).await?;
    order(&Command::Resume { objects, all: which.all }, context).await
}

pub(super) async fn order(command: &Command, context: &Context) -> Result<Exit, CliError> {
    let answer = context.client().command(command).await?;
    context.screen.put(&format!("{answer}\n"))?;
    Ok(Exit::Ok)
}
