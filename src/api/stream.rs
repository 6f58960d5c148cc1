//! A body that is sent as it comes into being.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// How many pieces may wait for a reader before the writer waits for it.
const BACKLOG: usize = 16;

/// The writing end. Every method answers `false` once nobody reads any more.
pub(super) struct Sink(mpsc::Sender<io::Result<Bytes>>);

struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

/// A response of the given type, and where to put its body.
pub(super) fn response(content_type: &'static str) -> (Sink, Response) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let response = ([(CONTENT_TYPE, content_type)], Body::new(Pieces(receiver))).into_response();
    (Sink(sender), response)
}

impl Sink {
    pub async fn bytes(&self, bytes: Vec<u8>) -> bool {
        bytes.is_empty() || self.0.send(Ok(bytes.into())).await.is_ok()
    }

    /// One value as a line of JSON.
    pub async fn line<T: Serialize>(&self, value: &T) -> bool {
        match serde_json::to_vec(value) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.bytes(bytes).await
            }
            Err(error) => {
                self.fail(io::Error::other(error)).await;
                false
            }
        }
    }

    /// Breaks the connection off, so that the reader knows that something is missing.
    pub async fn fail(&self, error: io::Error) {
        // A reader that has gone needs no telling.
        drop(self.0.send(Err(error)).await);
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = ready!(self.0.poll_recv(context));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}
