//! The messages of Postgres' protocol, version 3. What a client sends is checked to its last byte: a message that is cut
//! short, or that says it is longer than it is, is an error and nothing worse.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::types::Column;
use crate::failure::{Failure, code};

/// The longest message before a client is known.
const OPENING_BYTES: usize = 16 << 10;
/// The longest message that Postgres takes.
const MESSAGE_BYTES: usize = 0x3fff_ffff;

/// What a client can begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It asks for TLS.
    Tls,
    /// It asks for encryption by GSSAPI.
    Gss,
    /// It wants the statement of another connection stopped.
    Cancel { pid: i32, key: i32 },
    /// It wants a session.
    Startup { major: u16, minor: u16, parameters: Vec<(String, String)> },
}

/// What a client says later.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    Query(String),
    Parse {
        name: String,
        query: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// A password, or a step of SASL.
    Password(Bytes),
}

/// Parameters for a prepared statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub portal: String,
    pub statement: String,
    pub formats: Vec<i16>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

/// What is described or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Statement,
    Portal,
}

/// The first message in `buffer`, if it is there as a whole.
pub(super) fn opening(buffer: &mut BytesMut) -> Result<Option<Opening>, Failure> {
    let Some(body) = cut(buffer, 0, OPENING_BYTES)? else { return Ok(None) };
    let mut reader = Reader(body);
    let (major, minor) = (reader.u16()?, reader.u16()?);
    Ok(Some(match (major, minor) {
        (1234, 5679) => Opening::Tls,
        (1234, 5680) => Opening::Gss,
        (1234, 5678) => Opening::Cancel { pid: reader.i32()?, key: reader.i32()? },
        _ => {
            let mut parameters = Vec::new();
            loop {
                let name = reader.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, reader.text()?));
            }
            Opening::Startup { major, minor, parameters }
        }
    }))
}

/// The next message in `buffer`, if it is there as a whole.
pub(super) fn frontend(buffer: &mut BytesMut, known: bool) -> Result<Option<Frontend>, Failure> {
    let Some(kind) = buffer.first().copied() else { return Ok(None) };
    let Some(body) = cut(buffer, 1, if known { MESSAGE_BYTES } else { OPENING_BYTES })? else { return Ok(None) };
    let mut reader = Reader(body);
    let message = match kind {
        b'Q' => Frontend::Query(reader.text()?),
        b'P' => Frontend::Parse {
            name: reader.text()?,
            query: reader.text()?,
            types: reader.many(|reader| Ok(reader.i32()? as u32))?,
        },
        b'B' => Frontend::Bind(Bind {
            portal: reader.text()?,
            statement: reader.text()?,
            formats: reader.many(Reader::i16)?,
            parameters: reader.many(Reader::value)?,
            result_formats: reader.many(Reader::i16)?,
        }),
        b'D' => Frontend::Describe { target: reader.target()?, name: reader.text()? },
        b'E' => {
            Frontend::Execute { portal: reader.text()?, max_rows: usize::try_from(reader.i32()?).unwrap_or_default() }
        }
        b'C' => Frontend::Close { target: reader.target()?, name: reader.text()? },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'd' => Frontend::CopyData(reader.rest()),
        b'c' => Frontend::CopyDone,
        b'f' => Frontend::CopyFail(reader.text()?),
        b'p' => Frontend::Password(reader.rest()),
        b'F' => {
            return Err(Failure::fatal(code::FEATURE_NOT_SUPPORTED, "the function call protocol is not spoken here"));
        }
        other => return Err(violation(format!("there is no message of type {:?}", char::from(other)))),
    };
    if reader.0.has_remaining() {
        return Err(violation("a message is longer than what it holds"));
    }
    Ok(Some(message))
}

/// The mechanism and the first message of SASL, out of a password message.
pub(super) fn sasl_initial(body: Bytes) -> Result<(String, Bytes), Failure> {
    let mut reader = Reader(body);
    Ok((reader.text()?, reader.value()?.unwrap_or_default()))
}

