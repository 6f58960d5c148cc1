//! The OCI command line as other programs call it, on the real kernel.

mod config;
mod fixture;
mod lifecycle;
mod symbols;
