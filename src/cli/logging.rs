//! What the agent itself has to say, for its operator.

use std::io;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is logged when `PLIM_LOG` does not say: `info` for a service, less for a person who sees
/// the events anyway.
fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env("PLIM_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// Logs to standard error.
pub fn to_stderr(format: LogFormat, colours: bool, default: &str) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(default)).with_writer(io::stderr);
    // The journal notes the time itself (systemd.exec(5), JOURNAL_STREAM).
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match (format, journal) {
        (LogFormat::Json, _) => builder.json().init(),
        (LogFormat::Text, true) => builder.with_ansi(false).without_time().init(),
        (LogFormat::Text, false) => builder.with_ansi(colours).init(),
    }
}

/// Logs to whoever reads the lines, so that they do not run through a table that is redrawn.
pub fn to_channel(default: &str) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tracing_subscriber::fmt().with_env_filter(filter(default)).with_ansi(false).with_writer(Lines(sender)).init();
    receiver
}

#[derive(Clone)]
struct Lines(mpsc::UnboundedSender<String>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A subscriber writes one whole line at a time. Nobody reads any more at the very end.
        drop(self.0.send(String::from_utf8_lossy(bytes).into_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
