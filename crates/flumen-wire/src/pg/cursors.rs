//! Cursors: answers with a name, from which rows are taken a few at a time.

use super::connection::{Connection, Running, Transaction};
use super::extended::{Portal, State};
use super::run::{Started, Tag};
use super::wire::Broken;
use crate::failure::{Failure, code};
use crate::statement;
use flumen_core::limits;

impl Connection {
    /// Opens a cursor over `query`.
    pub(super) async fn declare(
        &mut self,
        name: &str,
        query: &str,
        hold: bool,
        binary: bool,
        running: &mut Running,
    ) -> Result<Started, Failure> {
        if self.transaction == Transaction::None && !hold {
            return Err(Failure::new(
                code::NO_ACTIVE_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .hint("begin a transaction, or declare it 'with hold'"));
        }
        if self.portals.contains_key(name) {
            return Err(Failure::new(code::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        self.room_for_portal()?;
        let statement = statement::understand(query)?;
        let started = Box::pin(self.start(&statement, running)).await?;
        let Started::Rows { rows, .. } = started else {
            return Err(Failure::new(code::SYNTAX_ERROR, "a cursor is over a query"));
        };
        let formats = vec![i16::from(binary)];
        let state = State::Rows { rows, tag: Tag("FETCH".to_owned()) };
        self.portals.insert(name.to_owned(), Portal { statement, formats, state, hold, cursor: true });
        Ok(Started::Done("DECLARE CURSOR".to_owned()))
    }

    /// Sends rows of a cursor.
    pub(super) async fn fetched(
        &mut self,
        cursor: &str,
        most: Option<usize>,
        described: bool,
        running: &mut Running,
    ) -> Result<Result<(), Failure>, Broken> {
        let Some(mut portal) = self.portals.remove(cursor).filter(|portal| matches!(portal.state, State::Rows { .. }))
        else {
            return Ok(Err(no_cursor(cursor)));
        };
        let State::Rows { rows, .. } = &mut portal.state else { return Ok(Err(no_cursor(cursor))) };
        if described {
            self.wire.out.row_description(&rows.columns, &portal.formats);
        }
        let before = rows.sent;
        let sent = self.send(rows, &portal.formats, most, running).await?;
        let tag = format!("FETCH {}", rows.sent - before);
        match sent {
            Ok(_) => {
                self.wire.out.complete(&tag);
                self.portals.insert(cursor.to_owned(), portal);
                Ok(Ok(()))
            }
            // What is left of a cursor that failed is nothing.
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Leaves rows of a cursor out.
    pub(super) async fn skip(
        &mut self,
        cursor: &str,
        most: Option<usize>,
        running: &mut Running,
    ) -> Result<Started, Failure> {
        let portal = self.portals.get_mut(cursor).ok_or_else(|| no_cursor(cursor))?;
        let State::Rows { rows, .. } = &mut portal.state else { return Err(no_cursor(cursor)) };
        let mut skipped = 0;
        let most = most.unwrap_or(usize::MAX);
        while skipped < most && running.run(rows.wait()).await?? {
            skipped += rows.skip(most - skipped);
        }
        Ok(Started::Done(format!("MOVE {skipped}")))
    }

    /// Closes a cursor, or all of them.
    pub(super) fn close_cursor(&mut self, cursor: Option<&str>) -> Result<Started, Failure> {
        match cursor {
            Some(name) if self.portals.remove(name).is_none() => Err(no_cursor(name)),
            Some(_) => Ok(Started::Done("CLOSE CURSOR".to_owned())),
            None => {
                self.portals.retain(|_, portal| !portal.cursor);
                Ok(Started::Done("CLOSE CURSOR ALL".to_owned()))
            }
        }
    }

    /// Whether one more portal may be opened.
    pub(super) fn room_for_portal(&self) -> Result<(), Failure> {
        if self.portals.len() < limits::PORTALS {
            return Ok(());
        }
        Err(Failure::new(code::LIMIT_EXCEEDED, format!("{} cursors are open", self.portals.len()))
            .hint("close some of them"))
    }
}

pub(super) fn no_cursor(name: &str) -> Failure {
    Failure::new(code::UNDEFINED_CURSOR, format!("cursor \"{name}\" does not exist"))
}
