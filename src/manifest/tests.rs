use super::*;
use proptest::prelude::*;

const HEAD: &str = "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: web}\n";

fn only(text: &str) -> Content {
    let mut content = read("web.yaml", text.as_bytes(), &[]);
    assert_eq!(content.broken, None);
    assert_eq!(content.documents.len(), 1, "{content:?}");
    content.documents.remove(0).content
}

fn valid(text: &str) -> Object {
    match only(text) {
        Content::Valid(object) => *object,
        Content::Invalid { diagnostics, .. } => panic!("{}", diagnostics[0].render()),
    }
}

/// The one-line forms of what is wrong with the only document of `text`.
fn complaints(text: &str) -> Vec<String> {
    match only(text) {
        Content::Valid(object) => panic!("{object:?}"),
        Content::Invalid { diagnostics, .. } => diagnostics.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_shortest_useful_file_is_valid() {
    let object = valid(&format!(
        "{HEAD}spec:\n  image: host:/\n  command: [/bin/sh, -c, \"while :; do date; sleep 5; done\"]\n  \
         resources: {{memory: {{limit: 64Mi}}, cpu: {{limit: 200m}}, pids: {{limit: 32}}}}\n"
    ));

    assert_eq!(object.id.to_string(), "Container/default/web");
    assert_eq!(object.spec.resources.memory.limit, Some(crate::spec::Bytes(64 << 20)));
}

#[test]
fn a_text_without_quotes_is_taken_as_it_is_written() {
    let object = valid(&format!(
        "{HEAD}spec:\n  image: host:/\n  command: [sleep, 1.50, true, 0x10, 1e3, 0755]\n  \
         env: {{A: 1.10, B: yes, C: 012, D: 1_000, E: 12:30, F: true}}\n"
    ));

    assert_eq!(object.spec.command, ["sleep", "1.50", "true", "0x10", "1e3", "0755"]);
    let env: Vec<_> = object.spec.env.values().map(String::as_str).collect();
    assert_eq!(env, ["1.10", "yes", "012", "1_000", "12:30", "true"]);
}

#[test]
fn both_forms_of_env_are_one() {
    let spec = "spec:\n  image: host:/\n  command: [sleep]\n  env: ";

    let map = valid(&format!("{HEAD}{spec}{{MODE: prod, LEVEL: 3}}\n"));
    let list = valid(&format!("{HEAD}{spec}[{{name: MODE, value: prod}}, {{name: LEVEL, value: 3}}]\n"));

    assert_eq!(map, list);
    let twice = format!("{HEAD}{spec}[{{name: A, value: b}}, {{name: A, value: c}}]\n");
    assert_eq!(complaints(&twice), ["web.yaml:7:3: A stands here twice"]);
    let unknown = format!("{HEAD}{spec}[{{name: A, valueFrom: b}}]\n");
    assert!(complaints(&unknown).iter().any(|line| line.contains("unknown field \"valueFrom\"")));
}

#[test]
fn what_is_commented_out_is_left_out() {
    let object = valid(&format!(
        "{HEAD}spec:\n  image: host:/\n  command: [sleep]\n  env:\n  # A: b\n  mounts:\n  resources:\n    memory:\n    # limit: 64Mi\n"
    ));

    assert_eq!(object.spec.resources, crate::spec::Resources::default());
}

#[test]
fn the_same_text_in_other_clothes_is_the_same_object() {
    let text = format!("{HEAD}spec:\n  image: host:/\n  command:\n  - sleep\n  - 'ž'\n");
    let expected = valid(&text);

    assert_eq!(valid(&text.replace('\n', "\r\n")), expected, "CRLF");
    assert_eq!(valid(&format!("\u{feff}{text}")), expected, "byte order mark");
    assert_eq!(valid(&format!("%YAML 1.2\n---\n{text}...\n")), expected, "directive and markers");
    assert_eq!(valid(&format!("# comment\n---\n\n---\n{text}---\n# comment\n---\n")), expected, "empty documents");
    assert_eq!(valid(text.trim_end()), expected, "no line break at the end");
    let json = "{\n\t\"apiVersion\": \"plimsoll/v1\",\n\t\"kind\": \"Container\",\n\t\"metadata\": {\"name\": \"web\"},\n\t\
                \"spec\": {\"image\": \"host:/\", \"command\": [\"sleep\", \"\\u017e\"]}\n}\n";
    assert_eq!(valid(json), expected, "JSON with tabs");
    let aliased = format!("{HEAD}spec:\n  image: host:/\n  command: &c [sleep, ž]\n  args: *c\n");
    assert_eq!(valid(&aliased).spec.args, expected.spec.command, "alias");
}

#[test]
fn nothing_is_no_document() {
    for text in ["", "\n\n", "# comment\n", "---\n", "---\n---\n...\n", "\u{feff}", "  \n# a\n", "%YAML 1.2\n"] {
        let content = read("web.yaml", text.as_bytes(), &[]);

        assert_eq!(content, FileContent { documents: Vec::new(), broken: None }, "{text:?}");
    }
}

#[test]
fn what_is_no_text_breaks_the_file() {
    let large = vec![b'#'; MAX_FILE_BYTES + 1];
    let cases: [(&[u8], &str); 4] = [
        (b"a: b\nc: \xff\n", "web.yaml:2:4: the byte 0xff here is not UTF-8 (save the file as UTF-8)"),
        (b"\xff\xfea\0", "web.yaml:1:1: the byte 0xff here is not UTF-8 (the file is UTF-16: save it as UTF-8)"),
        (&large, "web.yaml:1:1: the file has 1048577 bytes, more than the 1048576 that are read"),
        (b"a: b\0c\n", "web.yaml:1:5: not YAML: "),
    ];
    for (bytes, expected) in cases {
        let broken = read("web.yaml", bytes, &[]).broken.unwrap().to_string();

        assert!(broken.starts_with(expected), "{broken}");
    }
}

#[test]
fn a_document_that_is_not_yaml_breaks_its_file() {
    let text = format!("{HEAD}spec: {{image: host:/, command: [sleep]}}\n---\n{HEAD}spec: {{image: host:/\n");

    let content = read("web.yaml", text.as_bytes(), &[]);

    let broken = content.broken.unwrap();
    assert_eq!(content.documents.len(), 2);
    for document in content.documents {
        let Content::Invalid { id, diagnostics } = document.content else { panic!("a document of a broken file") };
        assert_eq!(id.unwrap().to_string(), "Container/default/web");
        assert_eq!(diagnostics, std::slice::from_ref(&broken));
    }
}

#[test]
fn an_identity_is_read_only_where_it_is_certain() {
    let cases = [
        ("kind: Container\nmetadata: {name: a}\n", Some("Container/default/a")),
        ("kind: Container\nmetadata: {name: a, namespace: b}\nfoo: 1\n", Some("Container/b/a")),
        ("apiVersion: v9\nkind: Container\nmetadata: {name: a}\n", Some("Container/default/a")),
        ("kind: Container\nmetadata: {name: a, namespace: ../b}\n", None),
        ("kind: Container\nmetadata: {name: a, namespace: b, namespace: c}\n", None),
        ("kind: Container\nmetadata: {name: a, name: b}\n", None),
        ("kind: Containr\nmetadata: {name: a}\n", None),
        ("metadata: {name: a}\n", None),
        ("kind: Container\nmetadata: a\n", None),
    ];
    for (text, expected) in cases {
        let Content::Invalid { id, diagnostics } = only(text) else { panic!("{text}") };

        assert_eq!(id.map(|id| id.to_string()).as_deref(), expected, "{text}");
        assert!(!diagnostics.is_empty());
    }
}

#[test]
fn a_coloured_message_is_the_plain_one_with_escape_sequences() {
    let Content::Invalid { diagnostics, .. } = only("kind: Container\n") else { panic!("it lacks everything") };
    let (plain, coloured) = (diagnostics[0].render(), diagnostics[0].render_coloured());

    assert!(!plain.contains('\u{1b}') && coloured.contains("\u{1b}["));
    assert!(plain.starts_with("error: missing field `apiVersion`\n --> web.yaml:1:1\n"), "{plain}");
}

#[test]
fn a_line_that_nobody_wrote_is_not_repeated() {
    let text = format!("{HEAD}spec: {{image: host:/, command: [a], hostname: {}}}\n", "x".repeat(10_000));
    let Content::Invalid { diagnostics, .. } = only(&text) else { panic!("no name is that long") };

    let shown = diagnostics[0].render();

    assert!(shown.contains("web.yaml:4:47") && shown.contains("is not a name") && shown.len() < 1000, "{shown}");
}

#[test]
fn no_text_of_a_file_reaches_the_terminal_as_a_command() {
    let text = format!("{HEAD}spec: {{image: \"\\e]0;x\\a\", command: [a], \"\\e[31m\": 1, hostname: \u{202e}x}}\n");

    for line in complaints(&text) {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}

#[test]
fn what_is_printed_can_be_saved_as_a_file() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifest/full.yaml")).unwrap();
    let object = valid(&text);
    let Object { id, labels, annotations, spec } = &object;
    let value = serde_json::json!({
        "apiVersion": crate::spec::API_VERSION,
        "kind": id.kind,
        "metadata": {"name": id.name, "namespace": id.namespace, "labels": labels, "annotations": annotations},
        "spec": spec,
        "status": {"phase": "Running", "pid": 1},
    });

    let printed = write(&value);

    let content = read("printed.yaml", printed.as_bytes(), &[]);
    assert_eq!(content.documents[0].content, Content::Valid(Box::new(object)), "{printed}");
    assert_eq!(content.documents[0].notes.len(), 1);
    assert_eq!(valid(&serde_json::to_string(&value).unwrap()).spec, valid(&text).spec, "as JSON");
}

#[test]
fn a_document_is_bounded() {
    let nested = |levels: usize| format!("{HEAD}spec: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    let broken = |text: &str| read("web.yaml", text.as_bytes(), &[]).broken.map(|broken| broken.message);

    assert_eq!(broken(&nested(63)), None);
    assert_eq!(broken(&nested(64)).unwrap(), "more than 64 levels inside of each other");
    assert_eq!(broken(&"a\n---\n".repeat(MAX_DOCUMENTS)), None);
    assert!(broken(&"a\n---\n".repeat(MAX_DOCUMENTS + 1)).is_some());
    assert!(broken(&format!("[{}]", "a,".repeat(100_000))).is_some());
}

fn items(place: &serde_yaml::Value) -> Vec<&serde_yaml::Value> {
    match place {
        serde_yaml::Value::Sequence(items) => items.iter().collect(),
        place => vec![place],
    }
}

#[test]
fn the_full_example_has_every_field_of_the_schema() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifest/full.yaml")).unwrap();
    let full: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    for path in fields::paths().filter(|path| *path != "status") {
        let mut places = vec![&full];
        for step in path.split('.') {
            // Each asks one thing of several, so that all that can be asked is in all of them together.
            let alike = ["startup", "readiness", "liveness"];
            let steps = if alike.contains(&step) { &alike[..] } else { std::slice::from_ref(&step) };
            let inner = |place| steps.iter().filter_map(move |step| serde_yaml::Value::get(place, *step));
            places = places.into_iter().flat_map(items).flat_map(inner).collect();
        }
        assert!(!places.is_empty(), "tests/manifest/full.yaml lacks {path}");
    }
}

/// All that a person is shown about a file.
fn shown(file: &str, bytes: &[u8]) -> String {
    let content = read(file, bytes, &[]);
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

fn yaml_files(directory: &str) -> Vec<std::path::PathBuf> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() > 2, "the files are there");
    paths
}

/// Each `tests/manifest/NAME.yaml` shows what `NAME.txt` says; `PLIM_WRITE_GOLDEN=1` writes the latter anew.
#[test]
fn diagnostics_read_as_the_golden_files_say() {
    for path in yaml_files("tests/manifest") {
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

#[test]
fn every_field_of_the_schema_says_what_it_is_for() {
    fn walk(value: &serde_json::Value, path: &str) {
        for (name, field) in value.get("properties").and_then(serde_json::Value::as_object).into_iter().flatten() {
            assert!(field.get("description").is_some(), "{path}.{name} has no description");
        }
    }
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();

    walk(&schema, "");
    schema["$defs"].as_object().unwrap().iter().for_each(|(name, definition)| walk(definition, name));
}

#[test]
fn every_example_is_valid_and_says_what_it_shows() {
    for path in yaml_files("manifests") {
        let text = std::fs::read_to_string(&path).unwrap();
        let content = read(&path.display().to_string(), text.as_bytes(), &[]);

        assert!(text.starts_with("# "), "{}: the first line says what it shows", path.display());
        assert!(text.contains("\n# yaml-language-server: $schema=../schemas/v1.json\n"), "{}", path.display());
        assert_eq!(content.broken, None);
        for document in content.documents {
            let Content::Valid(object) = document.content else {
                panic!("{}", shown(&path.display().to_string(), text.as_bytes()))
            };
            assert_eq!(object.spec.image, crate::spec::ImageRef::Host, "an example needs no download");
            assert_eq!(document.notes, []);
        }
    }
}

/// What must be true of any answer.
fn is_sound(bytes: &[u8]) {
    let content = read("any.yaml", bytes, &[]);
    let all = content.documents.iter().flat_map(|document| match &document.content {
        Content::Valid(_) => &document.notes,
        Content::Invalid { diagnostics, .. } => diagnostics,
    });
    for diagnostic in all.chain(&content.broken) {
        assert!(!diagnostic.render().is_empty() && !diagnostic.to_string().contains(|c: char| c.is_control()));
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
    }
    for (index, document) in content.documents.iter().enumerate() {
        assert_eq!(usize::try_from(document.number).unwrap(), index + 1);
        match &document.content {
            Content::Valid(_) => assert_eq!(content.broken, None),
            Content::Invalid { diagnostics, .. } => assert!(!diagnostics.is_empty()),
        }
    }
}

/// Pieces of YAML that a parser trips over.
const PIECES: [&str; 40] = [
    "&a ",
    "*a",
    "<<: ",
    "---\n",
    "...\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ":",
    "- ",
    "-",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\\",
    "#",
    " #",
    "%YAML 1.2\n",
    "!!str ",
    "!x ",
    "? ",
    ",",
    "\u{feff}",
    "\r\n",
    "\r",
    "\n",
    "  ",
    "~",
    "null",
    "\u{85}",
    "\u{2028}",
    "é",
    "-1",
    "0",
    "x: ",
    "\0",
];

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<String> = ["manifests", "tests/manifest"]
        .into_iter()
        .flat_map(yaml_files)
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let edit = (any::<prop::sample::Index>(), 0..30usize, prop::sample::select(PIECES.to_vec()), 0..4u8);
    (prop::sample::select(texts), prop::collection::vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (at, length, piece, how) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            match how {
                0 => drop(bytes.splice(start..start, piece.bytes())),
                1 => drop(bytes.splice(start..end, piece.bytes())),
                2 => drop(bytes.drain(start..end)),
                _ => {
                    let again = bytes[start..end].to_vec();
                    bytes.splice(end..end, again);
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        is_sound(&bytes);
    }

    #[test]
    fn any_pieces_have_an_answer(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40)) {
        is_sound(pieces.concat().as_bytes());
    }

    #[test]
    fn any_edit_of_a_manifest_has_an_answer(bytes in mutated()) {
        is_sound(&bytes);
    }
}

/// Each is as large as a file may be, and the best that it can do is to take long.
#[test]
fn what_is_made_to_take_long_does_not() {
    let full = |piece: &str| piece.repeat(MAX_FILE_BYTES / piece.len());
    let under = |field: &str, line: &dyn Fn(usize) -> String| {
        let mut text = format!("{HEAD}spec:\n  image: host:/\n  command: [sleep]\n{field}");
        let mut index = 0;
        while text.len() < MAX_FILE_BYTES - 100 {
            text += &line(index);
            index += 1;
        }
        text
    };
    let texts = [
        full("["),
        full("{a: ["),
        full("a:\n"),
        full("--- a\n"),
        full("*a "),
        under("", &|index| format!("  a{index}: b\n")),
        under("  env:\n", &|index| format!("    A{index}:\n")),
        under("  mounts:\n", &|_| "  - {path: /a}\n".to_owned()),
        format!("{HEAD}labels: {{{}}}", "\"a b\": c, ".repeat(90_000)),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        read("long.yaml", text.as_bytes(), &[]);

        assert!(start.elapsed().as_secs() < 60, "{}", &text[..text.len().min(200)]);
    }
}
