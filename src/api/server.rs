//! The socket and the server behind it.

use super::agent::Agent;
use super::peer::{self, GROUP, Peer, PeerListener};
use super::routes::{self, State};
use super::socket;
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
    #[error("serving the API")]
    Serve(#[source] io::Error),
}

/// Who may use the socket beside root, the agent's own user and the group `plimsoll`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access {
    /// The user who called sudo for an agent in the foreground, and could do so for every command.
    pub also: Option<u32>,
}

/// Opens the agent's socket: mode 0660, of the group `plimsoll` where that exists. A socket that an
/// earlier agent left is replaced; that there is only one agent is the caller's affair.
pub fn listen(path: &Path, access: Access) -> Result<UnixListener, ApiError> {
    let failed = |source| ApiError::Listen { path: path.to_path_buf(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let (address, _directory) = socket::address(path).map_err(failed)?;
    let listener = UnixListener::bind(&address).map_err(failed)?;
    let group = nix::unistd::Group::from_name(GROUP).ok().flatten();
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
    let router = routes::router(State { agent, leaving: leaving.clone() })
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
