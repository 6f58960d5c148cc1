//! The verbs that order something: `stop`, `start`, `restart`, `approve`, `reconcile`, `reload`.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use crate::agent::{Command, Item};
use crate::api::Client;
use crate::spec::{ObjectId, Span, Timestamp};
use std::time::Duration;

/// What the verbs about one container share.
#[derive(Debug, clap::Args)]
struct One {
    /// The container
    #[arg(add = names())]
    name: String,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// Why, for whoever wonders later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it is so
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = span)]
    timeout: Span,
}

/// Stop a container and keep it stopped, whatever its manifest says
///
/// The order is recorded with who, when and why, shown by `plim get`, and obeyed until `plim start`
/// takes it back or its time is over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim stop web --reason 'disk swap' --for 2h")]
pub struct StopArgs {
    #[command(flatten)]
    one: One,
    /// Follow the manifest again after this time: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Span>,
}

/// Start a container that was stopped, or try again without waiting
///
/// Takes `plim stop` back. Where the manifest says `desiredState: stopped`, it is an order of its
/// own, and --for limits it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim start web --wait")]
pub struct StartArgs {
    #[command(flatten)]
    one: One,
    /// Follow the manifest again after this time: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Span>,
}

/// Stop a container and start it again
///
/// Its root filesystem stays; the process is a new one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim restart web --reason 'new certificate' --wait")]
pub struct RestartArgs {
    #[command(flatten)]
    one: One,
}

/// Release removals that wait for consent
///
/// A change of manifests that would remove much of a host is held until somebody agrees to it;
/// `plim plan` shows what is held.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim plan\n  plim approve container/old\n  plim approve --all")]
pub struct ApproveArgs {
    /// KIND/NAME…
    #[arg(required_unless_present_any = ["all", "source"], value_name = "OBJECT", add = names())]
    objects: Vec<String>,
    /// Everything that is held
    #[arg(long, conflicts_with = "objects")]
    all: bool,
    /// A source whose directory is on another mount or file system than before, or whose history was rewritten,
    /// as `plim source list` names it: it is right as it is now
    #[arg(long, conflicts_with_all = ["objects", "all"], value_name = "NAME")]
    source: Option<String>,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
}

/// Read all manifests, ask the servers of all repositories, and look at the whole host now
///
/// The agent does so by itself whenever something changes; this waits until it has been done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim reconcile\n  plim reconcile --source fleet")]
pub struct ReconcileArgs {
    /// Ask the server of this source alone, as `plim source list` names it
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// Read the agent's configuration again, sources and all, without a restart
///
/// It holds as a whole or not at all: with a mistake in it everything goes on as it was, the mistake is said with its
/// place, and so does `plim status`. What came from a source that was taken out goes like what was taken out of a
/// directory: after a grace, and with consent where it is much. Exit code 4: the old configuration holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim reload")]
pub struct ReloadArgs {}

pub(super) fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned()).map_err(|error| error.to_string())
}

pub async fn stop(args: StopArgs, context: &Context) -> Result<Exit, CliError> {
    let StopArgs { one, span } = args;
    let until = span.map(|span| now().after(span));
    let order = |object, reason| Command::Stop { object, reason, until };
    let goal = Goal { words: "it has stopped", back: "plim start", reached: stopped };
    one_order(one, order, goal, context).await
}

pub async fn start(args: StartArgs, context: &Context) -> Result<Exit, CliError> {
    let StartArgs { one, span } = args;
    let until = span.map(|span| now().after(span));
    let order = |object, reason| Command::Start { object, reason, until };
    let goal = Goal { words: "it runs", back: "plim stop", reached: |item, _| item.status.phase == "Running" };
    one_order(one, order, goal, context).await
}

pub async fn restart(args: RestartArgs, context: &Context) -> Result<Exit, CliError> {
    let order = |object, reason| Command::Restart { object, reason };
    let goal = Goal { words: "a new process runs", back: "plim stop", reached: restarted };
    one_order(args.one, order, goal, context).await
}

fn stopped(item: &Item, _: &Before) -> bool {
    item.status.pid.is_none() && matches!(item.status.phase.as_str(), "Stopped" | "Exited" | crate::api::REMOVED)
}

fn restarted(item: &Item, before: &Before) -> bool {
    item.status.phase == "Running" && (item.status.pid, item.status.started_at) != *before
}

/// The process before the order.
type Before = (Option<u32>, Option<Timestamp>);

/// What `--wait` waits for.
struct Goal {
    words: &'static str,
    /// What takes the order back.
    back: &'static str,
    reached: fn(&Item, &Before) -> bool,
}

async fn one_order(
    one: One,
    order: impl FnOnce(ObjectId, Option<String>) -> Command,
    goal: Goal,
    context: &Context,
) -> Result<Exit, CliError> {
    let client = context.client();
    let id = Target::parse(&one.name)?.resolve(&client, one.namespace.as_deref(), Match::Exact).await?;
    let before = client.container(&id).await?.status;
    let answer = client.command(&order(id.clone(), one.reason)).await?;
    context.screen.put(&format!("{answer}\n"))?;
    if !one.wait {
        return Ok(Exit::Ok);
    }
    context.screen.note(&format!("waiting until {} ({} at most)", goal.words, one.timeout));
    let waited = wait(&client, &id, (before.pid, before.started_at), &goal);
    tokio::select! {
        result = waited => result.map(|()| Exit::Ok),
        () = tokio::time::sleep(Duration::from_millis(one.timeout.0)) => {
            let phase = client.container(&id).await?.status.phase;
            Err(CliError::Timeout(format!("after {} {id} is still {phase}; the order stands", one.timeout)))
        }
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted(format!(
            "not waiting any more; the order stands. `{} {}` takes it back", goal.back, id.name
        ))),
    }
}

async fn wait(client: &Client, id: &ObjectId, before: Before, goal: &Goal) -> Result<(), CliError> {
    let mut lines = client.watch_one(id).await?;
    while let Some(item) = lines.next_json::<Item>().await? {
        if (goal.reached)(&item, &before) {
            return Ok(());
        }
    }
    Err(CliError::Failed("the agent left before it was so".to_owned()))
}

pub async fn approve(args: ApproveArgs, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let mut objects = Vec::new();
    if !args.all {
        let items = client.containers(None, "").await?;
        for word in &args.objects {
            let target = Target::parse(word)?;
            objects.push(super::names::id(target.among(&items, args.namespace.as_deref(), Match::Exact)?)?);
        }
    }
    let command = match args.source {
        Some(name) => Command::AcceptSource { name },
        None => Command::Approve { objects, all: args.all },
    };
    let answer = client.command(&command).await?;
    context.screen.put(&format!("{answer}\n"))?;
    Ok(Exit::Ok)
}

pub async fn reload(_: ReloadArgs, context: &Context) -> Result<Exit, CliError> {
    let answer = context.client().command(&Command::Reload).await?;
    context.screen.put(&format!("{answer}\n"))?;
    Ok(Exit::Ok)
}

pub async fn reconcile(args: ReconcileArgs, context: &Context) -> Result<Exit, CliError> {
    let answer = context.client().command(&Command::Reconcile { source: args.source }).await?;
    context.screen.put(&format!("{answer}\n"))?;
    Ok(Exit::Ok)
}
