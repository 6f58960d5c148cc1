//! Where in a JSON text an error is, in the words of who wrote the text: `linux.namespaces[0].type`.
//!
//! The parser knows a line and a column. Keeping the path while it parses would cost as much as
//! parsing, and a second parser for every type.

/// The path of the value that an error is about; `.` is all of it.
pub(super) fn of(text: &[u8], error: &serde_json::Error) -> String {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    // Errors of form count the byte that is wrong.
    let stop = before.saturating_add(error.column()).saturating_sub(usize::from(error.is_syntax()));
    let mut search = Search { text, at: 0, stop, path: Vec::new() };
    search.value();
    let mut path = String::new();
    for part in &search.path {
        if !path.is_empty() && !part.starts_with('[') {
            path.push('.');
        }
        path.push_str(part);
    }
    if path.is_empty() { ".".to_owned() } else { path }
}

/// Goes through a text up to where the parser has stopped.
struct Search<'a> {
    text: &'a [u8],
    at: usize,
    /// Just behind a value that is wrong, or before its first byte.
    stop: usize,
    path: Vec<String>,
}

impl Search<'_> {
    /// Goes to the end of a value; whether the parser has not come that far.
    fn value(&mut self) -> bool {
        match self.next() {
            _ if self.stop <= self.at => true,
            Some(b'{') => self.members(b'}', |search, _| Some(search.string())),
            Some(b'[') => self.members(b']', |_, index| Some(format!("[{index}]"))),
            Some(b'"') => {
                self.string();
                self.stop <= self.at
            }
            Some(_) => {
                let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",:]}".contains(byte);
                let length = self.rest().iter().position(is_end).unwrap_or(self.rest().len());
                // Whatever cannot be part of a value: the parser has not got past it.
                self.at += length;
                length == 0 || self.stop <= self.at
            }
            None => true,
        }
    }

    fn members(&mut self, end: u8, mut name: impl FnMut(&mut Self, usize) -> Option<String>) -> bool {
        self.at += 1;
        for index in 0.. {
            if self.next() == Some(end) {
                self.at += 1;
                return self.stop <= self.at;
            }
            if let Some(name) = name(self, index) {
                if end == b'}' && (self.stop <= self.at || self.next() != Some(b':')) {
                    return true;
                }
                self.at += usize::from(end == b'}');
                self.path.push(name);
            }
            if self.value() {
                return true;
            }
            self.path.pop();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == end => {}
                _ => return true,
            }
        }
        true
    }

    /// The text in quotes.
    fn string(&mut self) -> String {
        let mut is_escaped = false;
        let inner = self.rest().get(1..).unwrap_or_default();
        let length = inner.iter().position(|byte| {
            let ends = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        });
        let length = length.unwrap_or(inner.len());
        let text = String::from_utf8_lossy(inner.get(..length).unwrap_or_default()).into_owned();
        self.at += length + 2;
        text
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The first byte that is no blank.
    fn next(&mut self) -> Option<u8> {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.rest().first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, parse};

    #[test]
    fn a_mistake_is_told_with_its_place_however_the_text_is_laid_out() {
        let path = |text: &str| parse::<Config>(text.as_bytes()).unwrap_err().path;
        let start = r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "args": ["a", 1]}"#;

        assert_eq!(path(start), "process.args[1]");
        assert_eq!(path(&start.replace("1]", "[]]")), "process.args[1]");
        assert_eq!(path(&start.replace(", ", ",\n\t")), "process.args[1]");
        assert_eq!(path(&start.replace("\"a\", 1", "\"a\\\"]\", \"b\"").replace("/", "\\/")), "process");
        assert_eq!(path(&start.replace("\"1.0.0\"", "{ }")), "ociVersion");
        assert_eq!(path("[]"), ".");
        assert_eq!(path("{} x"), ".");
        assert_eq!(path(""), ".");
    }
}
