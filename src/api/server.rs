//! The socket and the server behind it.

use super::agent::Agent;
use super::peer::{self, GROUP, Peer, PeerListener};
use super::routes::State;
use super::{Rights, socket, table};
use rustix::fs::{AtFlags, CWD, Mode, chmodat};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("listening on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("giving {} its mode and group", path.display())]
    Mode {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the socket {} is for the group {group}, which is not there: make it, or name another one", path.display())]
    NoGroup { path: PathBuf, group: String },
    #[error("serving the API")]
    Serve(#[source] io::Error),
}

/// Who may use a socket beside root and the agent's own user, and for what.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Members of this group; of `plimsoll`, where that exists, when none is named.
    pub group: Option<String>,
    pub rights: Rights,
    /// The user who called sudo for an agent in the foreground, and could do so for every command.
    pub also: Option<u32>,
}

impl Access {
    pub(super) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }
}

/// Opens a socket: mode 0660, of the group that may use it. A socket that an
/// earlier agent left is replaced; that there is only one agent is the caller's affair.
pub fn listen(path: &Path, access: &Access) -> Result<UnixListener, ApiError> {
    let failed = |source| ApiError::Listen { path: path.to_path_buf(), source };
    let group = nix::unistd::Group::from_name(access.group()).ok().flatten();
    if let (None, Some(group)) = (&group, &access.group) {
        return Err(ApiError::NoGroup { path: path.to_path_buf(), group: group.clone() });
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let (address, _directory) = socket::address(path).map_err(failed)?;
    let listener = UnixListener::bind(&address).map_err(failed)?;
    let owned = match (access.also, group.map(|group| group.gid.as_raw())) {
        (None, None) => Ok(()),
        (user, group) => std::os::unix::fs::chown(path, user, group),
    };
    let mode = Mode::from_raw_mode(0o660);
    let chmod = || chmodat(CWD, path, mode, AtFlags::empty()).map_err(io::Error::from);
    owned.and_then(|()| chmod()).map_err(|source| ApiError::Mode { path: path.to_path_buf(), source })?;
    Ok(listener)
}

/// How long answers that have begun may take once the agent leaves.
const LINGER: Duration = Duration::from_secs(2);

/// Serves until `shutdown` resolves; streams are ended then, and short answers finished.
pub async fn serve<A: Agent>(
    agent: A,
    listener: UnixListener,
    access: Access,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    let (leave, leaving) = watch::channel(false);
    let router = table::router(State { agent, leaving: leaving.clone() }, access.rights)
        .layer(axum::middleware::from_fn_with_state(access, peer::check));
    let service = router.into_make_service_with_connect_info::<Peer>();
    let mut stopped = leaving.clone();
    let server = axum::serve(PeerListener(listener), service).with_graceful_shutdown(async move {
        shutdown.await;
        leave.send_replace(true);
    });
    let overdue = async move {
        // An error means that the server has ended, and took the sender with it.
        if stopped.wait_for(|leaving| *leaving).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        served = server => served.map_err(ApiError::Serve),
        () = overdue => Ok(()),
    }
}
