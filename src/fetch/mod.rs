//! Talks to git servers, in a process of its own that can do nothing else.
//!
//! What a server sends is taken apart by a child of the agent that is nobody: another user, without
//! capabilities, with bounds on its memory, files and time, in a directory that holds nothing but a copy of the
//! repository ([`privileges`]). It is told what to do on its standard input, secrets included, so that none is in
//! an argument or the environment, and answers with the files of one commit ([`Answer`]). The agent believes it no
//! more than it would a manifest.
//!
//! The copy is bare, and as shallow as it was when it was made: it holds what came since. There is no work
//! tree, nothing is checked out, no hook and no configuration of the host's git is read. Losing it costs a
//! download.
//!
//! # What is verified
//!
//! With `allowedSigners`, a revision is used when its commit is signed with a key that the file names for the
//! namespace `git` and for the time that the commit gives as its own (gitformat-signature(5), the section
//! "ALLOWED SIGNERS" of ssh-keygen(1)); of a signed tag the tag's signature counts too. With `every: true` the same
//! holds for each commit since the last revision that was used. A branch whose new head does not
//! come after the last one was rewritten, and waits for consent.

mod allowed;
mod order;
mod privileges;
mod repository;
mod signed;
mod start;
mod tree;
mod url;

pub use allowed::{AllowedSigners, SignerProblem};
pub use order::{Answer, Login, Order, Reference, Refusal, Ssh, Verify};
pub use privileges::{USER, fetcher};
pub use start::{FetchError, Fetching, fetch};
pub use url::check_url;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// The process that the agent starts for it: `plim` with this as its only argument.
pub const VERB: &str = "fetch-for-agent";

/// Is that process.
pub fn run() -> ExitCode {
    let answer = match prepared() {
        Ok(order) => repository::fetch(&order, Path::new(".")),
        Err(reason) => Answer::Failed { reason },
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match answer.write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // The agent has gone, or has heard enough.
        Err(_) => ExitCode::FAILURE,
    }
}

fn prepared() -> Result<Order, String> {
    // First of all: nothing that came from elsewhere is looked at before.
    privileges::drop_all().map_err(|error| format!("giving up privileges: {error}"))?;
    let order = Order::read(io::stdin().lock()).map_err(|error| format!("reading the order: {error}"))?;
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(order)
}
