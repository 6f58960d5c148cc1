//! Whether the ids that containers get belong to somebody on this host already.

use crate::spec::IdRange;
use std::path::Path;

/// What else on this host claims ids from `base` on, `count` ranges of [`IdRange::SIZE`]: entries
/// of `/etc/subuid` and `/etc/subgid`, users and groups. One line each, for a person.
///
/// Entries in the name of `plimsoll` are our own reservation.
pub fn ids_conflicts(base: u32, count: u32) -> Vec<String> {
    conflicts_in(Path::new("/etc"), base, count)
}

fn conflicts_in(etc: &Path, base: u32, count: u32) -> Vec<String> {
    let first = u64::from(base);
    let end = first + u64::from(count) * u64::from(IdRange::SIZE);
    let mut conflicts = Vec::new();
    // A file that is missing or unreadable reserves nothing that we could know of.
    let read = |name: &str| std::fs::read(etc.join(name)).unwrap_or_default();

    for file in ["subuid", "subgid"] {
        for (owner, start, size) in lines(&read(file)).filter_map(|line| subordinate(&line)) {
            if owner != "plimsoll" && start < end && start.saturating_add(size) > first {
                conflicts.push(format!("{}/{file} gives {start} to {} to {owner}", etc.display(), start + size - 1));
            }
        }
    }
    for (file, what) in [("passwd", "user"), ("group", "group")] {
        for line in lines(&read(file)) {
            let mut fields = line.split(':');
            let (name, id) = (fields.next(), fields.nth(1).and_then(|id| id.parse::<u64>().ok()));
            if let (Some(name), Some(id)) = (name, id)
                && (first..end).contains(&id)
            {
                conflicts.push(format!("{what} {name} has the id {id}"));
            }
        }
    }
    conflicts
}

fn lines(content: &[u8]) -> impl Iterator<Item = String> {
    content.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).trim().to_owned())
}

fn subordinate(line: &str) -> Option<(String, u64, u64)> {
    let mut fields = line.split(':');
    let owner = fields.next()?.to_owned();
    let start: u32 = fields.next()?.trim().parse().ok()?;
    let size: u32 = fields.next()?.trim().parse().ok()?;
    (size > 0).then_some((owner, start.into(), size.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_named_and_neighbours_are_not() {
        let etc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(etc.path().join(name), text).unwrap();
        write(
            "subuid",
            "ann:100000:65536\nbob:1000000:65536\nplimsoll:1065536:65536\n# note\nbad:x:1\nzero:1000000:0\n",
        );
        write("subgid", "edge:934464:65536\nlast:1131072:10\n");
        write("passwd", "root:x:0:0::/:/bin/sh\ncarl:x:1000007:1::/:/bin/sh\n");
        write("group", "big:x:1131071:\nnext:x:1131072:\n");

        let found = conflicts_in(etc.path(), 1_000_000, 2);

        let text = found.join("\n");
        assert_eq!(found.len(), 3, "{text}");
        assert!(text.contains("subuid gives 1000000 to 1065535 to bob"), "{text}");
        assert!(text.contains("user carl has the id 1000007"), "{text}");
        assert!(text.contains("group big has the id 1131071"), "{text}");
    }

    #[test]
    fn a_host_without_the_files_has_no_conflicts() {
        let etc = tempfile::tempdir().unwrap();

        assert!(conflicts_in(etc.path(), 0, u32::MAX).is_empty());
    }
}
