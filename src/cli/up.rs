//! `plim up`.

use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::launch::{Launched, launch};
use super::live::{self, Live};
use super::logging::{self, LogFormat};
use super::render::events;
use super::screen::Screen;
use crate::agent::{Command, Event, Handle, KeeperBy, MaxDelete, Options, Which};
use crate::api::Access;
use crate::spec::Span;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// Run the containers of a directory in the foreground
///
/// Shows a live table, or a line per event where there is no terminal. Ctrl-C stops and removes
/// what runs, a second Ctrl-C kills it. After a crash or `kill -9` of this command everything goes
/// on, and the next one takes it over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo plim --root /tmp/try up manifests/")]
pub struct Args {
    /// Directories with manifests
    #[arg(required_unless_present = "manifests", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// A further directory with manifests; repeatable
    #[arg(long, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// How long what is left of a removed container is kept, to go on when its file comes back
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = super::orders::span)]
    keep_removed: Span,
    /// Everything is read and looked at again after this long, also when nothing is heard of a change
    #[arg(long, default_value = "40s", value_name = "TIME", value_parser = super::orders::span)]
    resync: Span,
}

/// How often the table is redrawn at most.
const REDRAW: Duration = Duration::from_millis(250);
/// How often it is looked at what is in use, and at what time it is.
const LOOK: Duration = Duration::from_secs(1);

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let dirs: Vec<PathBuf> = args.dirs.into_iter().chain(args.manifests).collect();
    for dir in &dirs {
        let metadata =
            std::fs::metadata(dir).map_err(|error| CliError::NotFound(format!("{}: {error}", dir.display())))?;
        if !metadata.is_dir() {
            return Err(CliError::Usage(format!("{} is not a directory", dir.display())));
        }
    }
    let screen = &context.screen;
    let live = screen.terminal && screen.size().is_some();
    let log = if live {
        Some(logging::to_channel("error"))
    } else {
        logging::to_stderr(LogFormat::Text, screen.paint_errors.0, "error");
        None
    };
    let signals = Signals::new().map_err(|error| CliError::io("handling signals", error))?;
    let access = Access { also: caller(), ..Access::default() };
    let options = Options {
        root: context.root.clone(),
        manifests: dirs,
        sources: Vec::new(),
        foreground: true,
        retention: args.keep_removed,
        // Whoever looks on need not wait long.
        deletion_grace: Span::from_secs(2),
        max_delete: MaxDelete::default(),
        resync: args.resync,
        cgroup_parent: None,
        keeper: KeeperBy::Us,
        halt: false,
        read_only_socket: None,
    };
    let Launched { handle, running, server, .. } = launch(options, None, access, None).await?;
    screen.put(&paste(context.root.as_deref()))?;

    let mut picture =
        Picture { context, live: live.then(Live::default), recent: Vec::new(), dirty: true, drawn: Instant::now() };
    let shown = show(&handle, &mut picture, log, signals, running.wait()).await;
    server.stop().await?;
    shown
}

/// The user who called sudo: it is that user's second terminal that the commands are typed in.
fn caller() -> Option<u32> {
    std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok())
}

/// What to paste into a second terminal, so that the commands there find this agent.
fn paste(root: Option<&Path>) -> String {
    let mut words = Vec::new();
    if let Some(root) = root.map(|root| root.canonicalize().unwrap_or_else(|_| root.to_path_buf())) {
        words.push(format!("PLIM_ROOT={}", quoted(&root.display().to_string())));
    }
    if let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        words.push(format!("PATH={}:$PATH", quoted(&dir.display().to_string())));
    }
    format!("In a second terminal:\n  export {}\n  plim get\n\n", words.join(" "))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What the person sees.
struct Picture<'a> {
    context: &'a Context,
    /// The table, until everything is being stopped; a line per event otherwise.
    live: Option<Live>,
    recent: Vec<Event>,
    dirty: bool,
    drawn: Instant,
}

