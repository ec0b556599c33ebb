//! COPY … FROM STDIN: rows of a client become the rows of one INSERT, as they come.

pub(super) mod parse;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use flumen_core::sql::BatchStream;
use flumen_core::{Error, limits};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::connection::{Connection, Running};
use super::copy_out::quoted_name;
use super::messages::Frontend;
use super::wire::Broken;
use crate::copy::{Copy, Format, What};
use crate::failure::{Failure, code};
use parse::Parser;

/// The name of the client's rows in the statement that inserts them.
const ROWS: &str = "_flumen_copy";

/// What comes from the client.
enum Piece {
    Data(Bytes),
    Done,
}

impl Connection {
    /// Takes the client's rows.
    pub(super) async fn copy_in(&mut self, copy: &Copy, running: &mut Running) -> Result<Result<(), Failure>, Broken> {
        let (table, schema) = match self.target(copy, running).await {
            Ok(target) => target,
            Err(failure) => return Ok(Err(failure)),
        };
        let (pieces, received) = mpsc::channel(limits::COPY_QUEUE);
        let zone = self.settings().get("timezone").unwrap_or_default();
        let rows = batches(Parser::new(&copy.format, &schema, &zone), received);
        let columns: Vec<String> = schema.fields().iter().map(|field| quoted_name(field.name())).collect();
        let columns = columns.join(", ");
        let sql = format!("insert into {table} ({columns}) select {columns} from {ROWS}");
        let engine = Arc::clone(&self.engine);
        let read = rows.1;
        let batches = rows.0;
        let insert = tokio::spawn(async move {
            let mut answer = engine.query_with_rows(&sql, ROWS, schema, batches).await?;
            while let Some(batch) = answer.batches.next().await {
                batch?;
            }
            Ok::<_, Error>(())
        });
        // However this ends, nothing goes on inserting.
        let insert = Abort(insert);
        self.wire.out.copy_begins(b'G', copy.format == Format::Binary, columns.split(", ").count());
        self.wire.flush().await?;
        let received = self.receive(pieces, running).await;
        match received {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Ok(Err(failure)),
            Err(broken) => return Err(broken),
        }
        let inserted = match running.run(insert.done()).await {
            Ok(inserted) => inserted,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Err(error) = inserted {
            return Ok(Err(Failure::from(error)));
        }
        self.wire.out.complete(&format!("COPY {}", read.load(std::sync::atomic::Ordering::Relaxed)));
        Ok(Ok(()))
    }

    /// Hands on what the client sends, up to its end. What comes after the rows have failed is dropped.
    async fn receive(
        &mut self,
        pieces: mpsc::Sender<Piece>,
        running: &mut Running,
    ) -> Result<Result<(), Failure>, Broken> {
        let mut heard = true;
        loop {
            let message = match running.run(self.wire.read()).await {
                Ok(message) => message?,
                Err(failure) => return Ok(Err(failure)),
            };
            let piece = match message {
                Frontend::CopyData(data) => Piece::Data(data),
                Frontend::CopyDone => Piece::Done,
                Frontend::CopyFail(why) => {
                    let message = format!("COPY from stdin failed: {why}");
                    return Ok(Err(Failure::new(code::QUERY_CANCELED, message)));
                }
                Frontend::Flush | Frontend::Sync => continue,
                _ => {
                    return Err(Failure::fatal(code::PROTOCOL_VIOLATION, "unexpected message during COPY").into());
                }
            };
            let done = matches!(piece, Piece::Done);
            if heard {
                match running.run(pieces.send(piece)).await {
                    // Those who read have stopped: they know why.
                    Ok(sent) => heard = sent.is_ok(),
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            if done {
                return Ok(Ok(()));
            }
        }
    }

    /// The table, and its columns that are copied.
    async fn target(&self, copy: &Copy, running: &mut Running) -> Result<(String, SchemaRef), Failure> {
        let What::Table { name, columns } = &copy.what else {
            return Err(Failure::new(code::SYNTAX_ERROR, "rows cannot be copied into a query"));
        };
        let schema = self.ask(&format!("select * from {name} limit 0"), running).await?.schema;
        if columns.is_empty() {
            return Ok((name.clone(), schema));
        }
        let field = |column: &String| {
            let exact = schema.fields().iter().find(|field| field.name() == column);
            let found =
                exact.or_else(|| schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(column)));
            found
                .cloned()
                .ok_or_else(|| Failure::new(code::UNDEFINED_COLUMN, format!("there is no column '{column}' in {name}")))
        };
        let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        Ok((name.clone(), Arc::new(Schema::new(fields))))
    }
}

/// The rows that `parser` finds, as batches, and a count of them.
fn batches(parser: Parser, received: mpsc::Receiver<Piece>) -> (BatchStream, Arc<std::sync::atomic::AtomicU64>) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let stream = futures::stream::try_unfold((parser, received, false), move |(mut parser, mut received, ended)| {
        let count = Arc::clone(&count);
        async move {
            if ended {
                return Ok(None);
            }
            let mut ended = false;
            let batch = loop {
                match received.recv().await {
                    Some(Piece::Data(data)) => {
                        parser.feed(&data)?;
                        if parser.rows() >= limits::COPY_BATCH_ROWS {
                            break parser.take()?;
                        }
                    }
                    Some(Piece::Done) => {
                        parser.finish()?;
                        ended = true;
                        break parser.take()?;
                    }
                    // The client did not come to an end: nothing of it counts.
                    None => return Err(Error::cancelled()),
                }
            };
            count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            Ok(Some((batch, (parser, received, ended))))
        }
    });
    (stream.boxed(), read)
}

/// A task that ends when this is dropped.
struct Abort(tokio::task::JoinHandle<flumen_core::Result<()>>);

impl Abort {
    async fn done(mut self) -> flumen_core::Result<()> {
        let joined = (&mut self.0).await;
        joined.map_err(|error| Error::internal("an insert broke off").caused_by(error))?
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
