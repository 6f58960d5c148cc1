//! What an object and a running instance of it are called, and the ids an instance owns.

use super::Name;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Container,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => f.write_str("Container"),
        }
    }
}

/// An object's identity: `Container/default/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId {
    pub kind: Kind,
    pub namespace: Name,
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object's identity: KIND/NAMESPACE/NAME")]
pub struct InvalidId(String);

impl TryFrom<String> for ObjectId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let parse = || {
            let mut parts = text.splitn(3, '/');
            let kind = match parts.next()? {
                "Container" => Kind::Container,
                _ => return None,
            };
            Some(Self { kind, namespace: parts.next()?.parse().ok()?, name: parts.next()?.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidId(text.clone()))
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// One life of an object on this host: `<namespace>_<name>` and a counter, written
/// `default_web.3`. Cgroups, directories, logs and the keeper's handles are keyed by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    pub namespace: Name,
    pub name: Name,
    pub number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instance: NAMESPACE_NAME.NUMBER")]
pub struct InvalidInstance(String);

impl InstanceId {
    pub fn new(object: &ObjectId, number: u64) -> Self {
        Self { namespace: object.namespace.clone(), name: object.name.clone(), number }
    }

    /// The object this is an instance of.
    pub fn object(&self) -> ObjectId {
        ObjectId { kind: Kind::Container, namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// `<namespace>_<name>`: the directory that holds all instances of the object. A name has no
    /// `_` and no `.`, so this is unambiguous.
    pub fn family(&self) -> String {
        format!("{}_{}", self.namespace, self.name)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstance;

    fn try_from(text: String) -> Result<Self, InvalidInstance> {
        let parse = || {
            let (family, number) = text.rsplit_once('.')?;
            let (namespace, name) = family.split_once('_')?;
            // "+1" and "01" parse as numbers, and would be a second spelling of the same instance.
            let parsed: u64 = number.parse().ok()?;
            (parsed.to_string() == number).then_some(())?;
            Some(Self { namespace: namespace.parse().ok()?, name: name.parse().ok()?, number: parsed })
        };
        parse().ok_or_else(|| InvalidInstance(text.clone()))
    }
}

impl std::str::FromStr for InstanceId {
    type Err = InvalidInstance;

    fn from_str(text: &str) -> Result<Self, InvalidInstance> {
        Self::try_from(text.to_owned())
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}.{}", self.namespace, self.name, self.number)
    }
}

/// User and group ids of the host that belong to one instance: `base..base + size`, mapped to
/// `0..size` inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdRange {
    pub base: u32,
    pub size: u32,
}

impl IdRange {
    /// What every container gets (user_namespaces(7): a range wide enough for `nobody`, 65534).
    pub const SIZE: u32 = 65_536;

    /// The host's id for `inside`, if the range has one.
    pub fn to_host(self, inside: u32) -> Option<u32> {
        (inside < self.size).then(|| self.base.checked_add(inside)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instance_has_one_spelling() {
        for text in ["default_web.3", "a-b_c.0"] {
            assert_eq!(text.parse::<InstanceId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "web.3",
            "default_web",
            "default_web.",
            "default_web.+1",
            "default_web.01",
            "a_b_c.1",
            "a_b.1.2",
            "../x_b.1",
        ] {
            assert!(text.parse::<InstanceId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_identity_has_a_kind_it_knows() {
        let id = ObjectId::try_from("Container/default/web".to_owned()).unwrap();

        assert_eq!(id.to_string(), "Container/default/web");
        for text in ["Container/web", "Pod/default/web", "Container/default/../x", "Container/default/a/b", ""] {
            assert!(ObjectId::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_range_maps_only_what_it_holds() {
        let range = IdRange { base: 1_000_000, size: IdRange::SIZE };

        assert_eq!(range.to_host(0), Some(1_000_000));
        assert_eq!(range.to_host(65_535), Some(1_065_535));
        assert_eq!(range.to_host(65_536), None);
        assert_eq!(IdRange { base: u32::MAX, size: 2 }.to_host(1), None);
    }

    proptest! {
        #[test]
        fn an_instance_is_read_as_it_is_written(namespace in "[a-z]([-a-z0-9]{0,10}[a-z0-9])?", name in "[a-z][a-z0-9]{0,9}", number: u64) {
            let id = InstanceId { namespace: namespace.parse().unwrap(), name: name.parse().unwrap(), number };

            prop_assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
        }
    }
}
