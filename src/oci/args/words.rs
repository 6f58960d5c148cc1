//! The words of a command line, one after the other.

use super::UsageError;
use std::collections::VecDeque;

pub(super) struct Words {
    pub(super) rest: VecDeque<String>,
    /// What an error names.
    pub(super) command: String,
}

pub(super) enum Word {
    Option(String, Option<String>),
    Plain(String),
    End,
}

impl Words {
    pub(super) fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T, UsageError> {
        Err(UsageError(format!("{}: {what}", self.command)))
    }

    /// The value of an option, behind `=` or in the next word.
    pub(super) fn value(&mut self, name: &str, inline: Option<String>) -> Result<String, UsageError> {
        match inline.or_else(|| self.rest.pop_front()) {
            Some(value) => Ok(value),
            None => self.fail(format!("{name} takes a value")),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &str, inline: Option<String>) -> Result<T, UsageError> {
        let text = self.value(name, inline)?;
        text.parse().or_else(|_| self.fail(format!("{name}: {text:?} is not a number that fits")))
    }

    pub(super) fn flag(&self, name: &str, inline: Option<&str>) -> Result<bool, UsageError> {
        match inline {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => self.fail(format!("{name}: {other:?} is neither true nor false")),
        }
    }

    /// The next option, or the word that is none. `None` at the end.
    pub(super) fn next(&mut self) -> Option<Word> {
        let word = self.rest.pop_front()?;
        if word == "-" || !word.starts_with('-') {
            return Some(Word::Plain(word));
        }
        if word == "--" {
            return Some(Word::End);
        }
        Some(match word.split_once('=') {
            Some((name, value)) => Word::Option(dashes(name), Some(value.to_owned())),
            None => Word::Option(dashes(&word), None),
        })
    }

    /// Every option goes to `take`, all else is returned.
    pub(super) fn options(
        &mut self,
        mut take: impl FnMut(&mut Self, &str, Option<String>) -> Result<(), UsageError>,
    ) -> Result<Vec<String>, UsageError> {
        let mut plain = Vec::new();
        while let Some(word) = self.next() {
            match word {
                Word::Plain(word) => plain.push(word),
                Word::Option(name, inline) => take(self, &name, inline)?,
                Word::End => plain.extend(self.rest.drain(..)),
            }
        }
        Ok(plain)
    }

    pub(super) fn unknown<T>(&self, name: &str) -> Result<T, UsageError> {
        self.fail(format!("{name} is not an option"))
    }

    pub(super) fn none(&self, plain: &[String]) -> Result<(), UsageError> {
        plain.first().map_or(Ok(()), |word| self.fail(format!("{word:?} is one word too many")))
    }

    /// The container's id, and nothing else.
    pub(super) fn one(&self, plain: Vec<String>) -> Result<String, UsageError> {
        let mut plain = plain.into_iter();
        match (plain.next(), plain.next()) {
            (Some(id), None) => self.id(id),
            (None, _) => self.fail("the container's id is missing"),
            (Some(_), Some(word)) => self.fail(format!("{word:?} is one word too many")),
        }
    }

    /// It becomes the name of a directory.
    pub(super) fn id(&self, id: String) -> Result<String, UsageError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if !id.is_empty() && id.len() <= 255 && id.chars().all(fine) && !id.starts_with('.') {
            Ok(id)
        } else {
            self.fail(format!("{id:?} is not an id: letters, digits and _ + - . with no dot in front"))
        }
    }
}

/// One dash is as good as two, as programs written in Go have it.
fn dashes(name: &str) -> String {
    let bare = name.trim_start_matches('-');
    if bare.chars().count() == 1 { format!("-{bare}") } else { format!("--{bare}") }
}
