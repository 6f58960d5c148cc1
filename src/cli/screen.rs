//! Where a command's words go: colours, widths, and what a terminal must not be told.

use super::exit::CliError;
use rustix::termios::tcgetwinsize;
use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Standard output is a terminal.
    pub terminal: bool,
    pub paint: Paint,
    /// The same for standard error.
    pub paint_errors: Paint,
    quiet: bool,
}

/// Whether text gets colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

/// What a piece of text is, rather than how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Paint {
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Screen {
    pub fn new(color: ColorChoice, quiet: bool) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let forced = variable("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let dumb = variable("TERM").is_none_or(|term| term == "dumb");
        let wanted = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            // https://no-color.org and https://bixense.com/clicolors
            ColorChoice::Auto if variable("NO_COLOR").is_some() => false,
            ColorChoice::Auto => forced || (terminal && !dumb),
        };
        let terminal = io::stdout().is_terminal();
        Self {
            terminal,
            paint: Paint(wanted(terminal)),
            paint_errors: Paint(wanted(io::stderr().is_terminal())),
            quiet,
        }
    }

    /// The answer: to standard output.
    pub fn put(&self, text: &str) -> Result<(), CliError> {
        self.put_bytes(text.as_bytes())
    }

    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::OutputClosed),
            Err(error) => Err(CliError::io("writing the answer", error)),
        }
    }

    /// Everything else: a line to standard error, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// A line to standard error, `--quiet` or not.
    pub fn complain(&self, text: &str) {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Rows and columns of the terminal, if it has any.
    pub fn size(&self) -> Option<(usize, usize)> {
        let size = tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
    }
}

/// Text that somebody else wrote, with its control characters escaped: a terminal would obey them.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| (c.is_control() && c != '\t') || is_bidi_control(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match u32::from(c) {
            _ if !harmful(c) => safe.push(c),
            code @ 0..=0xff => safe.push_str(&format!("\\x{code:02x}")),
            code => safe.push_str(&format!("\\u{{{code:x}}}")),
        }
    }
    Cow::Owned(safe)
}

/// Characters that change the direction of what follows, so that text reads as what it is not.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As [`printable`], on one line.
pub fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_what_a_container_wrote() {
        assert_eq!(printable("a\x1b]0;title\x07b\r\u{9b}31m"), "a\\x1b]0;title\\x07b\\x0d\\x9b31m");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("tab\tand ünïcode ✔"), "tab\tand ünïcode ✔");
        assert_eq!(one_line("two\n  lines\x1b"), "two lines\\x1b");
    }

    #[test]
    fn colours_come_only_where_they_are_wanted() {
        assert_eq!(Paint(false).tone(Tone::Bad, "no"), "no");
        assert_eq!(Paint(true).tone(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
    }
}
