//! One connection's bytes, as messages.

use std::io;

use bytes::{Buf as _, BytesMut};
use flumen_core::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::messages::{self, Frontend, Opening, Output};
use crate::failure::Failure;

/// What a connection runs over: TCP, or TLS on top.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client has gone, or cannot be reached.
    Gone,
    /// The client said what makes no sense, or may not go on.
    Failure(Failure),
}

impl From<io::Error> for Broken {
    fn from(_error: io::Error) -> Self {
        Broken::Gone
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Broken::Failure(failure)
    }
}

/// The two directions of a connection. Every future can be dropped without losing a byte.
pub(super) struct Wire {
    transport: Box<dyn Transport>,
    input: BytesMut,
    /// What is to be sent.
    pub out: Output,
    /// Whether the client has logged in: only then may it send much.
    pub known: bool,
}

impl Wire {
    /// Over `transport`.
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, input: BytesMut::new(), out: Output::default(), known: false }
    }

    /// Takes the transport back, to put TLS on top.
    ///
    /// Errors: the client has sent more already, which somebody in between may have put there.
    pub fn into_transport(self) -> Result<Box<dyn Transport>, Broken> {
        if self.input.is_empty() { Ok(self.transport) } else { Err(Broken::Gone) }
    }

    /// The first message.
    pub async fn opening(&mut self) -> Result<Opening, Broken> {
        loop {
            if let Some(opening) = messages::opening(&mut self.input)? {
                return Ok(opening);
            }
            self.fill().await?;
        }
    }

    /// The next message.
    pub async fn read(&mut self) -> Result<Frontend, Broken> {
        loop {
            if let Some(message) = messages::frontend(&mut self.input, self.known)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.input.reserve(8 << 10);
        if self.transport.read_buf(&mut self.input).await? == 0 {
            return Err(Broken::Gone);
        }
        Ok(())
    }

    /// Sends what is there.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        while self.out.0.has_remaining() {
            if self.transport.write_buf(&mut self.out.0).await? == 0 {
                return Err(Broken::Gone);
            }
        }
        self.transport.flush().await?;
        Ok(())
    }

    /// Sends what is there, if it is much.
    pub async fn flush_if_full(&mut self) -> Result<(), Broken> {
        if self.out.0.len() >= limits::WIRE_BUFFER_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Ends the connection.
    pub async fn close(&mut self) {
        // The client may have gone; then there is nobody to tell.
        let _ = self.flush().await;
        let _ = self.transport.shutdown().await;
    }
}
