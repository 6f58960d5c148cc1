use super::*;
use crate::manifest::{Content, FileContent, point, read};
use crate::spec::{Bytes, Object};

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}, labels: {{a: x}}}}\nspec:\n  image: host:/\n  \
         command: [sleep, \"5\"]\n  env: {{A: 1.10, B: yes}}\n  resources: {{memory: {{limit: 64Mi}}}}\n"
    )
}

fn with(text: &str, drop_ins: &[&str]) -> FileContent {
    let names: Vec<String> = (1..=drop_ins.len()).map(|number| format!("web.yaml.d/{number}.yaml")).collect();
    let given = names.iter().zip(drop_ins).map(|(file, text)| DropIn { file, bytes: text.as_bytes() });
    read("web.yaml", text.as_bytes(), &given.collect::<Vec<_>>())
}

fn valid(content: &FileContent, at: usize) -> &Object {
    match &content.documents[at].content {
        Content::Valid(object) => object,
        Content::Invalid { diagnostics, .. } => panic!("{}", diagnostics[0].render()),
    }
}

/// The first thing that is wrong with a document, whose identity is known all the same.
fn says(content: &FileContent, at: usize) -> String {
    match &content.documents[at].content {
        Content::Valid(object) => panic!("{object:?}"),
        Content::Invalid { id, diagnostics } => {
            assert!(id.is_some(), "{diagnostics:?}");
            diagnostics[0].to_string()
        }
    }
}

#[test]
fn drop_ins_change_the_only_document_one_after_the_other() {
    let (first, second) = (
        "spec: {resources: {memory: {limit: 128Mi}, pids: {limit: 9}}}",
        "# none\n---\nspec:\n  resources:\n    memory: {limit: 256Mi}\n  args: [x]\n  env: {B: null, C: 0x10}\n---\n",
    );

    let content = with(&manifest("web"), &[first, second, "# nothing\n"]);

    let object = valid(&content, 0);
    let resources = &object.spec.resources;
    assert_eq!((resources.memory.limit, resources.pids.limit.is_some()), (Some(Bytes(256 << 20)), true));
    assert_eq!(
        (object.spec.command.as_slice(), object.spec.args.as_slice()),
        (["sleep".into(), "5".into()].as_slice(), ["x".into()].as_slice())
    );
    let env: Vec<_> = object.spec.env.iter().map(|(name, value)| format!("{}={value}", name.as_str())).collect();
    assert_eq!(env, ["A=1.10", "C=0x10"]);
    assert_eq!(content.documents[0].drop_ins, [0, 1]);
    let alone = with(&manifest("web"), &[]).documents.remove(0).revision;
    let one = with(&manifest("web"), &[first]).documents.remove(0).revision;
    assert!(alone != one && one != content.documents[0].revision && alone != content.documents[0].revision);
}

#[test]
fn with_several_documents_each_drop_in_names_the_one_that_it_means() {
    let text = format!("{}---\n{}", manifest("web"), manifest("db"));
    let limit = "spec: {resources: {memory: {limit: 1Gi}}}";
    let of = |name: &str| format!("kind: Container\nmetadata: {{name: {name}}}\n{limit}\n");

    let content = with(&text, &[&of("db")]);
    let limits: Vec<_> = (0..2).map(|at| valid(&content, at).spec.resources.memory.limit).collect();
    assert_eq!(limits, [Some(Bytes(64 << 20)), Some(Bytes(1 << 30))]);
    assert_eq!((content.documents[0].drop_ins.len(), content.documents[1].drop_ins.as_slice()), (0, [0].as_slice()));

    for (drop_in, expected) in [
        (limit.to_owned(), "web.yaml.d/1.yaml:1:1: web.yaml has 2 documents, and this does not say which one"),
        (of("bd"), "web.yaml.d/1.yaml:1:1: no document of web.yaml is Container bd"),
    ] {
        let content = with(&text, &[&drop_in]);
        for at in 0..2 {
            assert!(says(&content, at).starts_with(expected), "{}", says(&content, at));
        }
    }
    // What is wrong with the change of one is no affair of the other.
    let content = with(&text, &[&of("db").replace("1Gi", "lots")]);
    valid(&content, 0);
    assert!(says(&content, 1).starts_with("web.yaml.d/1.yaml:3:"), "{}", says(&content, 1));
}

