//! A file of settings: one document that is no object, read as strictly as those that are.

use super::document::Finding;
use super::source::Source;
use super::typed::{self, Written};
use super::{Diagnostic, tree};
use serde::de::DeserializeOwned;

/// Reads the text of `file`, which is only a name for messages. A file that holds nothing, or only comments,
/// gives the default.
///
/// # Errors
/// Everything that is wrong with it.
pub fn settings<T: DeserializeOwned + Default>(file: &str, bytes: &[u8]) -> Result<T, Vec<Diagnostic>> {
    let source = Source::new(file, bytes).map_err(|diagnostic| vec![*diagnostic])?;
    let (text, start) = (&source.text()[source.start()..], source.start());
    let tree = tree::parse(text, start);
    let mut findings: Vec<Finding> = tree.broken.into_iter().chain(tree.refused).map(Finding::from).collect();
    findings.extend(tree.duplicates.into_iter().map(|(problem, _)| Finding::from(problem)));
    let mut found = None;
    if findings.is_empty() {
        match tree.root.filter(|root| !root.is_null()) {
            None => return Ok(T::default()),
            Some(root) => {
                found = typed::parse(Written::Here { text, base: start }, &root, &mut Vec::new(), &mut findings)
            }
        }
    }
    match found {
        Some(found) if findings.is_empty() => Ok(found),
        _ => Err(findings.iter().map(|finding| finding.diagnostic(&source)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Example {
        word: String,
        many: Vec<u32>,
    }

    fn says(text: &str) -> String {
        let diagnostics = settings::<Example>("agent.yaml", text.as_bytes()).unwrap_err();
        diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(settings::<Example>("a", b"").unwrap(), Example::default());
        assert_eq!(settings::<Example>("a", b"# word: x\n").unwrap(), Example::default());
        assert_eq!(settings::<Example>("a", b"many: [1, 2]\n").unwrap().many, [1, 2]);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        assert!(says("many: [1, x]\n").starts_with("agent.yaml:1:11"), "{}", says("many: [1, x]\n"));
        assert!(says("# c\nwrod: x\n").contains("wrod"), "{}", says("# c\nwrod: x\n"));
        assert!(says("# c\nwrod: x\n").starts_with("agent.yaml:2:"), "{}", says("# c\nwrod: x\n"));
        assert!(says("word: a\nword: b\n").starts_with("agent.yaml:2:1"), "{}", says("word: a\nword: b\n"));
        assert!(says("word: [\n").starts_with("agent.yaml:"), "{}", says("word: [\n"));
    }
}
