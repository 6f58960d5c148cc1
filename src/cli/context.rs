//! What every verb has: the agent's socket and the screen.

use super::screen::Screen;
use crate::api::Client;
use crate::spec::Timestamp;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub struct Context {
    /// `--root` or `PLIM_ROOT`.
    pub root: Option<PathBuf>,
    pub screen: Screen,
}

impl Context {
    pub fn client(&self) -> Client {
        client(self.root.as_deref())
    }
}

/// Speaks to the agent of this root.
pub fn client(root: Option<&Path>) -> Client {
    let socket = match root {
        Some(root) => root.join("run/plim.sock"),
        None => PathBuf::from("/run/plimsoll/plim.sock"),
    };
    Client::new(&socket)
}

pub fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
