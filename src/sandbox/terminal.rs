//! A terminal made inside a container.

use super::ops::NewLine;
use crate::sys::Errno;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Gid, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// Opens a new terminal of the container's devpts, makes it standard input, output and error and the
/// controlling terminal, and sends its master over `console`. Safe between `clone` and `exec`.
///
/// Nothing here believes a name in the container's `/dev`: the multiplexer is checked to be one, and
/// the terminal comes from it (`TIOCGPTPEER`), not from a path (CVE-2025-52565).
pub(super) fn open(
    console: BorrowedFd<'_>,
    rows: u16,
    columns: u16,
    owner: u32,
    new_line: NewLine,
) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = rustix::fs::openat2(CWD, c"/dev/pts/ptmx", flags, Mode::empty(), within)?;
    let stat = rustix::fs::fstat(&master)?;
    let is_multiplexer = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (5, 2)
        && rustix::fs::fstatfs(&master)?.f_type == DEVPTS_SUPER_MAGIC;
    if !is_multiplexer {
        return Err(Errno::NOTTY);
    }
    rustix::pty::unlockpt(&master)?;
    if new_line == NewLine::Bare {
        let mut modes = rustix::termios::tcgetattr(&master)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes)?;
    }
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    let terminal =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    // grantpt(3): the user owns it, and only members of its group (tty, 5) may write to it.
    rustix::fs::fchown(&terminal, Some(Uid::from_raw(owner)), None::<Gid>)?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    send(console, master.as_fd())
}

fn send(over: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fds = [fd];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    if !buffer.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(over, &[IoSlice::new(&[0])], &mut buffer, SendFlags::NOSIGNAL).map(drop)
}

/// statfs(2).
const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;
