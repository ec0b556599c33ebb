//! The simple way to ask: text with any number of statements, answers in text.

use super::connection::Connection;
use super::run::Started;
use super::wire::Broken;
use crate::failure::Failure;
use crate::{scan, statement};

impl Connection {
    /// Runs the statements of `sql`, up to the first that fails.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), Broken> {
        let statements = scan::split(sql);
        if statements.is_empty() {
            self.wire.out.bare(b'I');
        }
        for text in statements {
            if let Err(failure) = self.one(&text).await? {
                return self.fail(&failure);
            }
        }
        Ok(())
    }

    async fn one(&mut self, text: &str) -> Result<Result<(), Failure>, Broken> {
        let mut running = self.begin(text.trim());
        let statement = match statement::understand(text) {
            Ok(statement) => statement,
            Err(failure) => return Ok(Err(failure)),
        };
        let started = match self.start(&statement, &mut running).await {
            Ok(started) => started,
            Err(failure) => return Ok(Err(failure)),
        };
        match started {
            Started::Done(tag) => self.wire.out.complete(&tag),
            Started::Rows { mut rows, tag } => {
                self.wire.out.row_description(&rows.columns, &[]);
                match self.send(&mut rows, &[], None, &mut running).await? {
                    Ok(_) => self.wire.out.complete(&tag.with_rows(rows.sent)),
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            Started::Fetched { cursor, rows } => return self.fetched(&cursor, rows, true, &mut running).await,
            Started::CopyOut { copy, rows } => return self.copy_out(&copy, rows, &mut running).await,
            Started::CopyIn(copy) => return self.copy_in(&copy, &mut running).await,
        }
        Ok(Ok(()))
    }
}
