//! Bytes of a stream → records of the CRI log format.
//!
//! One record is `<RFC 3339 time> <stream> F <text>`. A line longer than [`LONGEST`] becomes several
//! records with `P` (partial) for all but its last. Bytes that are not UTF-8 stay as they are.

/// The most text that one record holds.
const LONGEST: usize = 16 << 10;

/// Splits one stream into records and holds the beginning of a line that has not ended.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    begun: Vec<u8>,
}

impl Lines {
    pub fn new(stream: &'static str) -> Self {
        Self { stream, begun: Vec::new() }
    }

    /// Goes on with the beginning of a line that another program has read.
    pub fn resume(stream: &'static str, begun: Vec<u8>) -> Self {
        Self { stream, begun }
    }

    pub fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Appends a record to `out` for every line that `chunk` ends; returns how many.
    pub fn split(&mut self, mut chunk: &[u8], time: &str, out: &mut Vec<u8>) -> u64 {
        let mut records = 0;
        loop {
            let room = LONGEST.saturating_sub(self.begun.len());
            // One more than fits: a newline there ends a line of exactly the longest length.
            let window = &chunk[..chunk.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.record("F", &chunk[..end], time, out);
                chunk = &chunk[end + 1..];
            } else if chunk.len() > room {
                self.record("P", &chunk[..room], time, out);
                chunk = &chunk[room..];
            } else {
                self.begun.extend_from_slice(chunk);
                return records;
            }
            records += 1;
        }
    }

    /// The last line, when the stream ends without a newline.
    pub fn finish(&mut self, time: &str, out: &mut Vec<u8>) -> u64 {
        if self.begun.is_empty() {
            return 0;
        }
        self.record("F", &[], time, out);
        1
    }

    fn record(&mut self, tag: &str, text: &[u8], time: &str, out: &mut Vec<u8>) {
        for part in [time, " ", self.stream, " ", tag, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        // Gives the memory back: thousands of streams are quiet most of the time.
        out.extend_from_slice(&std::mem::take(&mut self.begun));
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let mut lines = Lines::new("stdout");
        let mut out = Vec::new();
        let mut records: u64 = chunks.iter().map(|chunk| lines.split(chunk, "T", &mut out)).sum();
        records += lines.finish("T", &mut out);
        let parsed: Vec<_> = out
            .split_inclusive(|byte| *byte == b'\n')
            .map(|record| {
                let text = record.strip_prefix(b"T stdout ").unwrap().strip_suffix(b"\n").unwrap();
                (char::from(text[0]).to_string(), text[2..].to_vec())
            })
            .collect();
        assert_eq!(u64::try_from(parsed.len()).unwrap(), records);
        parsed
    }

    fn whole(text: &[u8]) -> (String, Vec<u8>) {
        ("F".to_owned(), text.to_vec())
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(split(&[b"one\ntw", b"o", b"\n\nlast"]), [whole(b"one"), whole(b"two"), whole(b""), whole(b"last")]);
        assert_eq!(split(&[b"\xff\xfe\0\r\n"]), [whole(b"\xff\xfe\0\r")]);
        assert_eq!(split(&[b""]), []);
    }

    #[test]
    fn a_long_line_is_partial_until_its_end() {
        let exact = vec![b'x'; LONGEST];
        let longer = vec![b'x'; LONGEST + 1];

        assert_eq!(split(&[&exact, b"\n"]), [whole(&exact)]);
        assert_eq!(split(&[&longer, b"\n"]), [("P".to_owned(), exact), whole(b"x")]);
    }

    /// A piece of output: runs of one byte, some as long as a record, with and without newlines.
    fn chunk() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0..10_usize, Just(LONGEST - 1), Just(LONGEST), Just(LONGEST + 1), 0..3 * LONGEST];
        let run = (length, prop_oneof![any::<u8>(), Just(b'\n')]);
        // A run of newlines is as many lines, and a few of them say as much as thousands.
        let run = run.prop_map(|(length, byte)| vec![byte; if byte == b'\n' { length % 3 } else { length }]);
        prop::collection::vec(run, 0..6).prop_map(|runs| runs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_is_lost_and_nothing_is_too_long(chunks in prop::collection::vec(chunk(), 0..6)) {
            let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let mut text = Vec::new();
            for (tag, record) in split(&parts) {
                prop_assert!(record.len() <= LONGEST);
                text.extend_from_slice(&record);
                if tag == "F" {
                    text.push(b'\n');
                }
            }
            let mut sent = chunks.concat();
            if !sent.is_empty() && !sent.ends_with(b"\n") {
                sent.push(b'\n');
            }
            prop_assert_eq!(text, sent);
        }
    }
}
