use super::*;

fn only(text: &str) -> Content {
    let mut content = read("web.yaml", text.as_bytes());
    assert_eq!(content.broken, None);
    assert_eq!(content.documents.len(), 1, "{content:?}");
    content.documents.remove(0).content
}

#[test]
fn the_shortest_useful_file_is_valid() {
    let text = "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: hello}\nspec:\n  image: host:/\n  \
                command: [/bin/sh, -c, \"while :; do date; sleep 5; done\"]\n  \
                resources: {memory: {limit: 64Mi}, cpu: {limit: 200m}, pids: {limit: 32}}\n";

    let Content::Valid(object) = only(text) else { panic!("it is valid") };

    assert_eq!(object.id.to_string(), "Container/default/hello");
    assert_eq!(object.spec.resources.memory.limit, Some(crate::spec::Bytes(64 << 20)));
}

/// All that a person is shown about a file.
fn shown(file: &str, bytes: &[u8]) -> String {
    let content = read(file, bytes);
    let mut shown = String::new();
    for document in &content.documents {
        let Document { number, line, content, notes, .. } = document;
        match content {
            Content::Valid(object) => shown += &format!("## document {number}, line {line}: {}\n\n", object.id),
            Content::Invalid { id, diagnostics } => {
                let id = id.as_ref().map_or("nobody's".to_owned(), ToString::to_string);
                shown += &format!("## document {number}, line {line}: {id}, invalid\n\n");
                for diagnostic in diagnostics {
                    shown += &format!("{diagnostic}\n\n{}\n\n", diagnostic.render());
                }
            }
        }
        for note in notes {
            shown += &format!("{note}\n\n{}\n\n", note.render());
        }
    }
    if let Some(broken) = content.broken {
        shown += &format!("## broken\n\n{broken}\n");
    }
    shown
}

/// Each `tests/manifest/NAME.yaml` shows what `NAME.txt` says. `PLIM_WRITE_GOLDEN=1` writes the latter anew.
#[test]
fn diagnostics_read_as_the_golden_files_say() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifest");
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    names.sort();
    assert!(names.len() > 5, "the files are there");
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let shown = shown(name, &std::fs::read(&path).unwrap());
        let golden = path.with_extension("txt");
        if std::env::var_os("PLIM_WRITE_GOLDEN").is_some() {
            std::fs::write(&golden, &shown).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(shown, expected, "{name} is shown otherwise than {} says", golden.display());
    }
}

/// `PLIM_WRITE_SCHEMA=1` writes it anew.
#[test]
fn the_schema_file_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/v1.json");
    if std::env::var_os("PLIM_WRITE_SCHEMA").is_some() {
        std::fs::write(path, schema()).unwrap();
    }

    let text = std::fs::read_to_string(path).unwrap_or_default();

    assert!(text == schema(), "schemas/v1.json is not what the types say: write it with PLIM_WRITE_SCHEMA=1");
}
