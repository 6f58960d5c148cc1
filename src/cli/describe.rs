//! `plim describe`.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::logs::Record;
use super::names::{self, Match, Target};
use super::screen::printable;
use super::{render, yaml};
use crate::api::Client;
use crate::api::client::LogsRequest;
use crate::spec::ObjectId;

/// How many of an object's events are shown.
const EVENTS: usize = 20;
/// How many of its last lines.
const LINES: usize = 10;

/// Show everything about one object: status, limits, spec, events, last log lines
///
/// Limits are shown as wanted, as last written, and as the kernel has them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim describe container web")]
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
    let items = client.containers(None, "").await?;
    let item = target.among(&items, args.namespace.as_deref(), Match::Prefix)?;
    let id = names::id(item)?;
    let object = id.to_string();
    let mut events = client.past_events().await?;
    events.retain(|event| event.object == object);
    let events = &events[events.len().saturating_sub(EVENTS)..];
    let spec = match &item.spec {
        Some(spec) => yaml::document(spec)?,
        None => String::new(),
    };
    let lines = last_lines(&client, &id).await;
    let spec: String = spec.lines().map(|line| format!("{}\n", printable(line))).collect();
    context.screen.put(&render::describe::item(item, &spec, events, &lines, now(), context.screen.paint))?;
    Ok(Exit::Ok)
}

/// What it wrote last. Nothing where there is no log: one that never ran is described all the same.
async fn last_lines(client: &Client, id: &ObjectId) -> String {
    let wanted = LogsRequest { follow: false, previous: false, since: None, tail: Some(LINES) };
    let Ok(mut records) = client.logs(id, &wanted).await else { return String::new() };
    let mut text = String::new();
    while let Ok(Some(record)) = records.next_line().await {
        let Some(record) = Record::parse(&record) else { continue };
        text.push_str(&printable(&String::from_utf8_lossy(record.text)));
        text.push('\n');
    }
    text
}
