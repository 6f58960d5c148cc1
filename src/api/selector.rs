//! Label selectors: `app=web,tier!=front,canary,!legacy`.

use std::collections::BTreeMap;

/// All of its requirements have to hold; an empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a label selector: write app=web, app!=web, app or !app, joined by commas")]
pub struct InvalidSelector(String);

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, value) => labels.get(key) == Some(value),
            // As kubectl has it: a label that is not there is different.
            Requirement::IsNot(key, value) => labels.get(key) != Some(value),
            Requirement::Has(key) => labels.contains_key(key),
            Requirement::HasNot(key) => !labels.contains_key(key),
        })
    }
}

impl std::str::FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let requirement = |part: &str| -> Option<Requirement> {
            let part = part.trim();
            let key = |key: &str| {
                let key = key.trim();
                let fits = !key.is_empty() && !key.contains(['!', '=', ' ', '(', ')']);
                fits.then(|| key.to_owned())
            };
            let value = |value: &str| {
                let value = value.trim();
                (!value.contains(['=', ' ', '(', ')'])).then(|| value.to_owned())
            };
            if let Some((left, right)) = part.split_once("!=") {
                return Some(Requirement::IsNot(key(left)?, value(right)?));
            }
            if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
                return Some(Requirement::Is(key(left)?, value(right)?));
            }
            match part.strip_prefix('!') {
                Some(rest) => Some(Requirement::HasNot(key(rest)?)),
                None => Some(Requirement::Has(key(part)?)),
            }
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts: Option<Vec<Requirement>> = text.split(',').map(requirement).collect();
        parts.map(Self).ok_or_else(|| InvalidSelector(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_has_to_hold() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())]);
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app==web", true),
            ("app=web,tier=front", true),
            ("app=web, tier=back", false),
            ("app!=web", false),
            ("other!=web", true),
            ("!other,app=web", true),
        ];

        for (text, expected) in cases {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["=web", "app in (a,b)", "a=b=c", ",", "!", "a b"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
