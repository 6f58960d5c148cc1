//! What the agent itself has to say, for its operator.

use std::io;
use tokio::sync::mpsc;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

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

/// Logs to the journal with a field for each thing (`PLIMSOLL_OBJECT=`, `PLIMSOLL_REASON=`), where standard
/// error leads there (systemd.exec(5), JOURNAL_STREAM), else to standard error.
pub fn to_stderr(format: LogFormat, colours: bool, default: &str) {
    if format == LogFormat::Text
        && is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal.with_field_prefix(Some("PLIMSOLL".to_owned())).with_syslog_identifier("plim".to_owned());
        return tracing_subscriber::registry().with(journal.with_filter(filter(default))).init();
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter(default)).with_writer(io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(colours).init(),
    }
}

/// Whether what is written to standard error comes into the journal.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = rustix::fs::fstat(io::stderr());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
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
