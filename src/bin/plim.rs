//! The agent and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Other tools call this, with a command line of its own.
    if std::env::args_os().nth(1).is_some_and(|word| word == "oci") {
        return plimsoll::oci::main(std::env::args_os().skip(2), Some(plimsoll::oci::from_manifest)).into();
    }
    // The agent calls this: the one process of it that talks to servers.
    if std::env::args_os().nth(1).is_some_and(|word| word == plimsoll::fetch::VERB) {
        return plimsoll::fetch::run();
    }
    plimsoll::cli::run()
}
