//! A terminal of a container, joined to the one we were called from.
//!
//! For `run` and `exec -t` in the foreground without `--console-socket`: the child sends us the
//! terminal's master as it would send it to anybody else's socket, and we carry bytes both ways. Where
//! our standard input is no terminal its bytes go to the container all the same, and at its end the
//! container gets what a user would type for it.

use super::OciError;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::pty::OpenptFlags;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, OutputModes, SpecialCodeIndex, Termios};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Both ends of what the terminal comes over.
pub(super) struct Pair {
    ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

/// Our end of it.
pub(super) struct Socket(OwnedFd);

pub(super) struct Relay {
    master: OwnedFd,
    /// The container's end, held open: else each time nobody in the container has it open we would be
    /// woken without end.
    _peer: OwnedFd,
    /// How our own terminal was before.
    before: Option<Termios>,
    /// From standard input, on its way into the container.
    pending: Vec<u8>,
    input: Input,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

fn io(what: &str) -> impl FnOnce(Errno) -> OciError + '_ {
    move |errno| OciError::Io { what: what.to_owned(), source: errno.into() }
}

impl Pair {
    pub(super) fn new() -> Result<Self, OciError> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(io("making a socket pair"))?;
        Ok(Self { ours, theirs })
    }

    /// When the child has the other end: only its own is left then, and goes with it.
    pub(super) fn keep_ours(self) -> Socket {
        let Self { ours, theirs: _ } = self;
        Socket(ours)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// Takes the terminal that the child has sent, and puts our own into raw mode; nothing when the child has
    /// sent none and ended.
    pub(super) fn receive(self) -> Result<Option<Relay>, OciError> {
        let failed = || io("receiving the terminal");
        let mut byte = [0];
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut byte)];
        let received = rustix::net::recvmsg(&self.0, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC);
        if received.map_err(failed())?.bytes == 0 {
            return Ok(None);
        }
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = master.ok_or(Errno::BADMSG).map_err(failed())?;
        let open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, open).map_err(failed())?;
        let flags = rustix::fs::fcntl_getfl(&master).map_err(failed())?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(failed())?;
        let before = rustix::termios::tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // The container's terminal does not do it.
            raw.output_modes.insert(OutputModes::OPOST | OutputModes::ONLCR);
            rustix::termios::tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(io("changing the terminal"))?;
        }
        let relay = Relay { master, _peer: peer, before, pending: Vec::new(), input: Input::Open };
        relay.resize();
        Ok(Some(relay))
    }
}

/// A terminal that is joined to ours is as large as it from the beginning: a program that is told of a size
/// only when it runs already would take that for a change.
pub(super) fn begin_as_large_as_ours(terminal: &mut Option<(u16, u16)>) {
    let Some(size) = terminal else { return };
    if let Ok(ours) = rustix::termios::tcgetwinsize(stdin()) {
        *size = (ours.ws_row, ours.ws_col);
    }
}

impl Relay {
    /// What to wait for, beside the process and signals: the master, and standard input.
    pub(super) fn wait(&self) -> [PollFd<'_>; 2] {
        let out = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        // Nothing more is taken before the last has gone in.
        let take = self.pending.is_empty() && self.input == Input::Open;
        let source = if take { stdin() } else { self.master.as_fd() };
        let wanted = if take { PollFlags::IN } else { PollFlags::empty() };
        [PollFd::new(&self.master, PollFlags::IN | out), PollFd::from_borrowed_fd(source, wanted)]
    }

    /// Carries what there is, both ways.
    pub(super) fn carry(&mut self, input_is_there: bool) -> Result<(), OciError> {
        self.drain()?;
        if self.pending.is_empty() && self.input == Input::Open && input_is_there {
            let mut buffer = [0; 4096];
            match rustix::io::read(stdin(), &mut buffer) {
                Ok(0) => self.end_input(),
                Ok(count) => self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Its terminal has gone (tty_ioctl(4)): there is nobody to read from.
                Err(_) => self.end_input(),
            }
        }
        if !self.pending.is_empty() {
            match rustix::io::write(&self.master, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(io("writing to the container's terminal")(errno)),
            }
        }
        Ok(())
    }

    fn end_input(&mut self) {
        self.input = Input::Ended;
        if let Ok(modes) = rustix::termios::tcgetattr(&self.master) {
            self.pending.push(modes.special_codes[SpecialCodeIndex::VEOF]);
        }
    }

    /// What the container has written so far, to standard output.
    pub(super) fn drain(&self) -> Result<(), OciError> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.master, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => return Ok(()),
                Err(Errno::INTR) => {}
                Ok(count) => write(stdout(), buffer.get(..count).unwrap_or_default())?,
                Err(errno) => return Err(io("reading the container's terminal")(errno)),
            }
        }
    }

    /// The container's terminal becomes as large as ours.
    pub(super) fn resize(&self) {
        // Where we have none, the size of the configuration stays.
        if let Ok(size) = rustix::termios::tcgetwinsize(stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It may have gone, and then there is nothing to mend.
            let _ = rustix::termios::tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }
}

fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), OciError> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut wait = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                match rustix::event::poll(&mut wait, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(io("waiting for standard output")(errno)),
                }
            }
            Err(errno) => return Err(io("writing to standard output")(errno)),
        }
    }
    Ok(())
}
