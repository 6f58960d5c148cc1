//! What the objects of a source may ask for.
//!
//! Whoever can write to a source is root on this host, unless the agent's configuration says less about it.
//! What an object may not have makes it invalid, like a mistake in its text: what ran before goes on.

use crate::spec::{AbsolutePath, ImageRef, Name, Network, Object, Seccomp};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Everything, as long as nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rights {
    /// The namespaces that its objects may be in; any when not given.
    pub namespaces: Option<BTreeSet<Name>>,
    /// The paths of the host, with what is below them, that mounts and images may name; any when not given.
    pub host_paths: Option<Vec<AbsolutePath>>,
    /// Whether a container may have what keeps it less apart from the host than others: the host's network, no
    /// user namespace, capabilities beside the usual ones, another filter of system calls.
    pub privileged: bool,
}

impl Default for Rights {
    fn default() -> Self {
        Self { namespaces: None, host_paths: None, privileged: true }
    }
}

/// What an object asks for and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    /// `spec.mounts.0.host`.
    pub field: String,
    pub what: String,
}

impl Rights {
    /// The first thing that `object` may not have.
    pub(super) fn denied(&self, object: &Object) -> Option<Denied> {
        let denied = |field: &str, what: String| Some(Denied { field: field.to_owned(), what });
        let namespace = &object.id.namespace;
        if self.namespaces.as_ref().is_some_and(|allowed| !allowed.contains(namespace)) {
            return denied("metadata.namespace", format!("be in the namespace {namespace}"));
        }
        let spec = &object.spec;
        let image = match &spec.image {
            ImageRef::Rootfs(path) | ImageRef::Tar(path) => Some(("spec.image".to_owned(), path)),
            ImageRef::Host => None,
        };
        let mounts = spec.mounts.iter().enumerate();
        let mounts = mounts.filter_map(|(at, mount)| Some((format!("spec.mounts.{at}.host"), mount.host.as_ref()?)));
        if let Some((field, path)) = image.into_iter().chain(mounts).find(|(_, path)| !self.reaches(path)) {
            return denied(&field, format!("use the host's {path}"));
        }
        if self.privileged {
            return None;
        }
        let security = &spec.security;
        match &security.seccomp {
            Seccomp::Default => {}
            other => {
                return denied("spec.security.seccomp", format!("use the filter `{}`", String::from(other.clone())));
            }
        }
        if let Some(capability) = security.capabilities.add.iter().next() {
            return denied(
                "spec.security.capabilities.add",
                format!("have the capability {}", String::from(capability.clone())),
            );
        }
        if !security.user_namespace {
            return denied("spec.security.userNamespace", "do without a user namespace".to_owned());
        }
        match spec.network {
            Network::None => None,
            Network::Host => denied("spec.network", "use the host's network".to_owned()),
        }
    }

    fn reaches(&self, path: &AbsolutePath) -> bool {
        let below = |allowed: &AbsolutePath| std::path::Path::new(path.as_str()).starts_with(allowed.as_str());
        // A path with `..` in it is below nothing.
        let straight = !path.as_str().split('/').any(|part| part == "..");
        self.host_paths.as_ref().is_none_or(|allowed| straight && allowed.iter().any(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Content};

    fn object(spec: &str) -> Object {
        let text = format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: web, namespace: team}}\nspec: {{image: 'host:/', command: [c]{spec}}}\n"
        );
        match manifest::read("a.yaml", text.as_bytes(), &[]).documents.remove(0).content {
            Content::Valid(object) => *object,
            Content::Invalid { diagnostics, .. } => panic!("{diagnostics:?}"),
        }
    }

    fn rights(text: &str) -> Rights {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn everything_is_allowed_where_nothing_is_said() {
        let spec =
            ", network: host, security: {userNamespace: false, seccomp: unconfined}, mounts: [{path: /a, host: /etc}]";

        assert_eq!(Rights::default().denied(&object(spec)), None);
        assert_eq!(rights("{}"), Rights::default());
    }

    #[test]
    fn what_is_not_allowed_is_named_with_its_field() {
        let strict = rights("{namespaces: [team], hostPaths: [/srv/web, /opt], privileged: false}");
        for (spec, field) in [
            ("", None),
            (", mounts: [{path: /a, host: /srv/web/data}, {path: /b, tmpfs: 1Mi}]", None),
            (", security: {capabilities: {drop: [ALL]}}", None),
            (", mounts: [{path: /b, tmpfs: 1Mi}, {path: /a, host: /srv/website}]", Some("spec.mounts.1.host")),
            (", mounts: [{path: /a, host: /srv}]", Some("spec.mounts.0.host")),
            (", network: host", Some("spec.network")),
            (", security: {userNamespace: false}", Some("spec.security.userNamespace")),
            (", security: {seccomp: unconfined}", Some("spec.security.seccomp")),
            (", security: {capabilities: {add: [SYS_ADMIN]}}", Some("spec.security.capabilities.add")),
        ] {
            let denied = strict.denied(&object(spec)).map(|denied| denied.field);

            assert_eq!(denied.as_deref(), field, "{spec}");
        }
        let elsewhere = rights("{namespaces: [other]}").denied(&object("")).unwrap();
        assert_eq!(
            (elsewhere.field.as_str(), elsewhere.what.as_str()),
            ("metadata.namespace", "be in the namespace team")
        );
    }
}
