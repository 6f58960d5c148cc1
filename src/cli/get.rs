//! `plim get`.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target, is_kind};
use super::render::containers::{self, Width};
use super::yaml;
use crate::agent::{Item, List};
use crate::api::{Client, REMOVED, Selector};
use crate::spec::API_VERSION;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// List containers with their state, usage and limits
///
/// Whatever needs attention stands below the table, with the place in its file. Names may be
/// shortened to a unique beginning.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim get\n  plim get web -o yaml\n  plim get -A -l app=web -w")]
pub struct Args {
    /// [KIND] NAME… or KIND/NAME…; all containers when not given
    #[arg(value_name = "KIND|NAME", add = names())]
    objects: Vec<String>,
    /// In all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// In this namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only those with these labels: app=web,tier!=front,canary
    #[arg(long, short = 'l', default_value = "", hide_default_value = true, value_name = "LABELS")]
    selector: String,
    /// How to print them; json with -w is one object per line
    #[arg(long, short, value_enum, default_value = "table")]
    output: Format,
    /// Go on with whatever changes
    #[arg(long, short)]
    watch: bool,
}

impl Args {
    fn namespace(&self) -> Option<&str> {
        if self.all_namespaces { None } else { Some(self.namespace.as_deref().unwrap_or("default")) }
    }

    /// The names that are wanted; none means all.
    fn targets(&self) -> Result<Vec<Target>, CliError> {
        match self.objects.split_first() {
            None => Ok(Vec::new()),
            Some((first, _)) if first.contains('/') => self.objects.iter().map(|word| Target::parse(word)).collect(),
            Some((first, names)) => {
                let names = if is_kind(first)? { names } else { &self.objects };
                names.iter().map(|word| Target::parse(word)).collect()
            }
        }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    args.selector.parse::<Selector>().map_err(|error| CliError::Usage(error.to_string()))?;
    let targets = args.targets()?;
    let client = context.client();
    let items = wanted(&client, &args, &targets).await?;
    if args.watch {
        return watch(&client, &args, &targets, &items, context).await;
    }
    let screen = &context.screen;
    if items.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        screen.note(&nothing(&args));
        // Why there is nothing is often told by the sources.
        for source in client.status().await?.sources.iter().filter(|source| !source.complete) {
            screen.note(&format!("! source {} ({}): {}", source.name, source.path, source.message));
        }
        return Ok(Exit::Ok);
    }
    screen.put(&text(items, args.output, context)?)?;
    Ok(Exit::Ok)
}

async fn wanted(client: &Client, args: &Args, targets: &[Target]) -> Result<Vec<Item>, CliError> {
    if targets.is_empty() {
        return Ok(client.containers(args.namespace(), &args.selector).await?);
    }
    let items = client.containers(None, &args.selector).await?;
    let found = targets.iter().map(|target| target.among(&items, args.namespace.as_deref(), Match::Prefix).cloned());
    found.collect()
}

fn nothing(args: &Args) -> String {
    let labels = if args.selector.is_empty() { "" } else { " with these labels" };
    match args.namespace() {
        None => format!("no containers{labels}"),
        Some(namespace) => format!("no containers{labels} in namespace {namespace} (-A looks in all)"),
    }
}

fn text(items: Vec<Item>, format: Format, context: &Context) -> Result<String, CliError> {
    let paint = context.screen.paint;
    let table = |width| {
        let now = now();
        containers::table(&items, width, now, paint) + &containers::attention(&items, now, paint)
    };
    Ok(match format {
        Format::Table => table(Width::Normal),
        Format::Wide => table(Width::Wide),
        Format::Json => yaml::json(&List { api_version: API_VERSION.to_owned(), kind: "List".to_owned(), items })?,
        Format::Yaml => yaml::documents(&items)?,
        Format::Name => items.iter().map(name).collect(),
    })
}

fn name(item: &Item) -> String {
    format!("{}/{}/{}\n", item.kind, item.metadata.namespace, item.metadata.name)
}

/// The items as they are, then a line for each that changes.
async fn watch(
    client: &Client,
    args: &Args,
    targets: &[Target],
    items: &[Item],
    context: &Context,
) -> Result<Exit, CliError> {
    let wanted = |item: &Item| {
        let same = |known: &Item| {
            known.metadata.name == item.metadata.name && known.metadata.namespace == item.metadata.namespace
        };
        targets.is_empty() || items.iter().any(same)
    };
    let namespace = if targets.is_empty() { args.namespace() } else { None };
    let mut lines = client.watch(namespace, &args.selector).await?;
    let screen = &context.screen;
    let mut heading = true;
    while let Some(item) = lines.next_json::<Item>().await? {
        if !wanted(&item) {
            continue;
        }
        let line = match args.output {
            Format::Table | Format::Wide => {
                let now = now();
                let width = if args.output == Format::Wide { Width::Wide } else { Width::Normal };
                let one = std::slice::from_ref(&item);
                let line = containers::watched(one, width, heading, now, screen.paint);
                heading = false;
                if item.status.phase == REMOVED { line } else { line + &containers::attention(one, now, screen.paint) }
            }
            Format::Json => yaml::json_line(&item)?,
            Format::Yaml => format!("---\n{}", yaml::document(&item)?),
            Format::Name => name(&item),
        };
        screen.put(&line)?;
    }
    Ok(Exit::Ok)
}
