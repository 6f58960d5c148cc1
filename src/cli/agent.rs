//! `plim agent`.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::launch::{Launched, launch};
use super::logging::{self, LogFormat};
use super::service;
use crate::agent::{Command, KeeperBy, Options};
use crate::api::Access;
use crate::spec::Span;
use std::path::PathBuf;
use std::pin::pin;
use tokio::signal::unix::{SignalKind, signal};

/// Run the agent as a service
///
/// It leaves on SIGTERM and SIGINT, and the containers go on; the next start takes them over.
/// SIGHUP makes it read everything again. PLIM_LOG sets what is logged, like RUST_LOG.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo plim agent --manifests /srv/manifests")]
pub struct Args {
    /// A directory with manifests, instead of the system's one; repeatable
    #[arg(long, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// How long what is left of a removed container is kept, to go on when its file comes back
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = super::orders::span)]
    keep_removed: Span,
    /// The cgroup that all containers are below, such as that of a unit with Delegate=yes
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// The keeper is a service of its own (plim-keeper --service): wait for it, do not start one
    #[arg(long)]
    keeper_service: bool,
    /// Stop every container in order and leave; the next start runs them again. For a host that goes down
    #[arg(long)]
    halt: bool,
    /// How to log
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    logging::to_stderr(args.log_format, context.screen.paint_errors.0, "info");
    let failed = |error| CliError::io("handling signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;

    let Args { manifests, keep_removed: retention, cgroup_parent, keeper_service, halt, log_format: _ } = args;
    let keeper = if keeper_service { KeeperBy::ServiceManager } else { KeeperBy::Us };
    let root = context.root.clone();
    let options = Options { root, manifests, foreground: false, retention, cgroup_parent, keeper, halt };
    let Launched { handle, socket, running, server } = launch(options, Access::default()).await?;
    tracing::info!(path = %socket.display(), "listening");
    let service = tokio::spawn(service::accompany(handle.clone()));
    let mut left = pin!(running.wait());
    loop {
        tokio::select! {
            () = &mut left => break,
            _ = terminate.recv() => handle.leave(),
            _ = interrupt.recv() => handle.leave(),
            _ = hangup.recv() => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    if let Err(error) = handle.command(Command::Reconcile, 0).await {
                        tracing::warn!(error = %error, "reading everything again failed");
                    }
                });
            }
        }
    }
    service.abort();
    service::leaving();
    server.stop(&socket).await?;
    tracing::info!("left; the containers {}", if halt { "are stopped" } else { "go on" });
    Ok(Exit::Ok)
}