/// The body of the message that begins at `offset`, taken out of `buffer` with its head.
fn cut(buffer: &mut BytesMut, offset: usize, limit: usize) -> Result<Option<Bytes>, Failure> {
    let Some(length) = buffer.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()) else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=limit).contains(&length) {
        return Err(violation(format!("a message says to be {length} bytes long")));
    }
    if buffer.len() < offset + length {
        return Ok(None);
    }
    buffer.advance(offset + 4);
    Ok(Some(buffer.split_to(length - 4).freeze()))
}

fn violation(message: impl Into<String>) -> Failure {
    Failure::fatal(code::PROTOCOL_VIOLATION, message)
}

/// Reads the body of one message.
struct Reader(Bytes);

impl Reader {
    fn need(&self, bytes: usize) -> Result<(), Failure> {
        if self.0.len() < bytes { Err(violation("a message is cut short")) } else { Ok(()) }
    }

    fn u16(&mut self) -> Result<u16, Failure> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    fn i16(&mut self) -> Result<i16, Failure> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    fn i32(&mut self) -> Result<i32, Failure> {
        self.need(4)?;
        Ok(self.0.get_i32())
    }

    fn target(&mut self) -> Result<Target, Failure> {
        self.need(1)?;
        match self.0.get_u8() {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            _ => Err(violation("neither a statement nor a portal is meant")),
        }
    }

    fn text(&mut self) -> Result<String, Failure> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(|| violation("a text has no end"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| violation("a text is not UTF-8"))
    }

    fn value(&mut self) -> Result<Option<Bytes>, Failure> {
        let Ok(length) = usize::try_from(self.i32()?) else { return Ok(None) };
        self.need(length)?;
        Ok(Some(self.0.split_to(length)))
    }

    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
        (0..self.u16()?).map(|_| one(self)).collect()
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

/// What goes to a client, one message after the other.
#[derive(Debug, Default)]
pub(super) struct Output(pub BytesMut);

impl Output {
    /// One message of `kind`, whose body `write` writes.
    pub fn message(&mut self, kind: u8, write: impl FnOnce(&mut BytesMut)) {
        let start = self.begin(kind);
        write(&mut self.0);
        self.end(start);
    }

    /// Begins a message; [`Output::end`] takes what is returned.
    pub fn begin(&mut self, kind: u8) -> usize {
        self.0.put_u8(kind);
        let start = self.0.len();
        self.0.put_u32(0);
        start
    }

    /// Ends a message.
    pub fn end(&mut self, start: usize) {
        let length = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub fn authentication(&mut self, kind: u32, body: &[u8]) {
        self.message(b'R', |out| {
            out.put_u32(kind);
            out.put_slice(body);
        });
    }

    pub fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |out| {
            text(out, name);
            text(out, value);
        });
    }

    pub fn key(&mut self, pid: i32, key: i32) {
        self.message(b'K', |out| {
            out.put_i32(pid);
            out.put_i32(key);
        });
    }

    pub fn negotiate(&mut self, unknown: &[&str]) {
        self.message(b'v', |out| {
            // Version 3.0 is the newest that is spoken.
            out.put_i32(0);
            out.put_i32(unknown.len() as i32);
            unknown.iter().for_each(|name| text(out, name));
        });
    }

    /// `status` is `I`, `T` or `E`.
    pub fn ready(&mut self, status: u8) {
        self.message(b'Z', |out| out.put_u8(status));
    }

    pub fn error(&mut self, failure: &Failure) {
        self.fields(b'E', &failure.fields());
    }

