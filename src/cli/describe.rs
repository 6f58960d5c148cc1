//! `plim describe`.

use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target, id};
use super::screen::printable;
use super::{render, yaml};

/// How many of an object's events are shown.
const EVENTS: usize = 20;

/// Show everything about one object: status, limits, spec, events
///
/// Limits are shown as wanted, as last written, and as the kernel has them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim describe container web")]
pub struct Args {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT")]
    object: Vec<String>,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let target = Target::from_words(&args.object)?;
    let items = client.containers(None, "").await?;
    let item = target.among(&items, args.namespace.as_deref(), Match::Prefix)?;
    let object = id(item)?.to_string();
    let mut events = client.past_events().await?;
    events.retain(|event| event.object == object);
    let events = &events[events.len().saturating_sub(EVENTS)..];
    let spec = match &item.spec {
        Some(spec) => yaml::document(spec)?,
        None => String::new(),
    };
    let spec: String = spec.lines().map(|line| format!("{}\n", printable(line))).collect();
    context.screen.put(&render::describe::item(item, &spec, events, now(), context.screen.paint))?;
    Ok(Exit::Ok)
}
