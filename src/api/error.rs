//! The one shape of an error, and which error has which status.

use crate::agent::CommandError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Reasons that `exec` turns into exit codes of its own.
pub const NO_SUCH_PROGRAM: &str = "NoSuchProgram";
pub const NOT_EXECUTABLE: &str = "NotExecutable";
/// What `reload` turns into one.
pub const MISCONFIGURED: &str = "Misconfigured";

/// `{"code": 404, "reason": "NotFound", "message": "…", "details": []}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The HTTP status.
    pub code: u16,
    /// One word in CamelCase that programs may go by.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
    #[serde(default)]
    pub details: Vec<String>,
}

impl ErrorBody {
    fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self { code: status.as_u16(), reason: reason.to_owned(), message: message.into(), details: Vec::new() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub(super) fn read_only(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ReadOnly", message)
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Failed", message)
    }
}

impl From<CommandError> for ErrorBody {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::NotFound(_) => Self::not_found(message),
            CommandError::Refused(_) => Self::new(StatusCode::CONFLICT, "Refused", message),
            CommandError::Misconfigured(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, MISCONFIGURED, message),
            CommandError::NoSuchProgram(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, NO_SUCH_PROGRAM, message),
            CommandError::NotExecutable(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, NOT_EXECUTABLE, message),
            CommandError::Failed(_) => Self::failed(message),
        }
    }
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}
