//! `plim exec`.

use super::completion::names;
use super::context::Context;
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::terminal::{self, Raw};
use crate::agent::ExecRequest;
use crate::api::frame::{self, Frame};
use crate::api::{self, ClientError};
use crate::spec::User;
use std::io::{self, IsTerminal as _};
use tokio::io::AsyncWrite;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run a program inside a running container
///
/// Standard input is passed on with -i only. Returns the program's exit code; 125 when it could not
/// be run at all, 126 when it is no program, 127 when it was not found.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim exec web -- /bin/ps aux\n  plim exec -it web -- /bin/sh")]
pub struct Args {
    /// Pass standard input on
    #[arg(long, short)]
    interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// A variable for its environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Where it starts; the container's workingDir when not given
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it; the container's user when not given
    #[arg(long, short, value_name = "USER")]
    user: Option<User>,
    /// The namespace, `default` when not given
    #[arg(long, short)]
    namespace: Option<String>,
    /// The container
    #[arg(add = names())]
    name: String,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What podman returns when it could not even try, when the program cannot be executed, and when
/// there is none.
const NOT_RUN: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NO_PROGRAM: u8 = 127;

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match session(args, context).await {
        Ok(exit) => Ok(exit),
        Err(error @ CliError::Usage(_)) => Err(error),
        Err(error) => {
            context.screen.complain(&format!("plim: {}", error.explain()));
            Ok(Exit::Program(match &error {
                CliError::Client(ClientError::Answer(body)) if body.reason == api::NOT_EXECUTABLE => NOT_EXECUTABLE,
                CliError::Client(ClientError::Answer(body)) if body.reason == api::NO_SUCH_PROGRAM => NO_PROGRAM,
                _ => NOT_RUN,
            }))
        }
    }
}

async fn session(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        return Err(CliError::Usage("-t with -i needs a terminal as standard input: leave -t out to pipe".to_owned()));
    }
    let client = context.client();
    let object = Target::parse(&args.name)?.resolve(&client, args.namespace.as_deref(), Match::Exact).await?;
    let mut env = args.env;
    if args.tty
        && !env.iter().any(|pair| pair.starts_with("TERM="))
        && let Ok(term) = std::env::var("TERM")
    {
        env.push(format!("TERM={term}"));
    }
    let request = ExecRequest { object, argv: args.command, tty: args.tty, env, cwd: args.workdir, user: args.user };
    let connection = client.exec(&request).await?;
    let raw = if args.tty && args.interactive {
        Some(Raw::new().map_err(|error| CliError::io("preparing the terminal", error))?)
    } else {
        None
    };
    let exit = talk(connection, args.interactive, args.tty).await;
    drop(raw);
    exit
}

/// Passes input, output and the terminal's size on until the program ends.
async fn talk<C>(connection: C, interactive: bool, tty: bool) -> Result<Exit, CliError>
where
    C: tokio::io::AsyncRead + AsyncWrite + Send + 'static,
{
    let failed = |error| CliError::io("handling signals", error);
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let mut ends = Ends::new().map_err(failed)?;
    let (mut from, mut to) = tokio::io::split(connection);
    let sending = tokio::spawn(async move {
        let mut input = interactive.then(terminal::input);
        if !interactive && !tty {
            // It is not to wait for input that will not come.
            frame::write(&mut to, &Frame::StdinEof).await?;
        }
        if tty {
            send_size(&mut to).await?;
        }
        let result: io::Result<()> = loop {
            let sent = tokio::select! {
                block = next(&mut input) => match block {
                    Some(block) => frame::write(&mut to, &Frame::Stdin(block)).await,
                    None => {
                        input = None;
                        frame::write(&mut to, &Frame::StdinEof).await
                    }
                },
                _ = resized.recv(), if tty => send_size(&mut to).await,
            };
            if sent.is_err() {
                // The reader below meets the same end of the connection, and says so.
                break sent;
            }
        };
        result
    });
    let exit = loop {
        tokio::select! {
            frame = frame::read(&mut from) => match frame {
                Ok(Some(Frame::Stdout(bytes))) => pass(io::stdout().lock(), &bytes)?,
                Ok(Some(Frame::Stderr(bytes))) => pass(io::stderr().lock(), &bytes)?,
                Ok(Some(Frame::Exit(code))) => break Ok(Exit::Program(u8::try_from(code).unwrap_or(NOT_RUN))),
                Ok(Some(Frame::Stdin(_) | Frame::StdinEof | Frame::Resize { .. })) | Ok(None) => {
                    break Err(CliError::Failed("the agent ended the connection; the program may go on".to_owned()));
                }
                Err(error) => break Err(CliError::Failed(format!("the connection to the agent broke: {error}"))),
            },
            signal = ends.next() => break Ok(Exit::Program(signal)),
        }
    };
    sending.abort();
    exit
}

/// Signals that end us; the terminal is put back first.
struct Ends {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (hangup, terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
        Ok(Self { hangup, terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// 128 and the signal's number, once one comes.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.hangup.recv() => 129,
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

/// The next block of input; for ever nothing where none is passed on.
async fn next(input: &mut Option<tokio::sync::mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn send_size<W: AsyncWrite + Unpin>(to: &mut W) -> io::Result<()> {
    match terminal::size() {
        Some((rows, columns)) => frame::write(to, &Frame::Resize { rows, columns }).await,
        None => Ok(()),
    }
}

fn pass(mut to: impl io::Write, bytes: &[u8]) -> Result<(), CliError> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::OutputClosed),
        result => result.map_err(|error| CliError::io("passing output on", error)),
    }
}
