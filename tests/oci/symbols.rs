//! What a small program must not have in it.

fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The names of an ELF file's symbols (elf(5)): the string table that belongs to the symbol table.
fn symbol_names(file: &[u8]) -> &[u8] {
    const SYMBOL_TABLE: usize = 2;
    let (sections, size, count) = (number(file, 0x28, 8), number(file, 0x3a, 2), number(file, 0x3c, 2));
    let section = |index: usize| sections + index * size;
    let symbols = (0..count).map(section).find(|at| number(file, at + 4, 4) == SYMBOL_TABLE);
    let Some(symbols) = symbols else { return &[] };
    let names = section(number(file, symbols + 0x28, 4));
    let (from, length) = (number(file, names + 0x18, 8), number(file, names + 0x20, 8));
    &file[from..from + length]
}

#[test]
fn the_runtime_has_no_server_no_database_and_no_async_runtime_in_it() {
    let file = std::fs::read(crate::fixture::runtime()).unwrap();
    let names = symbol_names(&file);
    let has = |name: &str| names.windows(name.len()).any(|window| window == name.as_bytes());

    // Mangled names have the length of a crate's name in front of it. A stripped program has none.
    assert!(names.is_empty() || has("8plimsoll"));
    for name in ["5tokio", "5hyper", "4axum", "4sled", "10serde_yaml", "$tokio..", "$hyper..", "$axum..", "$sled.."] {
        assert!(!has(name), "{name}");
    }
}
