//! What a statement comes to.

use datafusion::sql::sqlparser::ast::Query;
use flumen_core::sql::{Answer, Done, SqlEngine as _};
use flumen_lake::engine::prepare::Description;
use futures::{FutureExt as _, StreamExt as _};
use postgres_types::Type;

use super::connection::{Connection, Running, Transaction};
use super::encode::times::Zone;
use super::names;
use super::rows::Rows;
use super::types::Column;
use super::wire::Broken;
use crate::catalog::Value;
use crate::copy::Copy;
use crate::failure::{Failure, code};
use crate::settings::SessionSettings;
use crate::statement::{Kind, Statement};

/// What a statement comes to.
pub(super) enum Started {
    /// It is done.
    Done(String),
    /// It answers rows.
    Rows { rows: Rows, tag: Tag },
    /// It takes rows from a cursor.
    Fetched { cursor: String, rows: Option<usize> },
    /// Rows go out.
    CopyOut { copy: Copy, rows: Rows },
    /// Rows come in.
    CopyIn(Copy),
}

/// What is said when a statement is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(pub String);

impl Tag {
    /// With the number of rows, where that is told.
    pub fn with_rows(&self, rows: u64) -> String {
        match self.0.as_str() {
            "SELECT" | "FETCH" => {
                format!("{} {rows}", self.0)
            }
            other => other.to_owned(),
        }
    }
}

