//! A message about a place in a file, as a compiler prints it.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The document is not used.
    Error,
    /// The document is used, without what this is about.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Words of the manifest stand between backquotes. No control characters.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line itself and the bytes of it that are meant; none when the line is too long to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excerpt: Option<(String, Range<usize>)>,
}

impl Diagnostic {
    pub(super) fn new(
        severity: Severity,
        file: &str,
        (line, column): (u32, u32),
        message: String,
        excerpt: Option<(String, Range<usize>)>,
    ) -> Self {
        Self { severity, file: file.to_owned(), line, column, message: printable(&message), help: None, excerpt }
    }

    pub(super) fn with_help(self, help: impl AsRef<str>) -> Self {
        Self { help: Some(printable(help.as_ref())), ..self }
    }

    pub(super) fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Several lines, with the line of the file and the place in it marked, without colours.
    pub fn render(&self) -> String {
        self.render_by(&Renderer::plain())
    }

    /// As [`Self::render`], with the escape sequences of a terminal.
    pub fn render_coloured(&self) -> String {
        self.render_by(&Renderer::styled())
    }

    fn render_by(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let line = usize::try_from(self.line).unwrap_or(usize::MAX);
        let mut group: Group<'_> = match &self.excerpt {
            Some((text, range)) => title.element(
                Snippet::source(text.as_str())
                    .line_start(line)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(range.clone())),
            ),
            None => {
                let column = usize::try_from(self.column).unwrap_or(usize::MAX);
                title.element(Origin::path(self.file.as_str()).line(line).char_column(column))
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// One line: `web.yaml:14:7: unknown field "memroy" (did you mean "memory"?)`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| text.replace('`', "\"");
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, quoted(&self.message))?;
        match &self.help {
            Some(help) => write!(f, " ({})", quoted(help)),
            None => Ok(()),
        }
    }
}

/// Text of a manifest may hold escape sequences for the terminal, and be a mebibyte long: then its
/// middle is left out, since what is wrong with it stands at the end.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    const HEAD_CHARS: usize = 100;
    let chars = text.chars().count();
    let gap = if chars > MAX_CHARS { HEAD_CHARS..chars - (MAX_CHARS - HEAD_CHARS) } else { 0..0 };
    let mut printable = String::with_capacity(text.len().min(MAX_CHARS * 4));
    for (at, c) in text.chars().enumerate() {
        if gap.contains(&at) {
            if at == gap.start {
                printable.push('…');
            }
        } else if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}
