//! `hooks`.

use super::or_null;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    #[serde(deserialize_with = "or_null")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "or_null")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "or_null")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "or_null")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "or_null")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "or_null")]
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: String,
    #[serde(default, deserialize_with = "or_null")]
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    pub timeout: Option<i64>,
}
