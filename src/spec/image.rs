//! Where a root filesystem comes from.

use super::AbsolutePath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `host:/`, `rootfs:PATH` or `tar:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^(host:/|(rootfs|tar):/.*)$"))]
pub enum ImageRef {
    /// The host's own programs and a generated `/etc`, under a throw-away writable layer.
    Host,
    /// A directory, used as it is.
    Rootfs(AbsolutePath),
    /// A root filesystem in a tarball (plain, gzip or zstd), identified by its content.
    Tar(AbsolutePath),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImage {
    #[error("\"host:\" takes only \"/\": write host:/")]
    Host,
    #[error("{0:?} names no transport: write host:/, rootfs:/PATH or tar:/PATH")]
    NoTransport(String),
    #[error("{0:?} is not a transport: host, rootfs and tar are")]
    Transport(String),
    #[error(transparent)]
    Path(#[from] super::name::InvalidPath),
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidImage;

    fn try_from(text: String) -> Result<Self, InvalidImage> {
        match text.split_once(':') {
            Some(("host", "/")) => Ok(Self::Host),
            Some(("host", _)) => Err(InvalidImage::Host),
            Some(("rootfs", path)) => Ok(Self::Rootfs(path.parse()?)),
            Some(("tar", path)) => Ok(Self::Tar(path.parse()?)),
            Some((transport, _)) if !transport.contains('/') => Err(InvalidImage::Transport(transport.to_owned())),
            _ => Err(InvalidImage::NoTransport(text)),
        }
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host:/"),
            Self::Rootfs(path) => write!(f, "rootfs:{path}"),
            Self::Tar(path) => write!(f, "tar:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_its_transport() {
        for text in ["host:/", "rootfs:/srv/root", "tar:/srv/root.tar.gz"] {
            assert_eq!(ImageRef::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        let refused = [
            ("nginx", "names no transport"),
            ("registry.example/acme/web:1.4", "names no transport"),
            ("host:/srv", "write host:/"),
            ("docker://nginx", "is not a transport"),
            ("rootfs:srv", "is not an absolute path"),
            ("tar:/../x", "contains '..'"),
            ("", "names no transport"),
        ];
        for (text, expected) in refused {
            let message = ImageRef::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }
}
