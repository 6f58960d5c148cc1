//! Values of ours as YAML.

use serde::Serialize;

#[derive(Debug, thiserror::Error)]
#[error("writing YAML")]
pub struct EmitError(#[source] serde_yaml::Error);

/// One YAML document with a line end. What is read from manifests comes back as it was.
pub fn to_yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, EmitError> {
    serde_yaml::to_string(value).map_err(EmitError)
}
