//! Who is at the other end of a connection, by the kernel's word, and who may be.

use super::error::ErrorBody;
use super::server::Access;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Members of this group may use the socket beside root, where it exists and no other is named.
pub(super) const GROUP: &str = "plimsoll";

/// The caller, as it was when it connected (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub uid: u32,
    gid: u32,
}

/// Accepts connections and notes whose they are.
pub(super) struct PeerListener(pub UnixListener);

impl Listener for PeerListener {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            let accepted = self.0.accept().await.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream)));
            match accepted {
                Ok((who, stream)) => return (stream, Peer { uid: who.uid(), gid: who.gid() }),
                Err(error) => {
                    tracing::warn!(error = %error, "accepting a connection failed");
                    // Out of descriptors, most likely: trying at once would only spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() })
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        *stream.remote_addr()
    }
}

/// Answers only those who may ask.
pub(super) async fn check(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid == 0 || peer.uid == own || Some(peer.uid) == access.also {
        return next.run(request).await;
    }
    // The databases of users and groups may be on a network.
    let group = access.group().to_owned();
    let member = tokio::task::spawn_blocking(move || is_member(peer, &group)).await;
    if member.unwrap_or(false) {
        return next.run(request).await;
    }
    let (uid, group) = (peer.uid, access.group());
    let message = format!("user {uid} may not talk to this agent: be root, or a member of the group {group}");
    ErrorBody::forbidden(message).into_response()
}

fn is_member(peer: Peer, group: &str) -> bool {
    let Ok(Some(group)) = nix::unistd::Group::from_name(group) else { return false };
    if group.gid.as_raw() == peer.gid {
        return true;
    }
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(peer.uid));
    matches!(user, Ok(Some(user)) if group.mem.contains(&user.name))
}
