//! The rows of an answer, on their way to a client.

use std::sync::{Mutex, PoisonError};

use flumen_core::Result;
use flumen_core::sql::{Answer, BatchStream};
use futures::StreamExt as _;

use super::encode::times::Zone;
use super::encode::{self, Cells};
use super::messages::{Output, format_of};
use super::types::{self, Column};
use crate::catalog::listing::Snapshot;
use crate::catalog::{Answered, Value};
use bytes::{BufMut as _, BytesMut};
use flumen_core::limits;
use postgres_types::{Kind, Type};

/// Rows that come, and can be sent a few at a time.
pub(crate) struct Rows {
    /// The columns.
    pub columns: Vec<Column>,
    /// How many were sent.
    pub sent: u64,
    /// The rest of the batch that is being sent.
    cells: Vec<Box<dyn Cells>>,
    next: usize,
    length: usize,
    /// The time zone in which times are shown.
    zone: Zone,
    /// What is still to come. Nobody else ever waits for the lock: it makes the rows something that threads may share.
    batches: Option<Mutex<BatchStream>>,
}

impl Rows {
    /// The rows of an answer, whose points in time are shown in `zone`.
    pub(super) fn new(answer: Answer, zone: Zone) -> Self {
        let columns = types::columns(&answer.schema);
        let batches = Some(Mutex::new(answer.batches));
        Self { columns, sent: 0, cells: Vec::new(), next: 0, length: 0, zone, batches }
    }

    /// Rows that are there already.
    pub(super) fn of_cells(columns: Vec<Column>, cells: Vec<Box<dyn Cells>>, length: usize) -> Self {
        Self { columns, sent: 0, cells, next: 0, length, zone: Zone::default(), batches: None }
    }

    /// Waits until there is a row to send. False at the end.
    pub async fn wait(&mut self) -> Result<bool> {
        while self.next == self.length {
            let Some(batches) = &mut self.batches else { return Ok(false) };
            let stream = batches.get_mut().unwrap_or_else(PoisonError::into_inner);
            match stream.next().await.transpose()? {
                Some(batch) => {
                    self.cells = encode::columns(&batch, &self.zone)?;
                    (self.next, self.length) = (0, batch.num_rows());
                }
                None => {
                    // What the query held is let go.
                    self.batches = None;
                    self.cells = Vec::new();
                }
            }
        }
        Ok(true)
    }

    /// Writes rows that are there with `write`, up to `most`, until the output is full. Tells how many.
    pub(super) fn write_with(
        &mut self,
        most: usize,
        out: &mut Output,
        mut write: impl FnMut(&[Box<dyn Cells>], usize, &mut Output),
    ) -> usize {
        let mut written = 0;
        while self.next < self.length && written < most && out.0.len() < limits::WIRE_BUFFER_BYTES {
            write(&self.cells, self.next, out);
            self.next += 1;
            written += 1;
        }
        self.sent += written as u64;
        written
    }

    /// Writes rows as data rows.
    pub(super) fn write(&mut self, most: usize, formats: &[i16], out: &mut Output) -> usize {
        self.write_with(most, out, |cells, row, out| {
            let start = out.begin(b'D');
            out.0.extend_from_slice(&(cells.len() as u16).to_be_bytes());
            for (index, cells) in cells.iter().enumerate() {
                encode::field(cells.as_ref(), row, format_of(formats, index), &mut out.0);
            }
            out.end(start);
        })
    }

    /// Leaves rows out. Tells how many.
    pub fn skip(&mut self, most: usize) -> usize {
        let skipped = most.min(self.length - self.next);
        self.next += skipped;
        skipped
    }
}

/// The rows of an answer that is there as a whole.
pub(crate) fn rows_of_values(answered: Answered, snapshot: &Snapshot) -> Rows {
    let length = answered.rows.len();
    let mut columns: Vec<Vec<Option<Written>>> = answered.columns.iter().map(|_| Vec::with_capacity(length)).collect();
    for row in &answered.rows {
        for ((column, values), value) in answered.columns.iter().zip(&mut columns).zip(row) {
            values.push(written(value, &column.kind, snapshot));
        }
    }
    let cells = columns.into_iter().map(|values| Box::new(Values(values)) as Box<dyn Cells>).collect();
    Rows::of_cells(answered.columns, cells, length)
}

/// A value in both formats.
struct Written {
    text: String,
    binary: Vec<u8>,
}

struct Values(Vec<Option<Written>>);

impl Cells for Values {
    fn is_null(&self, row: usize) -> bool {
        self.0.get(row).is_none_or(Option::is_none)
    }
    fn text(&self, row: usize, out: &mut BytesMut) {
        if let Some(Some(value)) = self.0.get(row) {
            out.put_slice(value.text.as_bytes());
        }
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        if let Some(Some(value)) = self.0.get(row) {
            out.put_slice(&value.binary);
        }
    }
}

fn written(value: &Value, kind: &Type, snapshot: &Snapshot) -> Option<Written> {
    let text = match *kind {
        Type::INT2_VECTOR | Type::OID_VECTOR => value.vector().or_else(|| value.shown(snapshot))?,
        _ => value.shown(snapshot)?,
    };
    let binary = binary(value, kind, snapshot).unwrap_or_else(|| text.clone().into_bytes());
    Some(Written { text, binary })
}

fn binary(value: &Value, kind: &Type, snapshot: &Snapshot) -> Option<Vec<u8>> {
    let int = || value.int();
    Some(match *kind {
        Type::BOOL => vec![u8::from(value.truth()?)],
        Type::INT2 => i16::try_from(int()?).ok()?.to_be_bytes().to_vec(),
        Type::INT4 => i32::try_from(int()?).ok()?.to_be_bytes().to_vec(),
        Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGPROC | Type::REGNAMESPACE | Type::REGROLE | Type::XID => {
            u32::try_from(int()?).ok()?.to_be_bytes().to_vec()
        }
        Type::INT8 => int()?.to_be_bytes().to_vec(),
        Type::FLOAT4 => (value.float()? as f32).to_be_bytes().to_vec(),
        Type::FLOAT8 => value.float()?.to_be_bytes().to_vec(),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => match value {
            Value::Time(micros) => micros.saturating_sub(encode::times::EPOCH_MICROS).to_be_bytes().to_vec(),
            _ => return None,
        },
        Type::INTERVAL => [&int()?.to_be_bytes()[..], &[0; 8]].concat(),
        Type::NUMERIC => {
            let mut out = BytesMut::new();
            encode::numbers::numeric_binary(value.shown(snapshot)?.as_bytes(), &mut out);
            out.to_vec()
        }
        _ => {
            let element = match (kind.kind(), kind) {
                (Kind::Array(element), _) => element.clone(),
                (_, &Type::INT2_VECTOR) => Type::INT2,
                (_, &Type::OID_VECTOR) => Type::OID,
                _ => return None,
            };
            let Value::Array(values) = value else { return None };
            let first = if matches!(kind.kind(), Kind::Array(_)) { 1 } else { 0 };
            let mut out = BytesMut::new();
            out.put_i32(i32::from(!values.is_empty()));
            out.put_i32(i32::from(values.iter().any(Value::is_null)));
            out.put_u32(element.oid());
            if !values.is_empty() {
                out.put_i32(values.len() as i32);
                out.put_i32(first);
            }
            for value in values.iter() {
                match written(value, &element, snapshot) {
                    Some(written) => {
                        out.put_i32(written.binary.len() as i32);
                        out.put_slice(&written.binary);
                    }
                    None => out.put_i32(-1),
                }
            }
            out.to_vec()
        }
    })
}
