//! Words of the command line to objects: kinds, names, prefixes, and the nearest one to a mistake.

use super::exit::CliError;
use crate::agent::Item;
use crate::api::Client;
use crate::spec::{Kind, Name, ObjectId};

const KINDS: [&str; 3] = ["containers", "container", "c"];
const DEFAULT_NAMESPACE: &str = "default";

/// What a verb may do with a name that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Verbs that only look take a unique beginning of a name.
    Prefix,
    /// Verbs that change something take names as they are.
    Exact,
}

/// One object as it was typed: `web`, `container/web`, `container/ops/web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    namespace: Option<String>,
    name: String,
}

/// The kind that a word means.
pub fn kind(word: &str) -> Result<Kind, CliError> {
    if KINDS.contains(&word.to_lowercase().as_str()) {
        return Ok(Kind::Container);
    }
    let hint = match nearest(&word.to_lowercase(), KINDS.into_iter().filter(|kind| kind.len() > 1)) {
        Some(known) => format!(" (did you mean `{known}`?)"),
        None => format!("; if it is a name, write `containers {word}` or `container/{word}`"),
    };
    Err(CliError::Usage(format!("{word:?} is not a kind{hint}")))
}

/// Whether a word stands for a kind; else it is a name, unless it looks like a kind with a mistake.
pub fn is_kind(word: &str) -> Result<bool, CliError> {
    match kind(word) {
        Ok(_) => Ok(true),
        Err(error) if nearest(&word.to_lowercase(), KINDS.into_iter().filter(|kind| kind.len() > 1)).is_some() => {
            Err(error)
        }
        Err(_) => Ok(false),
    }
}

impl Target {
    /// `NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`.
    pub fn parse(word: &str) -> Result<Self, CliError> {
        let parts: Vec<&str> = word.split('/').collect();
        let (namespace, name) = match parts.as_slice() {
            [name] => (None, *name),
            [of, name] => {
                kind(of)?;
                (None, *name)
            }
            [of, namespace, name] => {
                kind(of)?;
                (Some((*namespace).to_owned()), *name)
            }
            _ => return Err(CliError::Usage(format!("{word:?} is not NAME or KIND/NAME"))),
        };
        Ok(Self { namespace, name: name.to_owned() })
    }

    /// `KIND NAME`, `KIND/NAME`, or a name alone.
    pub fn from_words(words: &[String]) -> Result<Self, CliError> {
        match words {
            [word] => Self::parse(word),
            [of, name] => {
                kind(of)?;
                Self::parse(name)
            }
            _ => Err(CliError::Usage("one object is wanted: KIND NAME or KIND/NAME".to_owned())),
        }
    }

    /// The object among those of the agent.
    pub async fn resolve(&self, client: &Client, namespace: Option<&str>, how: Match) -> Result<ObjectId, CliError> {
        let items = client.containers(None, "").await?;
        self.among(&items, namespace, how).and_then(id)
    }

    /// The object of just this name, whether or not the agent knows one.
    pub fn exactly(&self, namespace: Option<&str>) -> Option<ObjectId> {
        let namespace = self.namespace.as_deref().or(namespace).unwrap_or(DEFAULT_NAMESPACE);
        Some(ObjectId { kind: Kind::Container, namespace: namespace.parse().ok()?, name: self.name.parse().ok()? })
    }

    /// The item that is meant. `namespace` is what `-n` says.
    pub fn among<'a>(&self, items: &'a [Item], namespace: Option<&str>, how: Match) -> Result<&'a Item, CliError> {
        let namespace = self.namespace.as_deref().or(namespace).unwrap_or(DEFAULT_NAMESPACE);
        let here: Vec<&Item> = items.iter().filter(|item| item.metadata.namespace == namespace).collect();
        if let Some(item) = here.iter().find(|item| item.metadata.name == self.name) {
            return Ok(item);
        }
        let begins = |item: &&&Item| !self.name.is_empty() && item.metadata.name.starts_with(&self.name);
        let beginning: Vec<&&Item> = here.iter().filter(begins).collect();
        match (how, beginning.as_slice()) {
            (Match::Prefix, [item]) => return Ok(item),
            (Match::Prefix, [_, _, ..]) => {
                let names: Vec<&str> = beginning.iter().map(|item| item.metadata.name.as_str()).collect();
                let text = format!("{:?} is the beginning of {} names: {}", self.name, names.len(), names.join(", "));
                return Err(CliError::NotFound(text));
            }
            _ => {}
        }
        let elsewhere = items.iter().find(|item| item.metadata.name == self.name);
        let hint = match (elsewhere, nearest(&self.name, here.iter().map(|item| item.metadata.name.as_str()))) {
            (Some(item), _) => format!(": it is in namespace {0} (-n {0})", item.metadata.namespace),
            (None, Some(name)) => format!(" (did you mean `{name}`?)"),
            (None, None) => ": `plim get containers -A` lists all".to_owned(),
        };
        Err(CliError::NotFound(format!("there is no container {:?} in namespace {namespace}{hint}", self.name)))
    }
}

/// The identity of an item.
pub fn id(item: &Item) -> Result<ObjectId, CliError> {
    let name = |text: &str| Name::try_from(text.to_owned());
    match (name(&item.metadata.namespace), name(&item.metadata.name)) {
        (Ok(namespace), Ok(name)) => Ok(ObjectId { kind: Kind::Container, namespace, name }),
        (Err(error), _) | (_, Err(error)) => Err(CliError::Failed(error.to_string())),
    }
}

/// The word that somebody probably meant, if any is near.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = (word.chars().count() / 3).max(1);
    let rated = known.into_iter().map(|known| {
        let begins = word.len() > 1 && known.starts_with(word);
        (if begins { 0 } else { distance(word, known) }, known)
    });
    rated.filter(|(distance, _)| *distance <= close).min().map(|(_, known)| known)
}

/// Letters to insert, remove or exchange (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchanged = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    fn find(word: &str, namespace: Option<&str>, how: Match) -> Result<String, String> {
        let items = samples::items();
        let target = Target::parse(word).map_err(|error| error.to_string())?;
        target.among(&items, namespace, how).map(|item| item.metadata.name.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_found_as_they_are_typed() {
        assert_eq!(find("web", None, Match::Exact), Ok("web".to_owned()));
        assert_eq!(find("container/web", None, Match::Exact), Ok("web".to_owned()));
        assert_eq!(find("Containers/ops/broken", None, Match::Exact), Ok("broken".to_owned()));
        assert_eq!(find("broken", Some("ops"), Match::Exact), Ok("broken".to_owned()));
    }

    #[test]
    fn only_verbs_that_look_take_a_beginning() {
        assert_eq!(find("leg", None, Match::Prefix), Ok("legacy".to_owned()));
        assert!(find("leg", None, Match::Exact).unwrap_err().contains("did you mean `legacy`?"));
    }

    #[test]
    fn a_mistake_is_met_with_the_nearest_name() {
        assert!(find("wbe", None, Match::Prefix).is_err());
        assert!(find("webb", None, Match::Exact).unwrap_err().contains("did you mean `web`?"));
        assert!(find("broken", None, Match::Exact).unwrap_err().contains("-n ops"));
        assert!(find("xyz", None, Match::Exact).unwrap_err().contains("plim get containers -A"));
        assert!(find("contaner/web", None, Match::Exact).unwrap_err().contains("did you mean `container`?"));
    }
}
