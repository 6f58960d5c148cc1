//! The driver: it waits, calls the pure part, hands steps to the host. It decides nothing.

mod handle;
mod stand_in;
mod view;

pub use stand_in::{AgentError, Options, Running, run};

pub use handle::{Command, CommandError, ExecRequest, ExecSession, Handle, PlanReport, PlanRequest, PlannedChange};
pub use view::{
    Condition, ContainerStatus, Event, EventType, Generations, Item, List, Metadata, ResourcesView, SourceView,
    StatusSource, Summary, Usage, View,
};