impl Picture<'_> {
    /// A line that stays.
    fn say(&mut self, line: &str) -> Result<(), CliError> {
        let text = match &mut self.live {
            Some(live) => live.above(line),
            None => format!("{}\n", line.trim_end()),
        };
        tell(&self.context.screen, &text)
    }

    fn event(&mut self, event: Event) -> Result<(), CliError> {
        if self.live.is_none() {
            return tell(&self.context.screen, &events::line(&event, self.context.screen.paint));
        }
        self.recent.push(event);
        if self.recent.len() > live::EVENTS {
            self.recent.remove(0);
        }
        self.dirty = true;
        Ok(())
    }

    async fn draw(&mut self, handle: &Handle) -> Result<(), CliError> {
        let screen = &self.context.screen;
        let (Some(live), Some(size)) = (&mut self.live, screen.size()) else { return Ok(()) };
        if !self.dirty && self.drawn.elapsed() < LOOK {
            return Ok(());
        }
        let view = handle.view(Which::All, true).await;
        let text = live.redraw(live::lines(&view, &self.recent, size, now(), screen.paint));
        (self.dirty, self.drawn) = (false, Instant::now());
        if text.is_empty() { Ok(()) } else { tell(screen, &text) }
    }

    /// From now on a line per event: what is stopped, and how, is not to scroll out of a table.
    fn end_live(&mut self) -> Result<(), CliError> {
        match self.live.take() {
            Some(mut live) => tell(&self.context.screen, &live.erase()),
            None => Ok(()),
        }
    }
}

/// A reader that has gone, such as the `tee` that the same Ctrl-C has ended, is no reason to leave what
/// was started behind.
fn tell(screen: &Screen, text: &str) -> Result<(), CliError> {
    match screen.put(text) {
        Err(CliError::OutputClosed) => Ok(()),
        result => result,
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: signal(SignalKind::hangup())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Shows what happens until the agent has left.
async fn show(
    handle: &Handle,
    picture: &mut Picture<'_>,
    mut log: Option<mpsc::UnboundedReceiver<String>>,
    mut signals: Signals,
    left: impl Future<Output = ()>,
) -> Result<Exit, CliError> {
    let mut left = pin!(left);
    let mut changes = handle.changes.clone();
    let (past, mut events) = handle.events(0);
    let mut last = 0;
    for event in past {
        last = event.id;
        picture.event(event)?;
    }
    let mut ticks = tokio::time::interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut stops = 0_u32;
    loop {
        tokio::select! {
            () = &mut left => break,
            () = signals.next() => {
                stops += 1;
                picture.end_live()?;
                picture.say(match stops {
                    1 => "Stopping everything; once more kills what does not stop.",
                    _ => "Killing everything.",
                })?;
                let (handle, answers) = (handle.clone(), answers.clone());
                tokio::spawn(async move {
                    let answer = handle.command(Command::StopAll { kill: stops > 1 }, 0).await;
                    // Nobody listens when the agent has left already.
                    drop(answers.send(answer));
                });
            }
            Some(answer) = answered.recv() => match answer {
                Ok(text) => picture.say(&text)?,
                // The agent was leaving already.
                Err(_) if stops > 1 => {}
                Err(error) => picture.say(&error.to_string())?,
            },
            event = events.recv() => match event {
                Ok(event) => {
                    last = event.id;
                    picture.event(event)?;
                }
                Err(RecvError::Lagged(_)) => {
                    let (missed, live) = handle.events(last);
                    events = live;
                    for event in missed {
                        last = event.id;
                        picture.event(event)?;
                    }
                }
                Err(RecvError::Closed) => {
                    (&mut left).await;
                    break;
                }
            },
            line = next_line(&mut log) => picture.say(&super::screen::printable(&line))?,
            changed = changes.changed() => match changed {
                Ok(()) => picture.dirty = true,
                // The agent is leaving.
                Err(_) => {
                    (&mut left).await;
                    break;
                }
            },
            _ = ticks.tick(), if picture.live.is_some() => picture.draw(handle).await?,
        }
    }
    picture.end_live()?;
    while let Ok(event) = events.try_recv() {
        picture.event(event)?;
    }
    while let Ok(answer) = answered.try_recv() {
        if let Ok(text) = answer {
            picture.say(&text)?;
        }
    }
    Ok(if stops > 0 { Exit::Ok } else { Exit::Failed })
}

async fn next_line(log: &mut Option<mpsc::UnboundedReceiver<String>>) -> String {
    if let Some(receiver) = log
        && let Some(line) = receiver.recv().await
    {
        return line;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_pasted_survives_a_shell() {
        assert_eq!(quoted("/srv/plim-1.x"), "/srv/plim-1.x");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        let text = paste(Some(Path::new("/nowhere/at all")));
        assert!(text.contains("export PLIM_ROOT='/nowhere/at all' PATH="), "{text}");
    }
}
