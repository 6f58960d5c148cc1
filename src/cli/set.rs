//! `plim set resources`: limits by a person's word.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::orders::span;
use super::suspend::order;
use crate::agent::Command;
use crate::spec::{Bytes, Count, Cpu, CpuSet, Io, Memory, MilliCpu, Pids, Resources, Span, Weight};

/// Set limits of a container above those of its manifest
///
/// Written to the kernel at once, the process does not notice. The order is recorded with who, when and
/// why, shown by `plim get`, and holds until its time is over or `--reset` takes it back. What is not
/// named follows the manifest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim set resources web --memory 1Gi --cpu 2 --for 2h --reason 'a big import'")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Resources(Box<ResourcesArgs>),
}

/// Limits, as in the manifest
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim set resources web --memory 1Gi --cpu 2 --for 2h --reason 'a big import'")]
struct ResourcesArgs {
    /// The container
    #[arg(add = names())]
    name: String,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// `cpu.limit`: 1.5, 200m
    #[arg(long)]
    cpu: Option<MilliCpu>,
    /// `cpu.weight`: 1 to 10000
    #[arg(long, value_parser = number::<Weight>)]
    cpu_weight: Option<Weight>,
    /// `cpu.cpuset`: 0-3,6
    #[arg(long, value_parser = cpus)]
    cpuset: Option<CpuSet>,
    /// `memory.limit`: 512Mi
    #[arg(long)]
    memory: Option<Bytes>,
    /// `memory.high`
    #[arg(long)]
    memory_high: Option<Bytes>,
    /// `memory.swap`
    #[arg(long)]
    swap: Option<Bytes>,
    /// `pids.limit`
    #[arg(long, value_parser = number::<Count>)]
    pids: Option<Count>,
    /// `io.weight`: 1 to 10000
    #[arg(long, value_parser = number::<Weight>)]
    io_weight: Option<Weight>,
    /// Take it all back
    #[arg(long, conflicts_with_all = ["cpu", "cpu_weight", "cpuset", "memory", "memory_high", "swap", "pids", "io_weight"])]
    reset: bool,
    /// Why, for whoever wonders later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Follow the manifest again after this time: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: Option<Span>,
}

fn number<T: TryFrom<i64>>(text: &str) -> Result<T, String>
where
    T::Error: std::fmt::Display,
{
    let number: i64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    T::try_from(number).map_err(|error| error.to_string())
}

fn cpus(text: &str) -> Result<CpuSet, String> {
    CpuSet::try_from(text.to_owned()).map_err(|error| error.to_string())
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let What::Resources(args) = args.what;
    let ResourcesArgs {
        name,
        namespace,
        cpu,
        cpu_weight,
        cpuset,
        memory,
        memory_high,
        swap,
        pids,
        io_weight,
        reset,
        reason,
        span,
    } = *args;
    let resources = Resources {
        cpu: Cpu { limit: cpu, weight: cpu_weight, cpuset, mems: None },
        memory: Memory { limit: memory, high: memory_high, low: None, min: None, swap },
        pids: Pids { limit: pids },
        io: Io { weight: io_weight, limits: Vec::new() },
        ..Resources::default()
    };
    if resources == Resources::default() && !reset {
        return Err(CliError::Usage("nothing to set: name a limit, as in --memory 1Gi, or --reset".to_owned()));
    }
    let object = Target::parse(&name)?.resolve(&context.client(), namespace.as_deref(), Match::Exact).await?;
    let until = span.map(|span| now().after(span));
    order(&Command::SetResources { object, resources: Box::new(resources), reason, until }, context).await
}
