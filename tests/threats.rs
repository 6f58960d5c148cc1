//! What the crate says about those who might do harm, and the tests that it names for it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TEXT: &str = include_str!("../src/threats.md");

/// The sentences, each in one line.
fn bullets() -> Vec<String> {
    let mut bullets: Vec<String> = Vec::new();
    let mut within = false;
    for line in TEXT.lines() {
        if let Some(first) = line.strip_prefix("- ") {
            bullets.push(first.to_owned());
            within = true;
        } else if line.is_empty() {
            within = false;
        } else if within {
            let last = bullets.last_mut().unwrap();
            last.push(' ');
            last.push_str(line.trim());
        }
    }
    bullets
}

/// What stands between backquotes and could be the name of a test.
fn named(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

/// The functions below a directory that are marked as tests.
fn tests(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut marked = false;
            for line in fs::read_to_string(&path).unwrap().lines().map(str::trim) {
                let function = line.trim_start_matches("async ").strip_prefix("fn ");
                if let Some((name, _)) = function.filter(|_| marked).and_then(|rest| rest.split_once('(')) {
                    found.insert(name.to_owned());
                }
                // Other attributes may stand between the mark and the function.
                marked = line.starts_with("#[test]")
                    || line.starts_with("#[tokio::test")
                    || (marked && line.starts_with('#'));
            }
        }
    }
}

#[test]
fn every_sentence_about_who_might_do_harm_names_tests_that_exist() {
    let mut known = BTreeSet::new();
    for dir in ["src", "tests"] {
        tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut known);
    }
    let bullets = bullets();
    assert!(bullets.len() > 30, "the text has lost its sentences: {}", bullets.len());

    for bullet in bullets {
        let tests = named(&bullet);
        assert!(!tests.is_empty(), "no test shows that: {bullet}");
        assert!(bullet.ends_with(").") && !bullet.trim_end_matches('.').contains(". "), "not one sentence: {bullet}");
        for test in tests {
            assert!(known.contains(test), "there is no test {test}, which shows that: {bullet}");
        }
    }
}
