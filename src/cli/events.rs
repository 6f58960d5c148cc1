//! `plim events`.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::{render, yaml};
use crate::agent::{Event, EventType, List};
use crate::api::ClientError;
use crate::spec::API_VERSION;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    Normal,
    Warning,
}

/// Show what happened on this host
///
/// With -w it goes on, one line per event, until you press Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim events -w --type warning")]
pub struct Args {
    /// Go on with every new event
    #[arg(long, short)]
    watch: bool,
    /// Only the events of this object: KIND/NAME
    #[arg(long = "for", value_name = "OBJECT", add = names())]
    of: Option<String>,
    /// The namespace of that object, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only events of this type
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Type>,
    /// How to print them; json with -w is one object per line
    #[arg(long, short, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client();
    let object = match &args.of {
        None => None,
        Some(word) => {
            let target = Target::parse(word)?;
            Some(target.resolve(&client, args.namespace.as_deref(), Match::Prefix).await?.to_string())
        }
    };
    let wanted = |event: &Event| {
        let kind = match args.kind {
            None => true,
            Some(Type::Normal) => event.kind == EventType::Normal,
            Some(Type::Warning) => event.kind == EventType::Warning,
        };
        kind && object.as_ref().is_none_or(|object| *object == event.object)
    };
    let screen = &context.screen;
    if !args.watch {
        let mut events = client.past_events().await?;
        events.retain(wanted);
        let text = match args.output {
            Format::Table => render::events::table(&events, now(), screen.paint),
            Format::Json => {
                yaml::json(&List { api_version: API_VERSION.to_owned(), kind: "List".to_owned(), items: events })?
            }
        };
        screen.put(&text)?;
        return Ok(Exit::Ok);
    }
    let mut last = 0;
    loop {
        let mut lines = client.events(last, true).await?;
        loop {
            let event: Event = match lines.next_json().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Exit::Ok),
                // We read too slowly and were disconnected: what we missed is still remembered.
                Err(ClientError::Broken(_)) => break,
                Err(error) => return Err(error.into()),
            };
            last = event.id;
            if wanted(&event) {
                screen.put(&match args.output {
                    Format::Table => render::events::line(&event, screen.paint),
                    Format::Json => yaml::json_line(&event)?,
                })?;
            }
        }
    }
}
