//! Plimsoll holds a Linux host at the line its owner has drawn.
pub mod agent;
pub mod api;
pub mod cgroup;
pub mod cli;
pub mod host;
pub mod image;
pub mod keeper;
pub mod manifest;
pub mod plan;
pub mod sandbox;
pub mod source;
pub mod spec;
pub mod storage;
pub mod store;
pub mod sys;
