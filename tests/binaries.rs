//! What the small programs are made of: the keeper and the OCI runtime stay free of the agent's libraries.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::fs;

/// Crates by the name that their symbols carry.
const AGENTS: [&str; 9] =
    ["tokio", "sled", "hyper", "axum", "serde_yaml", "saphyr_parser", "notify", "schemars", "mio"];

/// The parts of an ELF file of this machine that are looked at (elf(5)).
struct Binary {
    bytes: Vec<u8>,
}

impl Binary {
    fn read(path: &str) -> Self {
        let bytes = fs::read(path).unwrap();
        // 64 bits, the least significant byte first.
        assert_eq!(bytes.get(..6), Some(&b"\x7fELF\x02\x01"[..]), "{path}");
        Self { bytes }
    }

    fn number(&self, at: usize, size: usize) -> usize {
        let bytes = self.bytes[at..at + size].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    /// Offset and size of every section of this type.
    fn sections(&self, wanted: usize) -> Vec<(usize, usize)> {
        let (table, size, count) = (self.number(0x28, 8), self.number(0x3a, 2), self.number(0x3c, 2));
        let headers = (0..count).map(|section| table + section * size);
        let wanted = headers.filter(|header| self.number(header + 4, 4) == wanted);
        wanted.map(|header| (self.number(header + 0x18, 8), self.number(header + 0x20, 8))).collect()
    }

    /// Every string in a table of strings: the names of symbols, and of libraries.
    fn strings(&self) -> Vec<String> {
        const STRTAB: usize = 3;
        let tables = self.sections(STRTAB);
        let text = tables.iter().flat_map(|(at, size)| self.bytes[*at..at + size].split(|byte| *byte == 0));
        text.map(|string| String::from_utf8_lossy(string).into_owned()).collect()
    }

    /// The shared libraries that it needs.
    fn libraries(&self) -> Vec<String> {
        const DYNAMIC: usize = 6;
        const NEEDED: usize = 1;
        let (at, size) = self.sections(DYNAMIC)[0];
        let entries = (at..at + size).step_by(16).filter(|entry| self.number(*entry, 8) == NEEDED);
        // The names are in the table that holds those of symbols that are linked when it runs, the first.
        let (names, _) = self.sections(3)[0];
        let name = |entry: usize| {
            let from = names + self.number(entry + 8, 8);
            let name = self.bytes[from..].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(name.to_vec()).unwrap()
        };
        entries.map(name).collect()
    }

    /// What is mapped when it runs, without what only debuggers read.
    fn mapped(&self) -> usize {
        const LOAD: usize = 1;
        let (table, size, count) = (self.number(0x20, 8), self.number(0x36, 2), self.number(0x38, 2));
        let headers = (0..count).map(|segment| table + segment * size);
        headers.filter(|header| self.number(*header, 4) == LOAD).map(|header| self.number(header + 0x28, 8)).sum()
    }

    /// Which of these crates have left a symbol.
    fn crates<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        let strings = self.strings();
        let has = |name: &&&str| {
            // As a path begins in either way of mangling: a length and the name, with no digit before.
            let (path, inner) = (format!("{}{name}", name.len()), format!("{name}.."));
            strings.iter().any(|string| {
                let begins = |at: usize| !string[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                // A function of the crate `sd_notify` is called like the crate `notify`.
                let numbered = |at: usize| {
                    !string[..at].ends_with(|c: char| c.is_ascii_digit()) && !string[..at].ends_with("sd_notify")
                };
                string.match_indices(&path).any(|(at, _)| numbered(at))
                    || string.match_indices(&inner).any(|(at, _)| begins(at))
            })
        };
        names.iter().filter(has).copied().collect()
    }
}

fn is_missing(library: &str, binary: &Binary) -> bool {
    !binary.libraries().iter().any(|needed| needed.starts_with(library))
}

#[test]
fn the_agent_has_what_this_test_looks_for() {
    let agent = Binary::read(env!("CARGO_BIN_EXE_plim"));
    if agent.crates(&["plimsoll"]).is_empty() {
        // Stripped, as releases are: nothing can be said of any of them.
        return;
    }

    for name in ["tokio", "sled", "hyper", "axum", "serde_yaml", "libseccomp"] {
        assert_eq!(agent.crates(&[name]), [name]);
    }
    assert!(!is_missing("libc.so", &agent), "{:?}", agent.libraries());
    assert!(!is_missing("libseccomp.so", &agent), "{:?}", agent.libraries());
}

#[test]
fn the_keeper_and_the_runtime_hold_none_of_the_agents_libraries() {
    for path in [env!("CARGO_BIN_EXE_plim-keeper"), env!("CARGO_BIN_EXE_plim-oci")] {
        assert_eq!(Binary::read(path).crates(&AGENTS), [""; 0], "{path}");
    }
}

#[test]
fn the_keeper_does_not_need_libseccomp() {
    let keeper = Binary::read(env!("CARGO_BIN_EXE_plim-keeper"));

    // Filters come to it compiled, so that a fault of the compiler is not one of the keeper.
    assert_eq!(keeper.crates(&["libseccomp", "libseccomp_sys"]), [""; 0]);
    assert!(is_missing("libseccomp.so", &keeper), "{:?}", keeper.libraries());
}

#[test]
fn they_are_small() {
    let [agent, keeper, runtime] =
        [env!("CARGO_BIN_EXE_plim"), env!("CARGO_BIN_EXE_plim-keeper"), env!("CARGO_BIN_EXE_plim-oci")]
            .map(Binary::read);
    // As releases are, which are optimized.
    let is_stripped = agent.crates(&["plimsoll"]).is_empty();
    let [agent, keeper, runtime] = [agent, keeper, runtime].map(|binary| binary.mapped());
    let (keepers, runtimes) = if is_stripped { (1_280 << 10, 2_560 << 10) } else { (6 << 20, 9 << 20) };

    assert!(keeper < keepers && keeper * 4 < agent, "{keeper} of {agent} bytes");
    // Its C library and libseccomp are in it.
    assert!(runtime < runtimes && runtime * 2 < agent, "{runtime} of {agent} bytes");
}

/// Tests take guards out by the one name, and have programs die by the others; see `sandbox::guard` and
/// `sys::may_die`.
#[test]
fn nothing_that_is_shipped_lets_a_guard_be_taken_out_or_dies_where_it_is_told() {
    for path in [env!("CARGO_BIN_EXE_plim"), env!("CARGO_BIN_EXE_plim-keeper"), env!("CARGO_BIN_EXE_plim-oci")] {
        let bytes = fs::read(path).unwrap();
        for name in [&b"PLIM_WITHOUT_GUARD"[..], b"PLIM_DIE_NOTES"] {
            let named = bytes.windows(name.len()).any(|window| window == name);
            assert_eq!(named, cfg!(feature = "attackable"), "{path}");
        }
    }
}
