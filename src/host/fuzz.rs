//! Whatever stands in a manifest: it is a script or a diagnostic, and never a panic.

use super::blueprint::{Prepared, blueprint};
use crate::manifest::{self, Content};
use crate::sandbox::{CgroupJoin, CgroupView, Overlay, Root, script};
use crate::spec::{IdRange, InstanceId};
use crate::storage::ResolvedUser;
use proptest::prelude::*;

const FULL: &str = include_str!("../../tests/manifest/full.yaml");

/// As the agent does it, up to where the host would be changed.
fn build(text: &[u8]) {
    let content = manifest::read("full.yaml", text, &[]);
    for document in content.documents {
        let object = match document.content {
            Content::Valid(object) => object,
            Content::Invalid { diagnostics, .. } => {
                assert!(!diagnostics.is_empty());
                diagnostics.iter().for_each(|diagnostic| assert!(!diagnostic.to_string().is_empty()));
                continue;
            }
        };
        let instance = InstanceId::new(&object.id, 1);
        let user = ResolvedUser { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() };
        let overlay = Overlay { lower: vec!["/l".to_owned()], upper: "/u".to_owned(), work: "/w".to_owned() };
        let prepared = Prepared {
            instance: &instance,
            root: Root::Overlay { base: overlay, grafts: Vec::new() },
            ids: Some(IdRange { base: 1 << 20, size: IdRange::SIZE }),
            user: &user,
            cgroup: CgroupJoin { unified: None, v1: Vec::new() },
            cgroup_view: CgroupView::Nothing,
            capabilities: object.spec.security.capabilities.mask(),
            seccomp: true,
        };
        if let Ok(script) = script(&blueprint(&object.spec, prepared)) {
            assert!(!script.to_string().is_empty());
        }
    }
}

const WORDS: [&str; 16] = [
    "null",
    "{}",
    "[]",
    "-1",
    "1e99",
    "~",
    "\"",
    "0x",
    "*a",
    "&a ",
    "!!x ",
    "/../x",
    "99999999999999999999",
    "\t",
    "---\n",
    ": ",
];

proptest! {
    #[test]
    fn a_changed_manifest_is_a_script_or_a_diagnostic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, prop::sample::select(&WORDS[..])), 1..4)
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, length, word) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, word.chars());
        }
        build(text.into_iter().collect::<String>().as_bytes());
    }

    #[test]
    fn a_changed_value_is_a_script_or_a_diagnostic(line in any::<prop::sample::Index>(), value in "[ -~]{0,20}") {
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        let line = line.index(lines.len());
        if let Some((name, _)) = lines[line].clone().split_once(": ") {
            lines[line] = format!("{name}: {value}");
        }
        build(lines.join("\n").as_bytes());
    }

    #[test]
    fn bytes_are_a_diagnostic(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut text = FULL.as_bytes().to_vec();
        let at = at.index(text.len());
        text.splice(at..at, bytes);
        build(&text);
    }
}
