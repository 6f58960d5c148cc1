//! How state and descriptors get through an `execve`.
//!
//! They wait in a socket of which the next program gets one end as its standard input: the state in a
//! sealed memfd first, then every descriptor in the order of its number. Nothing else stays open, no
//! descriptor is known by a bare number, and when the program cannot be executed all that has to be
//! undone is to let go of the socket.

use super::state::{STATES, Slot, State, Version};
use super::wire::{WireError, read_sealed, sealed};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As many as one message takes (`SCM_MAX_FD`, unix(7)).
const AT_ONCE: usize = 253;
/// A message of a socket costs its memory, whatever is in it; this holds a thousand of them.
const ROOM: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("receiving what the former program left")]
    Receive(#[source] Errno),
    #[error("the former program left nothing")]
    Nothing,
    #[error("reading the state: {0}")]
    Memory(String),
    #[error("a state of version {found}; this program knows {} to {}", STATES.0, STATES.1)]
    Version { found: u32 },
    #[error("the state cannot be read")]
    Content(#[from] serde_json::Error),
    #[error("descriptor {0} is missing")]
    Missing(Slot),
}

/// Descriptors in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Packing<'a> {
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Packing<'a> {
    /// Adds a descriptor; its number is for the state.
    pub fn put(&mut self, fd: BorrowedFd<'a>) -> Slot {
        self.descriptors.push(fd);
        self.descriptors.len() - 1
    }

    /// The end of a socket in which everything waits.
    pub fn send(self, state: &State) -> io::Result<OwnedFd> {
        let memory = sealed("plim-state", &serde_json::to_vec(state)?)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Beyond the host's limit, as far as we may; what does not fit fails below, before anything is lost.
        let _ = sockopt::set_socket_send_buffer_size_force(&ours, ROOM);
        send(&ours, &[memory.as_fd()])?;
        for some in self.descriptors.chunks(AT_ONCE) {
            send(&ours, some)?;
        }
        Ok(theirs)
    }
}

fn send(socket: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(b"d")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What a former program has left.
#[derive(Debug)]
pub(super) struct Unpacking {
    descriptors: Vec<Option<OwnedFd>>,
}

impl Unpacking {
    pub fn receive(socket: BorrowedFd<'_>) -> Result<(State, Self), HandoverError> {
        let memory = receive(socket)?.pop().ok_or(HandoverError::Nothing)?;
        let text = read_sealed(&memory, usize::MAX);
        let text = text.map_err(|error: WireError| HandoverError::Memory(error.to_string()))?;
        let Version { version } = serde_json::from_slice(&text)?;
        if !(STATES.0..=STATES.1).contains(&version) {
            return Err(HandoverError::Version { found: version });
        }
        let state = serde_json::from_slice(&text)?;
        let mut descriptors = Vec::new();
        loop {
            let some = receive(socket)?;
            if some.is_empty() {
                return Ok((state, Self { descriptors }));
            }
            descriptors.extend(some.into_iter().map(Some));
        }
    }

    pub fn take(&mut self, slot: Slot) -> Result<OwnedFd, HandoverError> {
        self.descriptors.get_mut(slot).and_then(Option::take).ok_or(HandoverError::Missing(slot))
    }
}

/// What is in one message; nothing after the last.
fn receive(socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, HandoverError> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags) {
        Ok(_) => {}
        Err(Errno::AGAIN) => return Ok(Vec::new()),
        Err(errno) => return Err(HandoverError::Receive(errno)),
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Read as _;

    fn state(version: u32) -> State {
        let state = json!({"version": version, "run": "/", "startTimeoutMs": 1, "descriptors": [null, null],
            "listener": 0, "next": 0, "containers": [], "execs": [], "connections": []});
        serde_json::from_value(state).unwrap()
    }

    #[test]
    fn a_thousand_descriptors_arrive_in_their_order() {
        let files: Vec<_> = (0..1000)
            .map(|number: u32| {
                let file = tempfile::tempfile().unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, number.to_string().as_bytes(), 0).unwrap();
                file
            })
            .collect();
        let mut packing = Packing::default();
        for file in &files {
            packing.put(file.as_fd());
        }

        let socket = packing.send(&state(STATES.1)).unwrap();
        let (_, mut unpacking) = Unpacking::receive(socket.as_fd()).unwrap();

        for number in 0..1000 {
            let mut text = String::new();
            std::fs::File::from(unpacking.take(number).unwrap()).read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
        assert!(matches!(unpacking.take(7), Err(HandoverError::Missing(7))));
        assert!(matches!(unpacking.take(1000), Err(HandoverError::Missing(1000))));
    }

    #[test]
    fn another_version_is_refused_before_anything_of_it_is_believed() {
        let socket = Packing::default().send(&state(STATES.1 + 1)).unwrap();

        assert!(matches!(Unpacking::receive(socket.as_fd()), Err(HandoverError::Version { .. })));
    }
}
