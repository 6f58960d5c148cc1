//! A program's standard streams over an upgraded connection.

use super::error::ErrorBody;
use super::frame::{self, Frame, MAX_PAYLOAD, PROTOCOL};
use crate::agent::ExecSession;
use axum::body::Body;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, watch};

/// How long output may stay away after the program's end before no more is expected: a child that
/// it left behind may hold its standard output open for ever, and a terminal passes on what was
/// written to it with a delay.
const QUIET: Duration = Duration::from_millis(50);
/// Frames on their way to the client.
const BACKLOG: usize = 4;
/// What ends input on a terminal (termios(3), `VEOF`).
const END_OF_TRANSMISSION: u8 = 4;

/// The connection to take over, if the request asks for that.
pub(super) fn upgrade(parts: &mut Parts) -> Result<OnUpgrade, ErrorBody> {
    let asked = parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes() == PROTOCOL.as_bytes());
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| asked);
    upgrade.ok_or_else(|| ErrorBody::invalid(format!("exec needs a connection with `Upgrade: {PROTOCOL}`")))
}

/// Takes the connection over and runs the session on it.
pub(super) fn answer(upgrade: OnUpgrade, session: ExecSession) -> Response {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                if let Err(error) = run(session, TokioIo::new(connection)).await {
                    tracing::debug!(error = %error, "an exec session ended early");
                }
            }
            Err(error) => tracing::debug!(error = %error, "a connection for exec did not come about"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
}

/// Passes bytes to and fro until the program or the connection ends. The program of a lost
/// connection goes on, and meets the end of its input and nobody at its output.
pub(super) async fn run<C>(session: ExecSession, connection: C) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let ExecSession { stdin, stdout, stderr, exit, .. } = session;
    let terminal = stderr.is_none();
    let (from_client, mut to_client) = tokio::io::split(connection);
    let (frames, mut waiting) = mpsc::channel::<Frame>(BACKLOG);
    let (ended, has_ended) = watch::channel(false);

    let stdin = writer(stdin)?;
    let input = tokio::spawn(input(from_client, stdin, terminal));
    let out = tokio::spawn(output(reader(stdout)?, Frame::Stdout, frames.clone(), has_ended.clone()));
    let err = match stderr {
        Some(stderr) => Some(tokio::spawn(output(reader(stderr)?, Frame::Stderr, frames.clone(), has_ended))),
        None => None,
    };
    let end = async move {
        // An error: the keeper went away, and nobody will know.
        let code = exit.await.unwrap_or(125);
        ended.send_replace(true);
        // The pumps do not panic; if one did, what it had sent is still right.
        drop(out.await);
        if let Some(err) = err {
            drop(err.await);
        }
        // Fails when the client is gone, which the writer below has noticed.
        drop(frames.send(Frame::Exit(code)).await);
    };
    let write = async {
        while let Some(frame) = waiting.recv().await {
            frame::write(&mut to_client, &frame).await?;
        }
        to_client.shutdown().await
    };
    let stop_input = input.abort_handle();
    let result = tokio::select! {
        ((), written) = async { tokio::join!(end, write) } => written,
        _ = input => Ok(()),
    };
    stop_input.abort();
    result
}

/// Frames of the client to the program. Ends when the client goes away.
async fn input<R: AsyncRead + Unpin>(mut from: R, stdin: Sender, terminal: bool) {
    let mut stdin = Some(stdin);
    // A frame that makes no sense ends the session like a lost connection.
    while let Ok(Some(frame)) = frame::read(&mut from).await {
        match (frame, &mut stdin) {
            (Frame::Stdin(bytes), Some(to)) => {
                // The program closed its input; whatever else comes for it is dropped.
                if to.write_all(&bytes).await.is_err() && !terminal {
                    stdin = None;
                }
            }
            (Frame::StdinEof, Some(to)) if terminal => {
                // The terminal has gone with the program.
                drop(to.write_all(&[END_OF_TRANSMISSION]).await);
            }
            (Frame::StdinEof, _) => stdin = None,
            (Frame::Resize { rows, columns }, Some(to)) if terminal => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                // A terminal that has gone needs no size.
                let _gone = tcsetwinsize(&*to, size);
            }
            (Frame::Stdin(_) | Frame::Resize { .. }, _) => {}
            (Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_), _) => return,
        }
    }
}

/// What the program writes, as frames, until it has ended and no more comes.
async fn output(
    mut from: Receiver,
    frame: fn(Vec<u8>) -> Frame,
    to: mpsc::Sender<Frame>,
    mut ended: watch::Receiver<bool>,
) {
    let mut block = vec![0; MAX_PAYLOAD / 2];
    loop {
        let over = *ended.borrow();
        let count = tokio::select! {
            count = from.read(&mut block) => count,
            _ = ended.wait_for(|ended| *ended), if !over => continue,
            () = tokio::time::sleep(QUIET), if over => return,
        };
        match count {
            // EIO is how a terminal says that nobody has it open any more (pty(7)).
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.send(frame(block[..count].to_vec())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The reading end of a pipe, or a terminal's master: both are read in the same way.
fn reader(fd: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd_unchecked(nonblocking(fd)?)
}

/// As [`reader`], for writing.
fn writer(fd: OwnedFd) -> io::Result<Sender> {
    Sender::from_owned_fd_unchecked(nonblocking(fd)?)
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::tcgetwinsize;
    use std::io::{Read as _, Write as _};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_terminal_gets_its_size_its_keys_and_its_end() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let mut program = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
        let (ended, exit) = oneshot::channel();
        let session =
            ExecSession { pid: 0, exec: 0, stdin: master.try_clone().unwrap(), stdout: master, stderr: None, exit };
        let (mut client, server) = tokio::io::duplex(256);
        let running = tokio::spawn(run(session, server));

        frame::write(&mut client, &Frame::Resize { rows: 40, columns: 132 }).await.unwrap();
        frame::write(&mut client, &Frame::Stdin(b"hello\n".to_vec())).await.unwrap();
        let program = tokio::task::spawn_blocking(move || {
            let mut line = [0; 6];
            program.read_exact(&mut line).unwrap();
            let size = tcgetwinsize(&program).unwrap();
            program.write_all(format!("{}x{} {}", size.ws_row, size.ws_col, line[0]).as_bytes()).unwrap();
            drop(program);
            ended.send(130).unwrap();
        });
        let mut shown = Vec::new();
        let code = loop {
            match frame::read(&mut client).await.unwrap() {
                Some(Frame::Stdout(bytes)) => shown.extend(bytes),
                Some(Frame::Exit(code)) => break code,
                other => panic!("{other:?}"),
            }
        };

        program.await.unwrap();
        running.await.unwrap().unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.ends_with("40x132 104"), "{shown:?}");
        assert_eq!(code, 130);
    }
}
