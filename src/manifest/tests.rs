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
