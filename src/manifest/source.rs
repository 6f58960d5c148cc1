//! A file's text and the way from an offset to line and column.

use super::{Diagnostic, MAX_FILE_BYTES, Severity};
use std::ops::Range;

/// The text of one file.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    /// What is added to each offset in it, so that offsets of several texts keep apart.
    base: usize,
}

/// A longer line is not repeated below a message: it is no line that a person wrote.
const MAX_EXCERPT_BYTES: usize = 500;

impl<'a> Source<'a> {
    /// Errors are of the file as a whole: too large, or not UTF-8.
    pub(super) fn new(file: &'a str, bytes: &'a [u8]) -> Result<Self, Box<Diagnostic>> {
        if bytes.len() > MAX_FILE_BYTES {
            let message = format!("the file has {} bytes, more than the {MAX_FILE_BYTES} that are read", bytes.len());
            let source = Self { file, text: "", lines: vec![0], base: 0 };
            return Err(Box::new(source.diagnostic(0..0, message)));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::of(file, text)),
            Err(error) => {
                let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
                let source = Self::of(file, valid);
                let at = valid.len();
                let byte = bytes.get(at).copied().unwrap_or_default();
                let utf16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
                let help = if utf16 { "the file is UTF-16: save it as UTF-8" } else { "save the file as UTF-8" };
                Err(Box::new(
                    source.diagnostic(at..at, format!("the byte 0x{byte:02x} here is not UTF-8")).with_help(help),
                ))
            }
        }
    }

    fn of(file: &'a str, text: &'a str) -> Self {
        let after_break = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, lines: std::iter::once(0).chain(after_break).collect(), base: 0 }
    }

    /// The same text behind others.
    pub(super) fn at(self, base: usize) -> Self {
        Self { base, ..self }
    }

    /// Where offsets of the next text may begin.
    pub(super) fn end(&self) -> usize {
        // An offset behind the last byte is still of this text.
        self.base + self.text.len() + 1
    }

    /// For messages.
    pub(super) fn name(&self) -> &'a str {
        self.file
    }

    pub(super) fn base(&self) -> usize {
        self.base
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Where the text begins, after a byte order mark.
    pub(super) fn start(&self) -> usize {
        if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
    }

    /// The line of `offset`, from 0.
    fn line_index(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The line of `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.line_index(offset.saturating_sub(self.base)) + 1).unwrap_or(u32::MAX)
    }

    /// An error about the text in `range`.
    pub(super) fn diagnostic(&self, range: Range<usize>, message: impl Into<String>) -> Diagnostic {
        let floor = |at: usize| {
            let mut at = at.saturating_sub(self.base).min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let at = floor(range.start);
        let index = self.line_index(at);
        let begin = self.lines.get(index).copied().unwrap_or_default().max(if index == 0 { self.start() } else { 0 });
        let at = at.max(begin);
        let line = self.text[begin..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let start = (at - begin).min(line.len());
        // A value of several lines is marked on its first one.
        let end = (floor(range.end).max(at) - begin).min(line.trim_end().len()).max(start);
        let column = line[..start].chars().count() + 1;
        Diagnostic::new(
            Severity::Error,
            self.file,
            (self.line(self.base + at), u32::try_from(column).unwrap_or(u32::MAX)),
            message.into(),
            (line.len() <= MAX_EXCERPT_BYTES).then(|| (line.to_owned(), start..end)),
        )
    }
}
