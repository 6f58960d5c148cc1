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
