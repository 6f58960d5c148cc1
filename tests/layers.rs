//! The order of modules: each imports only from those before it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on says why")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the purest to the outermost.
const ORDER: [&str; 17] = [
    "spec", "manifest", "plan", "sys", "cgroup", "sandbox", "keeper", "image", "storage", "source", "store", "host",
    "fetch", "agent", "api", "cli", "oci",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of this crate that a text names: `crate::NAME`, also in groups `crate::{a::…, b}`.
fn named(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_u32;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' | ':' if depth == 0 => names.push(std::mem::take(&mut name)),
                    c if depth == 0 && (c.is_alphanumeric() || c == '_') => name.push(c),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn no_module_imports_from_one_further_out() {
    let rank: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();

    for (module, own) in &rank {
        let dir = src.join(module);
        if !dir.is_dir() {
            continue;
        }
        let mut files = Vec::new();
        sources(&dir, &mut files);
        for file in files {
            for name in named(&fs::read_to_string(&file).unwrap()) {
                if rank.get(name.as_str()).is_some_and(|other| other > own) {
                    wrong.push(format!("{} imports {name}", file.strip_prefix(&src).unwrap().display()));
                }
            }
        }
    }

    assert!(wrong.is_empty(), "against the order:\n{}", wrong.join("\n"));
}

#[test]
fn every_directory_of_src_has_its_place_in_the_order() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");

    let dirs = fs::read_dir(&src).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let unknown: Vec<String> = dirs
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != "bin" && !ORDER.contains(&name.as_str()))
        .collect();

    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn unsafe_stands_only_in_sys() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);

    let outside: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| !file.starts_with(src.join("sys")))
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or("");
                ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"].iter().any(|word| code.contains(word))
            })
        })
        .collect();

    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn every_test_that_a_table_of_rules_names_is_there() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        sources(&base.join(dir), &mut files);
    }
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut missing = Vec::new();

    for table in ["src/source/rules.md", "src/sandbox/threats.md"] {
        let table = fs::read_to_string(base.join(table)).unwrap();
        for row in table.lines().filter(|line| line.starts_with("| ")) {
            let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
            for name in tests.split('`').skip(1).step_by(2) {
                if !text.contains(&format!("fn {name}(")) {
                    missing.push(name.to_owned());
                }
            }
        }
    }

    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
