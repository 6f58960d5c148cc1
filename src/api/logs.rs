//! The lines of a container's log, as they are in its files: `<RFC 3339 time> stdout F text`.
//!
//! The files belong to the keeper, which turns them over by renaming. A reader that follows holds
//! its file open, so nothing is lost when that is renamed: it reads it to its end, and goes on with
//! the one that comes after it in the list.

use super::agent::Agent;
use super::error::ErrorBody;
use super::routes::{State, left};
use super::stream::{self, Sink};
use crate::spec::{ObjectId, Timestamp};
use axum::response::Response;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How much is read at a time.
const BLOCK: usize = 64 << 10;

pub(super) struct Wanted {
    pub object: ObjectId,
    pub follow: bool,
    pub previous: bool,
    pub since: Option<Timestamp>,
    pub tail: Option<usize>,
}

pub(super) async fn answer<A: Agent>(state: State<A>, wanted: Wanted) -> Result<Response, ErrorBody> {
    let files = state.agent.log_files(&wanted.object, wanted.previous).await?;
    let (since, tail) = (wanted.since, wanted.tail);
    let opened = tokio::task::spawn_blocking(move || open(&files, since, tail)).await;
    let opened = opened.map_err(|error| ErrorBody::failed(error.to_string()))?;
    let readers = opened.map_err(|error| ErrorBody::failed(format!("reading the log: {error}")))?;
    let (sink, response) = stream::response("text/plain; charset=utf-8");
    tokio::spawn(send(state, wanted, readers, sink));
    Ok(response)
}

/// A file that is being read, and what of its last line is still missing its end.
struct Reader {
    file: File,
    inode: u64,
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode, rest: Vec::new() })
    }

    /// The whole lines of the next block; `None` at the end of what has been written so far.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut block = vec![0; BLOCK];
        let count = self.file.read(&mut block)?;
        if count == 0 {
            return Ok(None);
        }
        block.truncate(count);
        let mut lines = std::mem::take(&mut self.rest);
        lines.extend(block);
        let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = lines.split_off(end);
        Ok(Some(lines))
    }
}

/// Opens the files, oldest first, each at its first line that is wanted.
fn open(files: &[PathBuf], since: Option<Timestamp>, tail: Option<usize>) -> io::Result<VecDeque<Reader>> {
    let mut readers = VecDeque::new();
    let mut missing = tail;
    for path in files.iter().rev() {
        let mut reader = match Reader::open(path) {
            // It was turned over between the listing and here: the oldest one has gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            reader => reader?,
        };
        let old = since.is_some_and(|since| {
            let written = reader.file.metadata().and_then(|metadata| metadata.modified());
            written.is_ok_and(|at| Timestamp::from_system(at) < since)
        });
        let start = match (old, missing) {
            // It stays in the list: a reader that follows has to know where it is.
            (true, _) | (_, Some(0)) => reader.file.metadata()?.len(),
            (false, wanted) => {
                let (start, found) = first_wanted(&reader.file, since, wanted)?;
                missing = wanted.map(|wanted| wanted.saturating_sub(found));
                start
            }
        };
        reader.file.seek(SeekFrom::Start(start))?;
        readers.push_front(reader);
    }
    Ok(readers)
}

/// Where the last `tail` lines that are not older than `since` begin, and how many there are.
fn first_wanted(file: &File, since: Option<Timestamp>, tail: Option<usize>) -> io::Result<(u64, usize)> {
    if since.is_none() && tail.is_none() {
        return Ok((0, 0));
    }
    let mut lines = BufReader::with_capacity(BLOCK, file);
    let mut starts: VecDeque<u64> = VecDeque::new();
    let (mut at, mut line, mut begins) = (0_u64, Vec::new(), true);
    loop {
        line.clear();
        let count = lines.read_until(b'\n', &mut line)?;
        if count == 0 || line.last() != Some(&b'\n') {
            break;
        }
        // A long line is several records, all but the last marked `P`: it counts once.
        if begins && since.is_none_or(|since| time(&line).is_none_or(|at| at >= since)) {
            starts.push_back(at);
            if tail.is_some_and(|tail| starts.len() > tail) || (tail.is_none() && starts.len() > 1) {
                let _oldest = if tail.is_some() { starts.pop_front() } else { starts.pop_back() };
            }
        }
        begins = !is_partial(&line);
        at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok((starts.front().copied().unwrap_or(at), starts.len()))
}

/// When a record was written.
fn time(record: &[u8]) -> Option<Timestamp> {
    let word = record.split(|byte| *byte == b' ').next()?;
    Timestamp::try_from(str::from_utf8(word).ok()?.to_owned()).ok()
}

/// Whether the line goes on in the next record.
fn is_partial(record: &[u8]) -> bool {
    record.split(|byte| *byte == b' ').nth(2) == Some(b"P")
}

async fn send<A: Agent>(state: State<A>, wanted: Wanted, mut readers: VecDeque<Reader>, sink: Sink) {
    let mut last = None;
    while let Some(mut reader) = readers.pop_front() {
        if !drain(&mut reader, &sink).await {
            return;
        }
        last = Some(reader);
    }
    if wanted.follow {
        follow(state, &wanted.object, last, &sink).await;
    }
}

/// Sends what there is to read; `false` when nobody wants it any more or it cannot be read.
async fn drain(reader: &mut Reader, sink: &Sink) -> bool {
    loop {
        // Blocks of a local file, mostly from memory: not worth a thread each.
        match reader.next() {
            Ok(None) => return true,
            Ok(Some(lines)) => {
                if !sink.bytes(lines).await {
                    return false;
                }
            }
            Err(error) => {
                sink.fail(error).await;
                return false;
            }
        }
    }
}

async fn follow<A: Agent>(state: State<A>, object: &ObjectId, mut current: Option<Reader>, sink: &Sink) {
    let State { agent, mut leaving } = state;
    let mut changes = agent.changes();
    let mut newest: Option<PathBuf> = None;
    loop {
        let mut changed = false;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // A view may change often; the log is looked at no more often than it would be anyway.
            alive = changes.changed() => {
                if alive.is_err() {
                    return;
                }
                changed = true;
                tokio::time::sleep(LOOK).await;
            }
            () = left(&mut leaving) => return,
            () = sink.closed() => return,
        }
        if let Some(reader) = &mut current
            && !drain(reader, sink).await
        {
            return;
        }
        let moved = match (&current, &newest) {
            (Some(reader), Some(path)) => std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() != reader.inode),
            _ => true,
        };
        if !changed && !moved {
            continue;
        }
        // Between two runs there may be nothing to list: the next look will tell.
        let Ok(files) = agent.log_files(object, false).await else { continue };
        newest = files.last().cloned();
        if !catch_up(&mut current, &files, sink).await {
            return;
        }
    }
}

