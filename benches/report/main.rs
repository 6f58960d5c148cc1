//! What it costs, as figures and ratios of one run: `make bench`, or `cargo bench -- NAME…` for some.
//!
//! Absolute times differ between machines and moments; each goal is therefore printed with what it
//! is measured against in the same run. Needs root, and a C compiler for the floor.

#![allow(clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "a program of its own, for a person")]

mod agent;
mod git;
mod idle;
mod noop;
mod oci;
mod resize;
mod start;
mod table;
mod thousand;

use table::Table;

type Bench = (&'static str, fn(&mut Table));

const ALL: [Bench; 8] = [
    ("start", start::bench),
    ("resize", resize::bench),
    ("cold", agent::bench),
    ("noop", noop::bench),
    ("idle", idle::bench),
    ("thousand", thousand::bench),
    ("git", git::bench),
    ("oci", oci::bench),
];

fn main() {
    // cargo passes --bench; everything else names benches.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut table = Table::default();
    for (name, bench) in ALL {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            eprintln!("measuring: {name}");
            bench(&mut table);
        }
    }
    print!("{table}");
}