#[test]
fn what_is_wrong_with_a_drop_in_is_told_at_its_own_place() {
    for (drop_in, expected) in [
        ("spec: [", "web.yaml.d/1.yaml:1:"),
        ("spec:\n  memroy: 1\n", "web.yaml.d/1.yaml:2:3: unknown field \"memroy\""),
        ("spec:\n  memroy: null\n", "web.yaml.d/1.yaml:2:3: unknown field \"memroy\""),
        ("spec:\n  resources:\n    memory: {limit: lots}\n", "web.yaml.d/1.yaml:3:21:"),
        ("spec:\n  resources:\n    memory: {high: 128Mi}\n", "web.yaml.d/1.yaml:3:20: \"high\" of 128Mi is above"),
        ("# first\nspec: {image: null}", "web.yaml.d/1.yaml:2:8: missing field \"image\""),
        ("spec: {image: a, image: b}", "web.yaml.d/1.yaml:1:18: \"image\" stands here twice"),
        ("spec: {image: !x a}", "web.yaml.d/1.yaml:1:"),
        (
            "metadata: {name: other}",
            "web.yaml.d/1.yaml:1:18: this is for another object, and web.yaml is Container/default/web",
        ),
        ("metadata: {namespace: null}", "web.yaml.d/1.yaml:1:23: this is for another object"),
        ("apiVersion: plimsoll/v9", "web.yaml.d/1.yaml:1:13: unknown apiVersion"),
        ("metadata: null", "web.yaml.d/1.yaml:1:1: missing field \"metadata\""),
        ("spec:\n  command: word\n", "web.yaml.d/1.yaml:2:12: \"spec.command\" has to be a list"),
        ("just words", "web.yaml.d/1.yaml:1:1: this is not a part of a manifest"),
        ("metadata: {labels: {a: 'b c'}}", "web.yaml.d/1.yaml:1:24: \"b c\" cannot be the value of a label"),
    ] {
        let content = with(&manifest("web"), &[drop_in]);
        assert!(
            content.broken.is_none() && says(&content, 0).starts_with(expected),
            "{drop_in}: {}",
            says(&content, 0)
        );
    }
    // And of the file at the file's.
    let content = with(&manifest("web").replace("64Mi", "some"), &["spec: {args: [x]}"]);
    assert!(says(&content, 0).starts_with("web.yaml:8:"), "{}", says(&content, 0));
    let bytes = read("web.yaml", manifest("web").as_bytes(), &[DropIn { file: "x", bytes: b"a: \xff" }]);
    assert!(says(&bytes, 0).starts_with("x:1:4: the byte 0xff"), "{}", says(&bytes, 0));
}

#[test]
fn a_drop_in_of_a_file_without_documents_holds_the_file() {
    let content = with("# nothing yet\n", &["spec: {args: [x]}"]);

    let broken = content.broken.expect("held").to_string();
    assert!(broken.starts_with("web.yaml.d/1.yaml:1:"), "{broken}");
}

#[test]
fn a_field_that_a_drop_in_gave_is_pointed_to_in_the_drop_in() {
    let text = manifest("web");
    let drop_in = [DropIn { file: "d", bytes: b"# x\nspec: {image: 'rootfs:/nowhere'}\n" }];
    let revision = read("web.yaml", text.as_bytes(), &drop_in).documents.remove(0).revision;
    let place =
        |field| point(("web.yaml", text.as_bytes()), &drop_in, &revision, field, "x").expect("a place").to_string();

    assert_eq!((place("spec.image"), place("spec.command.0")), ("d:2:15: x".to_owned(), "web.yaml:6:13: x".to_owned()));
}

#[test]
fn an_alias_to_a_long_text_is_not_repeated_without_end() {
    let long = "x".repeat(100_000);
    let many = "*l, ".repeat(2_000);
    let text = format!("{}  args: [&l {long}, {many}]\n", manifest("web"));

    let content = with(&text, &["spec: {hostname: a}"]);

    assert!(says(&content, 0).contains("aliases of this document expand to too much"), "{}", says(&content, 0));
}