impl Connection {
    /// Begins to run `statement`.
    pub(super) async fn start(&mut self, statement: &Statement, running: &mut Running) -> Result<Started, Failure> {
        self.check(statement)?;
        self.tell_whether_reads_only();
        self.tell_zone().await?;
        let done = |tag: &str| Ok(Started::Done(tag.to_owned()));
        match &statement.kind {
            Kind::Begin { read_only } => self.begin_block(*read_only).await,
            Kind::Commit => self.end_block(true, running).await,
            Kind::Rollback => self.end_block(false, running).await,
            // A block that only the door knows to have failed has savepoints, too.
            Kind::Savepoint | Kind::Release => self.run_by_engine(&statement.text, running, "").await,
            Kind::RollbackTo => {
                let started = self.run_by_engine(&statement.text, running, "").await?;
                if self.transaction == Transaction::Failed {
                    self.transaction = Transaction::Open;
                }
                Ok(started)
            }
            Kind::SetTransaction { read_only } => {
                self.set("transaction_read_only", Some(if *read_only { "on" } else { "off" }), true)?;
                done("SET")
            }
            Kind::Set { name, value, local } if SessionSettings::knows(name) => {
                self.set(name, value.as_deref(), *local)?;
                done(if value.is_some() { "SET" } else { "RESET" })
            }
            Kind::Set { name, .. } if !name.contains('.') => {
                Err(Failure::new(code::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\"")))
            }
            Kind::Set { value, .. } => {
                self.drained(&statement.text, running).await?;
                done(if value.is_some() { "SET" } else { "RESET" })
            }
            Kind::Show(name) => self.show(name, &statement.text, running).await,
            Kind::ResetAll => {
                let before = self.reported();
                self.settings().reset_all();
                self.report_changes(&before);
                done("RESET")
            }
            Kind::Copy(copy) => self.copy(copy, &statement.text, running).await,
            Kind::Declare { name, query, hold, binary } => self.declare(name, query, *hold, *binary, running).await,
            Kind::Fetch { cursor, rows, skip: false } => Ok(Started::Fetched { cursor: cursor.clone(), rows: *rows }),
            Kind::Fetch { cursor, rows, skip: true } => self.skip(cursor, *rows, running).await,
            Kind::Close(cursor) => self.close_cursor(cursor.as_deref()),
            Kind::DiscardAll => {
                self.portals.clear();
                self.statements.clear();
                let before = self.reported();
                self.settings().reset_all();
                self.report_changes(&before);
                done("DISCARD ALL")
            }
            Kind::Deallocate(name) => {
                let known = match name {
                    Some(name) => self.statements.remove(name).is_some(),
                    None => {
                        self.statements.clear();
                        true
                    }
                };
                if !known {
                    // It may be one of PREPARE's.
                    self.drained(&statement.text, running).await?;
                }
                done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" })
            }
            Kind::Unlisten => done("UNLISTEN"),
            Kind::Query(query) => {
                if self.catalog.answers(query) {
                    match running.run(self.catalog.query(query)).await? {
                        Ok(rows) => return Ok(Started::Rows { rows, tag: Tag("SELECT".to_owned()) }),
                        // What only the engine can do, it does with the tables of the catalog that it is lent.
                        Err(failure) if failure.is_about_language() => {
                            let started = self.query_by_engine(query, &statement.text, running).await;
                            return started.map_err(|other| if other.is_stop() { other } else { failure });
                        }
                        Err(failure) => return Err(failure),
                    }
                }
                self.query_by_engine(query, &statement.text, running).await
            }
            Kind::Other { word, .. } => self.run_by_engine(&statement.text, running, word).await,
        }
    }

    /// What the engine answers to `query`, whose text is `sql`.
    async fn query_by_engine(&self, query: &Query, sql: &str, running: &mut Running) -> Result<Started, Failure> {
        let mut started = self.run_by_engine(sql, running, "SELECT").await?;
        if let Started::Rows { rows, .. } = &mut started {
            names::rename(query, &mut rows.columns);
        }
        Ok(started)
    }

    /// What the engine does with `sql`. `word` is what is said of rows.
    pub(super) async fn run_by_engine(&self, sql: &str, running: &mut Running, word: &str) -> Result<Started, Failure> {
        let answer = self.ask(sql, running).await?;
        if !answer.schema.fields().is_empty() {
            let tag = Tag(answer.done.as_ref().map_or_else(|| word.to_owned(), tag_of));
            return Ok(Started::Rows { rows: Rows::new(answer, self.zone()), tag });
        }
        let done = drain(answer, running, sql).await?;
        Ok(Started::Done(done.map_or_else(|| word.to_owned(), |done| tag_of(&done))))
    }

    /// Whether the statement may run now.
    pub(super) fn check(&self, statement: &Statement) -> Result<(), Failure> {
        let ends = matches!(statement.kind, Kind::Commit | Kind::Rollback | Kind::RollbackTo);
        if self.transaction == Transaction::Failed && !ends {
            return Err(Failure::new(
                code::IN_FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Tells the engine whether it may write now.
    fn tell_whether_reads_only(&self) {
        let on = |name: &str| self.settings().get(name).as_deref() == Some("on");
        let outside = self.transaction == Transaction::None;
        self.engine.set_reads_only(on("transaction_read_only") || (outside && on("default_transaction_read_only")));
    }

    /// The time zone in which times are shown.
    fn zone(&self) -> Zone {
        Zone::named(&self.settings().get("timezone").unwrap_or_default())
    }

    /// Tells the engine in which time zone times are meant, if that has changed.
    async fn tell_zone(&mut self) -> Result<(), Failure> {
        let zone = self.settings().get("timezone").unwrap_or_default();
        if zone != self.told_zone && self.transaction != Transaction::Failed {
            self.engine.query(&format!("set datafusion.execution.time_zone = '{zone}'")).await?;
            self.told_zone = zone;
        }
        Ok(())
    }

    /// Asks the engine.
    pub(super) async fn ask(&self, sql: &str, running: &mut Running) -> Result<Answer, Failure> {
        let told = running.run(self.catalog.tell(sql)).await??;
        running.run(self.engine.query(&told.sql)).await?.map_err(|error| Failure::about(&error, sql))
    }

    /// Asks the engine what it would answer.
    pub(super) async fn plan(&self, sql: &str) -> Result<Description, Failure> {
        let told = self.catalog.tell(sql).boxed().await?;
        self.engine.describe(&told.sql).boxed().await.map_err(|error| Failure::about(&error, sql))
    }

    /// Runs a statement of the engine to its end.
    async fn drained(&self, sql: &str, running: &mut Running) -> Result<Option<Done>, Failure> {
        let answer = self.ask(sql, running).await?;
        drain(answer, running, sql).await
    }

    async fn begin_block(&mut self, read_only: bool) -> Result<Started, Failure> {
        if self.transaction != Transaction::None {
            self.wire.out.notice("WARNING", code::ACTIVE_TRANSACTION, "there is already a transaction in progress");
            return Ok(Started::Done("BEGIN".to_owned()));
        }
        self.engine.query("BEGIN").await?;
        self.transaction = Transaction::Open;
        let settings = self.settings().clone();
        self.saved = Some((settings, Vec::new()));
        let default = self.settings().get("default_transaction_read_only");
        if read_only || default.as_deref() == Some("on") {
            self.set("transaction_read_only", Some("on"), true)?;
        }
        Ok(Started::Done("BEGIN".to_owned()))
    }

    async fn end_block(&mut self, commit: bool, running: &Running) -> Result<Started, Failure> {
        if self.transaction == Transaction::None {
            self.wire.out.notice("WARNING", code::NO_ACTIVE_TRANSACTION, "there is no transaction in progress");
            return Ok(Started::Done(if commit { "COMMIT" } else { "ROLLBACK" }.to_owned()));
        }
        running.check()?;
        let commit = commit && self.transaction == Transaction::Open;
        self.transaction = Transaction::None;
        self.portals.retain(|_, portal| portal.hold && commit);
        let before = self.reported();
        if let Some((saved, local)) = self.saved.take() {
            let mut settings = self.settings();
            if commit {
                for name in local {
                    // It was good before.
                    let _ = settings.set(&name, saved.get(&name).as_deref());
                }
            } else {
                *settings = saved;
            }
        }
        self.report_changes(&before);
        // A commit that has begun is not broken off: one would not know what came of it.
        let ended = self.engine.query(if commit { "COMMIT" } else { "ROLLBACK" }).await;
        let done = ended.map_err(|error| Failure::about(&error, ""))?.done;
        Ok(Started::Done(done.map_or_else(|| "ROLLBACK".to_owned(), |done| tag_of(&done))))
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<(), Failure> {
        if local && self.transaction == Transaction::None {
            self.wire.out.notice("WARNING", code::NO_ACTIVE_TRANSACTION, "this can only be set within a transaction");
            return Ok(());
        }
        self.settings().set(name, value)?;
        if let Some((_, names)) = self.saved.as_mut().filter(|_| local) {
            names.push(name.to_lowercase());
        }
        if name.eq_ignore_ascii_case("application_name") {
            let name = self.settings().get(name).unwrap_or_default();
            self.session.set_application(&name);
        }
        self.report(name);
        Ok(())
    }

    async fn show(&mut self, name: &str, sql: &str, running: &mut Running) -> Result<Started, Failure> {
        let tag = Tag("SHOW".to_owned());
        if name == "all" {
            let columns = ["name", "setting", "description"].map(|name| Column::new(name, Type::TEXT));
            let rows = self.settings().list().into_iter();
            let rows = rows.map(|(name, value, about)| [name, &value, about].map(Value::text).to_vec()).collect();
            return Ok(Started::Rows {
                rows: crate::catalog::Answered { columns: columns.to_vec(), rows }.into_rows(),
                tag,
            });
        }
        if name.contains('.') {
            let answer = self.ask(sql, running).await?;
            return Ok(Started::Rows { rows: Rows::new(answer, self.zone()), tag });
        }
        let Some(value) = self.settings().get(name) else {
            return Err(Failure::new(
                code::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            ));
        };
        let columns = vec![Column::new(name, Type::TEXT)];
        let answered = crate::catalog::Answered { columns, rows: vec![vec![Value::text(&value)]] };
        Ok(Started::Rows { rows: answered.into_rows(), tag })
    }

    /// Sends rows, up to `most`. True when there are no more.
    pub(super) async fn send(
        &mut self,
        rows: &mut Rows,
        formats: &[i16],
        most: Option<usize>,
        running: &mut Running,
    ) -> Result<Result<bool, Failure>, Broken> {
        let mut left = most.unwrap_or(usize::MAX);
        while left > 0 {
            match running.run(rows.wait()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(Ok(true)),
                Ok(Err(error)) => return Ok(Err(Failure::from(error))),
                Err(failure) => return Ok(Err(failure)),
            }
            left -= rows.write(left, formats, &mut self.wire.out);
            match running.run(self.wire.flush_if_full()).await {
                Ok(flushed) => flushed?,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(false))
    }
}

/// Waits for the end of an answer. Tells what was done, if something was.
async fn drain(mut answer: Answer, running: &mut Running, sql: &str) -> Result<Option<Done>, Failure> {
    while let Some(batch) = running.run(answer.batches.next()).await? {
        batch.map_err(|error| Failure::about(&error, sql))?;
    }
    Ok(answer.done)
}

/// What Postgres says when this is done.
fn tag_of(done: &Done) -> String {
    match (done.command, done.rows) {
        ("INSERT", rows) => format!("INSERT 0 {}", rows.unwrap_or_default()),
        ("CREATE TABLE AS", rows) => format!("SELECT {}", rows.unwrap_or_default()),
        (command, Some(rows)) => format!("{command} {rows}"),
        (command, None) => command.to_owned(),
    }
}
