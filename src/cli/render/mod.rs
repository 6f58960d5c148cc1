//! What the agent shows, as text for a person. Pure: values and the time in, text out.

pub mod containers;
pub mod describe;
pub mod events;
pub mod plan;
pub mod sources;
pub mod status;
mod table;
mod units;

#[cfg(test)]
pub(super) mod samples;

pub use table::{Cell, Table};
pub use units::{age, bytes};
