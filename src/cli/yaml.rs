//! Objects as YAML that can be saved and applied again.

use super::exit::CliError;
use serde::Serialize;

/// One document per object.
pub fn documents<T: Serialize>(objects: &[T]) -> Result<String, CliError> {
    let mut text = String::new();
    for (number, object) in objects.iter().enumerate() {
        if number > 0 {
            text.push_str("---\n");
        }
        text.push_str(&document(object)?);
    }
    Ok(text)
}

pub fn document<T: Serialize>(object: &T) -> Result<String, CliError> {
    crate::manifest::to_yaml(object).map_err(|error| CliError::Failed(error.to_string()))
}

/// Indented JSON with a line end.
pub fn json<T: Serialize>(value: &T) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(text + "\n")
}

/// JSON on one line.
pub fn json_line<T: Serialize>(value: &T) -> Result<String, CliError> {
    let text = serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(text + "\n")
}
