//! The frames of `exec` over an upgraded connection.
//!
//! A frame is one byte that says what it is, four bytes of length (most significant first), and
//! that many bytes. Both sides hold one frame at a time, so a side that does not read holds the
//! other one up and nothing grows.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The name of the protocol in the `Upgrade` header.
pub const PROTOCOL: &str = "plimsoll-exec";

/// The most that one frame may carry.
pub const MAX_PAYLOAD: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// For the program's standard input. Client to server.
    Stdin(Vec<u8>),
    /// From the program. Server to client, like the next.
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The client's terminal has this size now.
    Resize {
        rows: u16,
        columns: u16,
    },
    /// The program ended; the last frame.
    Exit(i32),
    /// The client's standard input has ended.
    StdinEof,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection ended inside a frame, or failed")]
    Io(#[from] io::Error),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes, where {MAX_PAYLOAD} are allowed")]
    TooLong(u32),
    #[error("a frame of kind {kind} with {length} bytes, which is not its form")]
    Form { kind: u8, length: usize },
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Stdin(_) => 0,
            Self::Stdout(_) => 1,
            Self::Stderr(_) => 2,
            Self::Resize { .. } => 3,
            Self::Exit(_) => 4,
            Self::StdinEof => 5,
        }
    }

    /// The bytes of the frame. Payloads over [`MAX_PAYLOAD`] are a mistake of ours.
    pub fn encode(&self) -> Vec<u8> {
        let payload: Vec<u8> = match self {
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => bytes.clone(),
            Self::Resize { rows, columns } => [rows.to_be_bytes(), columns.to_be_bytes()].concat(),
            Self::Exit(code) => code.to_be_bytes().to_vec(),
            Self::StdinEof => Vec::new(),
        };
        assert!(payload.len() <= MAX_PAYLOAD, "a frame of {} bytes", payload.len());
        let length = u32::try_from(payload.len()).expect("bounded above");
        let mut bytes = Vec::with_capacity(5 + payload.len());
        bytes.push(self.kind());
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn decode(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        let form = FrameError::Form { kind, length: payload.len() };
        match (kind, payload.as_slice()) {
            (0, _) => Ok(Self::Stdin(payload)),
            (1, _) => Ok(Self::Stdout(payload)),
            (2, _) => Ok(Self::Stderr(payload)),
            (3, &[a, b, c, d]) => {
                Ok(Self::Resize { rows: u16::from_be_bytes([a, b]), columns: u16::from_be_bytes([c, d]) })
            }
            (4, &[a, b, c, d]) => Ok(Self::Exit(i32::from_be_bytes([a, b, c, d]))),
            (5, &[]) => Ok(Self::StdinEof),
            (3..=5, _) => Err(form),
            (kind, _) => Err(FrameError::Kind(kind)),
        }
    }
}

/// The next frame; `None` when the other side ended the connection between two frames.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<Option<Frame>, FrameError> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = from.read_u32().await?;
    // Checked before anything is allocated for it.
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_PAYLOAD);
    let mut payload = vec![0; size.ok_or(FrameError::TooLong(length))?];
    from.read_exact(&mut payload).await?;
    Frame::decode(kind, payload).map(Some)
}

/// Writes one frame and flushes it.
pub async fn write<W: AsyncWrite + Unpin>(to: &mut W, frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.encode()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_frame_comes_back_as_it_was_sent() {
        let frames = [
            Frame::Stdin(b"in".to_vec()),
            Frame::Stdout(vec![0; MAX_PAYLOAD]),
            Frame::Stderr(Vec::new()),
            Frame::Resize { rows: 24, columns: 300 },
            Frame::Exit(-1),
            Frame::Exit(137),
            Frame::StdinEof,
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut from = bytes.as_slice();

        for frame in frames {
            assert_eq!(read(&mut from).await.unwrap(), Some(frame));
        }
        assert_eq!(read(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        let mut from: &[u8] = &[1, 0xff, 0xff, 0xff, 0xff];

        assert!(matches!(read(&mut from).await, Err(FrameError::TooLong(u32::MAX))));
    }

    #[tokio::test]
    async fn unknown_and_malformed_frames_are_errors() {
        let mut unknown: &[u8] = &[9, 0, 0, 0, 0];
        let mut short: &[u8] = &[3, 0, 0, 0, 1, 7];
        let mut torn: &[u8] = &[0, 0, 0, 0, 9, 1];

        assert!(matches!(read(&mut unknown).await, Err(FrameError::Kind(9))));
        assert!(matches!(read(&mut short).await, Err(FrameError::Form { kind: 3, length: 1 })));
        assert!(matches!(read(&mut torn).await, Err(FrameError::Io(_))));
    }

    #[test]
    fn the_bytes_of_a_frame_are_fixed() {
        assert_eq!(Frame::Resize { rows: 1, columns: 2 }.encode(), [3, 0, 0, 0, 4, 0, 1, 0, 2]);
        assert_eq!(Frame::Stderr(b"x".to_vec()).encode(), [2, 0, 0, 0, 1, b'x']);
    }
}
