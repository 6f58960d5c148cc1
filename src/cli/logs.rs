//! `plim logs`.

use super::completion::names;
use super::context::{Context, now};
use super::exit::{CliError, Exit};
use super::names::{Match, Target};
use super::screen::{Screen, printable};
use crate::api::client::LogsRequest;
use crate::spec::{Span, Timestamp};

/// Print what a container has written
///
/// Control characters are escaped on a terminal and passed on as they are to a pipe.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim logs web -f -n 20\n  plim logs web --since 10m --timestamps")]
pub struct Args {
    /// The container
    #[arg(add = names())]
    name: String,
    /// The namespace, `default` when not given
    #[arg(long)]
    namespace: Option<String>,
    /// Go on with what is written from now on, through rotation and restarts
    #[arg(long, short)]
    follow: bool,
    /// Only what is younger: 10m, 2h, or an RFC 3339 instant
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Of the run before this one
    #[arg(long, short, conflicts_with = "follow")]
    previous: bool,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let since = args.since.as_deref().map(|text| instant(text, now())).transpose()?;
    let client = context.client();
    let id = Target::parse(&args.name)?.resolve(&client, args.namespace.as_deref(), Match::Prefix).await?;
    let wanted = LogsRequest { follow: args.follow, previous: args.previous, since, tail: args.tail };
    let mut lines = client.logs(&id, &wanted).await?;
    let mut begins = true;
    while let Some(record) = lines.next_line().await? {
        let Some(record) = Record::parse(&record) else { continue };
        let mut text = Vec::new();
        if args.timestamps && begins {
            text.extend(record.time);
            text.push(b' ');
        }
        text.extend(shown(record.text, &context.screen));
        begins = !record.partial;
        if begins {
            text.push(b'\n');
        }
        context.screen.put_bytes(&text)?;
    }
    Ok(Exit::Ok)
}

/// A length of time before `now`, or an instant.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    if let Ok(span) = Span::try_from(text.to_owned()) {
        return Ok(Timestamp(now.0.saturating_sub(span.0)));
    }
    Timestamp::try_from(text.to_owned())
        .map_err(|_| CliError::Usage(format!("{text:?} is not a time: write 10m, 2h or 2026-01-31T12:00:00Z")))
}

/// A record of a log: `<time> stdout F text`.
pub struct Record<'a> {
    time: &'a [u8],
    /// The line goes on in the next record.
    partial: bool,
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let mut parts = record.splitn(4, |byte| *byte == b' ');
        let (time, _stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { time, partial: tag == b"P", text: parts.next().unwrap_or_default() })
    }
}

/// The text as it may be shown: to a terminal nothing that it would obey.
fn shown(text: &[u8], screen: &Screen) -> Vec<u8> {
    if screen.terminal { printable(&String::from_utf8_lossy(text)).into_owned().into_bytes() } else { text.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_taken_apart_and_keeps_its_spaces() {
        let record = Record::parse(b"2026-01-01T00:00:00Z stdout F  two  spaces").unwrap();

        assert_eq!(
            (record.time, record.partial, record.text),
            (&b"2026-01-01T00:00:00Z"[..], false, &b" two  spaces"[..])
        );
        assert!(Record::parse(b"t stderr P half").unwrap().partial);
        assert_eq!(Record::parse(b"t stdout F").unwrap().text, b"");
        assert!(Record::parse(b"torn").is_none());
    }

    #[test]
    fn since_is_a_length_of_time_or_an_instant() {
        let now = Timestamp(10_000_000);

        assert_eq!(instant("10s", now).unwrap(), Timestamp(9_990_000));
        assert_eq!(instant("1970-01-01T00:00:01Z", now).unwrap(), Timestamp(1000));
        assert!(instant("yesterday", now).is_err());
    }
}
