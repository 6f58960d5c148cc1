//! `plim source`: where manifests come from, and going back to an earlier revision.

use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::{render, yaml};
use crate::agent::{Command, SourceView};

/// Show where manifests come from, and go back to an earlier revision
///
/// Sources are directories and git repositories. They are listed in the agent's configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim source list\n  plim source history fleet\n  \
    plim source rollback fleet --reason 'web does not come up'")]
pub struct Args {
    #[command(subcommand)]
    verb: SourceVerb,
}

#[derive(Debug, clap::Subcommand)]
enum SourceVerb {
    /// List all sources
    #[command(after_help = "Example:\n  plim source list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how a source stands: its revision, when its server was asked, what of it cannot be used
    #[command(after_help = "Example:\n  plim source status fleet")]
    Status {
        /// As `plim source list` names it
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the revisions of a repository that were accepted, the oldest first
    #[command(after_help = "Example:\n  plim source history fleet")]
    History {
        /// As `plim source list` names it
        name: String,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Go back to an earlier revision of a repository, and stay there until `plim source unpin`
    #[command(after_help = "Example:\n  plim source rollback fleet\n  plim source rollback fleet --to 12")]
    Rollback {
        /// As `plim source list` names it
        name: String,
        /// Its number or the beginning of its commit, as `plim source history` shows them [default: the one before]
        #[arg(long, value_name = "REVISION")]
        to: Option<String>,
        /// Why, for whoever wonders later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Follow the newest revision of a repository again
    #[command(after_help = "Example:\n  plim source unpin fleet")]
    Unpin {
        /// As `plim source list` names it
        name: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let paint = context.screen.paint;
    let text = match args.verb {
        SourceVerb::List { json } => {
            let sources = client.status().await?.sources;
            if json { yaml::json(&sources)? } else { render::sources::list(&sources, now(), paint) }
        }
        SourceVerb::Status { name, json } => {
            let sources = client.status().await?.sources;
            let source = sources.into_iter().find(|source: &SourceView| source.name == name);
            let source =
                source.ok_or_else(|| CliError::NotFound(format!("source {name} is not known to this agent")))?;
            if json { yaml::json(&source)? } else { render::sources::one(&source, now(), paint) }
        }
        SourceVerb::History { name, json } => {
            let kept = client.revisions(&name).await?;
            let line = |kept| serde_json::to_string(kept).map(|line| format!("{line}\n")).unwrap_or_default();
            if json { kept.iter().map(line).collect() } else { render::sources::history(&kept, now(), paint) }
        }
        SourceVerb::Rollback { name, to, reason } => {
            client.command(&Command::RollBackSource { name, to, reason }).await? + "\n"
        }
        SourceVerb::Unpin { name } => client.command(&Command::UnpinSource { name }).await? + "\n",
    };
    context.screen.put(&text)?;
    Ok(Exit::Ok)
}
