//! Reads ahead in a thread of its own, so that unpacking and downloading go on while blocks are parsed.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flumen_core::{Error, Result};

/// Bytes in one piece, and pieces that may wait: what is read ahead stays under two megabytes.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 6;

/// What another thread reads.
pub(super) struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl ReadAhead {
    /// Starts to read. The thread ends with the reader, or soon after this is dropped.
    pub fn new(mut reader: Box<dyn Read + Send>) -> Result<Self> {
        let (send, pieces) = sync_channel(PIECES);
        let (used, spare) = sync_channel::<Vec<u8>>(PIECES + 2);
        let work = move || {
            loop {
                let mut piece = spare.try_recv().unwrap_or_default();
                piece.clear();
                let result = reader.as_mut().take(PIECE_BYTES as u64).read_to_end(&mut piece);
                let last = !matches!(result, Ok(PIECE_BYTES));
                // What came before an error is delivered before it.
                let delivered = piece.is_empty() || send.send(Ok(piece)).is_ok();
                let failed = result.err().map(|error| send.send(Err(error)));
                if last || !delivered || failed.is_some() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(work)
            .map_err(|error| Error::unavailable(format!("no thread can be started: {error}")).caused_by(error))?;
        Ok(Self { pieces, used, piece: Vec::new(), at: 0, ended: false })
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            // When nobody takes it back, the piece is freed.
            let _ = self.used.try_send(std::mem::take(&mut self.piece));
            self.at = 0;
            match self.pieces.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => self.ended = true,
            }
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_what_was_there_and_errors_come_at_their_place() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut text = Vec::new();
        let whole = io::Cursor::new(bytes.clone());
        ReadAhead::new(Box::new(whole.clone())).unwrap().read_to_end(&mut text).unwrap();
        assert_eq!(text, bytes);
        text.clear();
        let error = ReadAhead::new(Box::new(whole.chain(Fails))).unwrap().read_to_end(&mut text).unwrap_err();
        assert_eq!((error.to_string().as_str(), text.len()), ("gone", bytes.len()));
    }
}
