//! `plim agent`.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::launch::{Launched, launch};
use super::logging::{self, LogFormat};
use super::service;
use crate::agent::{Command, Config, KeeperBy, Options, Reread};
use crate::api::{Access, Rights};
use crate::spec::Span;
use std::path::PathBuf;
use std::pin::pin;
use tokio::signal::unix::{SignalKind, signal};

/// Run the agent as a service
///
/// It leaves on SIGTERM and SIGINT, and the containers go on; the next start takes them over.
/// SIGHUP makes it read everything again, its configuration too: one with a mistake changes nothing, and the
/// status says so. PLIM_LOG sets what is logged, like RUST_LOG.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo plim agent --manifests /srv/manifests")]
pub struct Args {
    /// The configuration, instead of /etc/plimsoll/agent.yaml or ROOT/agent.yaml; options stand above it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory with manifests, instead of the system's one; repeatable
    #[arg(long, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// How long what is left of a removed container is kept, to go on when its file comes back [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = super::orders::span)]
    keep_removed: Option<Span>,
    /// Everything is read and looked at again after this long, also when nothing is heard of a change
    /// [default: 40s]
    #[arg(long, value_name = "TIME", value_parser = super::orders::span)]
    resync: Option<Span>,
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

    let halt = args.halt;
    let reread = args.rereads(context.root.clone());
    let options = reread().map_err(|error| CliError::Usage(crate::host::chain(&error)))?;
    let reading = options.read_only_socket.as_ref().map(|socket| {
        let access = Access { group: Some(socket.group.clone()), rights: Rights::Reading, ..Access::default() };
        (PathBuf::from(socket.path.as_str()), access)
    });
    let Launched { handle, socket, running, server } =
        launch(options, Some(reread), Access::default(), reading).await?;
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
                    // A mistake in it is in the log and in the status.
                    drop(handle.command(Command::Reload, 0).await);
                    if let Err(error) = handle.command(Command::Reconcile { source: None }, 0).await {
                        tracing::warn!(error = %error, "reading everything again failed");
                    }
                });
            }
        }
    }
    service.abort();
    service::leaving();
    server.stop().await?;
    tracing::info!("left; the containers {}", if halt { "are stopped" } else { "go on" });
    Ok(Exit::Ok)
}

impl Args {
    /// Reads the configuration, time and again.
    fn rereads(self, root: Option<PathBuf>) -> Reread {
        Box::new(move || {
            let path = self.config.clone().unwrap_or_else(|| Config::path(root.as_deref()));
            let config = Config::read(&path, self.config.is_some())?;
            Ok(self.above(config.options(root.clone())))
        })
    }

    /// What the command line says stands above the configuration.
    fn above(&self, mut options: Options) -> Options {
        if !self.manifests.is_empty() {
            options.manifests.clone_from(&self.manifests);
        }
        if self.keeper_service {
            options.keeper = KeeperBy::ServiceManager;
        }
        options.retention = self.keep_removed.unwrap_or(options.retention);
        options.resync = self.resync.unwrap_or(options.resync);
        options.cgroup_parent = self.cgroup_parent.clone().or(options.cgroup_parent);
        options.halt = self.halt;
        options
    }
}
