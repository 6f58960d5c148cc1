//! Messages over a unix seqpacket socket.
//!
//! A packet is one byte that says where the JSON is, and then the JSON itself if it is short. A long
//! one is in a sealed memfd, the packet's first descriptor: no size limit of the socket applies, and
//! the sender cannot change it any more while it is read.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longer JSON goes by memfd.
const INLINE: usize = 8 << 10;
/// No message of ours comes near this; a hostile one is refused before anything is allocated.
const LONGEST: usize = 8 << 20;
/// The payload, three standard streams, a filter.
const MOST_DESCRIPTORS: usize = 5;

const IN_PACKET: u8 = b'p';
const IN_MEMFD: u8 = b'm';

/// A message ready to be sent, perhaps several times.
#[derive(Debug)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    payload: Option<OwnedFd>,
}

impl Packet {
    pub fn new(value: &impl Serialize) -> io::Result<Self> {
        let mut bytes = vec![IN_PACKET];
        serde_json::to_writer(&mut bytes, value)?;
        if bytes.len() <= INLINE {
            return Ok(Self { bytes, payload: None });
        }
        let payload = sealed("plim-message", &bytes[1..])?;
        Ok(Self { bytes: vec![IN_MEMFD], payload: Some(payload) })
    }

    /// One that another program has made: its bytes, and its payload if it has one.
    pub fn from_parts(bytes: Vec<u8>, payload: Option<OwnedFd>) -> Self {
        Self { bytes, payload }
    }

    pub fn parts(&self) -> (&[u8], Option<BorrowedFd<'_>>) {
        (&self.bytes, self.payload.as_ref().map(AsFd::as_fd))
    }

    /// Sends it with further descriptors. `EAGAIN` on a non-blocking socket with a slow reader.
    pub fn send(&self, socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut all: Vec<BorrowedFd<'_>> = Vec::with_capacity(MOST_DESCRIPTORS);
        all.extend(self.payload.as_ref().map(AsFd::as_fd));
        all.extend_from_slice(descriptors);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(Errno::TOOBIG);
        }
        let flags = SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &[IoSlice::new(&self.bytes)], &mut control, flags))
            .map(|_| ())
    }
}

/// A packet as it came in.
#[derive(Debug)]
pub(super) struct Received {
    json: Vec<u8>,
    /// What came beside the payload.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a packet is not a message of ours. The connection is of no use after it.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the other side has closed the connection")]
    Closed,
    #[error("receiving a message")]
    Receive(#[source] Errno),
    #[error("a message with too many descriptors or too long for a packet")]
    Oversized,
    #[error("a message of unknown kind")]
    UnknownKind,
    #[error("a message whose memory is not sealed")]
    NotSealed,
    #[error("a message of {0} bytes")]
    TooLong(u64),
    #[error("reading a message's memory")]
    Payload(#[source] Errno),
}

impl Received {
    /// Takes one packet off the socket; `None` when a non-blocking one has none.
    pub fn from(socket: BorrowedFd<'_>) -> Result<Option<Self>, WireError> {
        let mut bytes = [0_u8; INLINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(WireError::Closed),
            Err(errno) => return Err(WireError::Receive(errno)),
        };
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        // An empty packet reads like the end of the stream (unix(7)); we send none.
        let Some((kind, inline)) = bytes[..received.bytes].split_first() else {
            return Err(WireError::Closed);
        };
        if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
            return Err(WireError::Oversized);
        }
        let json = match *kind {
            IN_PACKET => inline.to_vec(),
            IN_MEMFD if !descriptors.is_empty() => read_sealed(&descriptors.remove(0), LONGEST)?,
            _ => return Err(WireError::UnknownKind),
        };
        Ok(Some(Self { json, descriptors }))
    }

    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

/// A memfd that nobody can change any more.
pub(super) fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 the flag is unknown; after it, a host may refuse memfds without.
    let memfd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&memfd, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
    Ok(memfd)
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// What is in sealed memory, if it is not longer than `longest`.
pub(super) fn read_sealed(memfd: &OwnedFd, longest: usize) -> Result<Vec<u8>, WireError> {
    // A descriptor of any other kind has no seals (EINVAL), so nothing that blocks is ever read.
    let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| WireError::NotSealed)?;
    if !seals.contains(SEALS) {
        return Err(WireError::NotSealed);
    }
    let size = rustix::fs::fstat(memfd).map_err(WireError::Payload)?.st_size;
    let length = usize::try_from(size).ok().filter(|length| *length <= longest);
    let length = length.ok_or(WireError::TooLong(size.unsigned_abs()))?;
    let mut json = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let offset = u64::try_from(filled).expect("within a file's size");
        match rustix::io::pread(memfd, &mut json[filled..], offset).map_err(WireError::Payload)? {
            0 => break,
            count => filled += count,
        }
    }
    json.truncate(filled);
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .unwrap()
    }

    fn send_raw(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); 4096];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        for length in [0, 100, INLINE - 3, INLINE, 1 << 20] {
            let (ours, theirs) = pair();
            let text = "x".repeat(length);
            let null = std::fs::File::open("/dev/null").unwrap();

            Packet::new(&text).unwrap().send(ours.as_fd(), &[null.as_fd(), null.as_fd()]).unwrap();
            let received = Received::from(theirs.as_fd()).unwrap().unwrap();

            assert_eq!(received.parse::<String>().unwrap(), text);
            assert_eq!(received.descriptors.len(), 2);
        }
    }

    #[test]
    fn memory_without_seals_and_other_descriptors_are_refused() {
        let memfd = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        for descriptor in [&memfd, &reader] {
            let (ours, theirs) = pair();

            send_raw(&ours, &[IN_MEMFD], &[descriptor.as_fd()]);

            assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::NotSealed)));
        }
    }

    #[test]
    fn too_long_too_many_and_unknown_are_refused() {
        let sparse = rustix::fs::memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&sparse, 1 << 40).unwrap();
        rustix::fs::fcntl_add_seals(&sparse, SEALS).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); 100];
        let (ours, theirs) = pair();

        send_raw(&ours, &[IN_MEMFD], &[sparse.as_fd()]);
        send_raw(&ours, b"p{}", &many);
        send_raw(&ours, &vec![b'p'; INLINE + 1], &[]);
        send_raw(&ours, b"?", &[]);
        send_raw(&ours, &[IN_MEMFD], &[]);

        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::TooLong(_))));
        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::Oversized)));
        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::Oversized)));
        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::UnknownKind)));
        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::UnknownKind)));
        assert!(Received::from(theirs.as_fd()).unwrap().is_none());
        drop(ours);
        assert!(matches!(Received::from(theirs.as_fd()), Err(WireError::Closed)));
    }
}