    pub fn notice(&mut self, severity: &str, code: &str, message: &str) {
        let fields = [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)];
        self.fields(b'N', &fields.map(|(kind, value)| (kind, value.to_owned())));
    }

    fn fields(&mut self, kind: u8, fields: &[(u8, String)]) {
        self.message(kind, |out| {
            for (kind, value) in fields {
                out.put_u8(*kind);
                text(out, value);
            }
            out.put_u8(0);
        });
    }

    pub fn complete(&mut self, tag: &str) {
        self.message(b'C', |out| text(out, tag));
    }

    /// A message without a body.
    pub fn bare(&mut self, kind: u8) {
        self.message(kind, |_| {});
    }

    pub fn row_description(&mut self, columns: &[Column], formats: &[i16]) {
        self.message(b'T', |out| {
            out.put_u16(columns.len() as u16);
            for (index, column) in columns.iter().enumerate() {
                text(out, &column.name);
                out.put_u32(column.table);
                out.put_i16(column.number);
                out.put_u32(column.oid());
                out.put_i16(column.size);
                out.put_i32(column.modifier);
                out.put_i16(format_of(formats, index));
            }
        });
    }

    pub fn parameter_description(&mut self, types: &[u32]) {
        self.message(b't', |out| {
            out.put_u16(types.len() as u16);
            types.iter().for_each(|oid| out.put_u32(*oid));
        });
    }

    /// The answer to the beginning of a COPY, in (`G`) or out (`H`).
    pub fn copy_begins(&mut self, kind: u8, binary: bool, columns: usize) {
        self.message(kind, |out| {
            out.put_u8(u8::from(binary));
            out.put_u16(columns as u16);
            (0..columns).for_each(|_| out.put_i16(i16::from(binary)));
        });
    }
}

fn text(out: &mut BytesMut, text: &str) {
    // A zero byte would end the text too early.
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

/// The format of the value at `index`: none given means text, one given is for all.
pub(super) fn format_of(formats: &[i16], index: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(index).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> BytesMut {
        let mut out = Output::default();
        out.message(b'B', |out| {
            text(out, "portal");
            text(out, "statement");
            out.put_u16(1);
            out.put_i16(1);
            out.put_u16(2);
            out.put_i32(3);
            out.put_slice(b"abc");
            out.put_i32(-1);
            out.put_u16(0);
        });
        out.0
    }

    #[test]
    fn messages_are_read_when_they_are_whole() {
        let whole = bind();
        for end in 0..whole.len() {
            assert_eq!(frontend(&mut BytesMut::from(&whole[..end]), true), Ok(None), "{end}");
        }
        let mut buffer = whole.clone();
        buffer.extend_from_slice(b"S\0\0\0\x04");
        let Ok(Some(Frontend::Bind(bind))) = frontend(&mut buffer, true) else { panic!("no bind") };
        assert_eq!(bind.parameters, [Some(Bytes::from_static(b"abc")), None]);
        assert_eq!((bind.portal.as_str(), bind.formats.as_slice()), ("portal", &[1][..]));
        assert_eq!(frontend(&mut buffer, true), Ok(Some(Frontend::Sync)));
    }

    /// Every message with a wrong length, and every message with a byte changed, is an error or another message.
    #[test]
    fn what_is_broken_is_an_error_and_never_worse() {
        let whole = bind();
        for index in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[index] = byte;
                drop(frontend(&mut broken, true));
            }
        }
        for length in 0..whole.len() as u32 - 1 {
            let mut broken = whole.clone();
            broken[1..5].copy_from_slice(&length.to_be_bytes());
            assert!(frontend(&mut broken, true).is_err(), "{length}");
        }
        assert!(frontend(&mut BytesMut::from(&b"Q\x7f\xff\xff\xff"[..]), true).is_err());
        assert!(frontend(&mut BytesMut::from(&b"Q\0\0\xff\xff"[..]), false).is_err());
    }

    #[test]
    fn openings() {
        let mut startup = BytesMut::new();
        startup.put_u32(4 + 4 + 9 + 1);
        startup.put_u32(3 << 16);
        startup.put_slice(b"user\0ann\0\0");
        let parameters = vec![("user".to_owned(), "ann".to_owned())];
        assert_eq!(opening(&mut startup), Ok(Some(Opening::Startup { major: 3, minor: 0, parameters })));
        let mut cancel = BytesMut::from(&[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 0, 0, 0, 9][..]);
        assert_eq!(opening(&mut cancel), Ok(Some(Opening::Cancel { pid: 7, key: 9 })));
        assert!(opening(&mut BytesMut::from(&[0, 0, 0, 8, 0, 3, 0, 0][..])).is_err());
    }
}