/// Goes on with every file that comes after the current one, or with the first of a new run.
async fn catch_up(current: &mut Option<Reader>, files: &[PathBuf], sink: &Sink) -> bool {
    let inode = |path: &PathBuf| std::fs::metadata(path).map(|metadata| metadata.ino()).ok();
    let here = current.as_ref().and_then(|reader| files.iter().position(|path| inode(path) == Some(reader.inode)));
    let after = here.map_or(0, |at| at + 1);
    for path in &files[after..] {
        // What was written between the last look and the change of files.
        if let Some(reader) = current.as_mut()
            && !drain(reader, sink).await
        {
            return false;
        }
        let Ok(mut reader) = Reader::open(path) else { continue };
        if !drain(&mut reader, sink).await {
            return false;
        }
        *current = Some(reader);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[PathBuf], since: Option<&str>, tail: Option<usize>) -> String {
        let since = since.map(|text| Timestamp::try_from(text.to_owned()).unwrap());
        let mut text = Vec::new();
        for mut reader in open(files, since, tail).unwrap() {
            while let Some(lines) = reader.next().unwrap() {
                text.extend(lines);
            }
        }
        String::from_utf8(text).unwrap()
    }

    fn files(texts: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let write = |(number, text): (usize, &&str)| {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, text).unwrap();
            path
        };
        let paths = texts.iter().enumerate().map(write).collect();
        (dir, paths)
    }

    const A: &str = "2026-01-01T00:00:01.000000000Z stdout F a\n2026-01-01T00:00:02.5Z stderr F b\n";
    const B: &str =
        "2026-01-01T00:00:03Z stdout P c\n2026-01-01T00:00:03Z stdout F d\n2026-01-01T00:00:04Z stdout F e\n";

    #[test]
    fn everything_is_read_oldest_first() {
        let (_dir, files) = files(&[A, B]);

        assert_eq!(read(&files, None, None), format!("{A}{B}"));
    }

    #[test]
    fn a_tail_goes_back_over_files_and_counts_a_split_line_once() {
        let (_dir, files) = files(&[A, B]);

        let three = read(&files, None, Some(3));
        let one = read(&files, None, Some(1));

        assert_eq!(three.lines().count(), 4, "{three}");
        assert!(three.starts_with("2026-01-01T00:00:02.5Z stderr F b"), "{three}");
        assert_eq!(one, "2026-01-01T00:00:04Z stdout F e\n");
        assert_eq!(read(&files, None, Some(0)), "");
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        let (_dir, files) = files(&[A, B]);

        assert!(read(&files, Some("2026-01-01T00:00:02.5Z"), None).starts_with("2026-01-01T00:00:02.5Z"));
        assert_eq!(read(&files, Some("2026-01-01T00:00:03Z"), None), B);
        assert_eq!(read(&files, Some("2026-01-01T00:00:03Z"), Some(1)), "2026-01-01T00:00:04Z stdout F e\n");
        assert_eq!(read(&files, Some("2036-01-01T00:00:00Z"), None), "");
    }

    #[test]
    fn a_record_without_its_end_waits_for_it() {
        let (_dir, files) = files(&["2026-01-01T00:00:01Z stdout F half"]);

        assert_eq!(read(&files, None, None), "");
    }

    #[test]
    fn a_file_that_has_gone_is_passed_over() {
        let (dir, mut files) = files(&[B]);
        files.insert(0, dir.path().join("gone"));

        assert_eq!(read(&files, None, None), B);
    }
}
