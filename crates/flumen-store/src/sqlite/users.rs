//! Users.

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::user::{User, UserStore, Verifiers, name_taken, no_user};
use rusqlite::{Params, Row, params};

use super::SqliteStore;
use crate::columns::{moment, us};

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { name: row.get("name")?, read_only: row.get("read_only")?, created: moment(row.get("created_us")?) })
}

impl SqliteStore {
    /// Changes a user.
    ///
    /// Errors: `NotFound`.
    async fn change_user(&self, name: &str, sql: &'static str, params: impl Params + Send + 'static) -> Result<()> {
        let name = name.to_owned();
        let change = move |tx: &mut super::writer::Tx| match tx.execute(sql, params)? {
            0 => Err(no_user(&name)),
            _ => Ok(()),
        };
        self.writer.write(change).await
    }
}

#[async_trait]
impl UserStore for SqliteStore {
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()> {
        let (user, verifiers) = (user.clone(), verifiers.clone());
        let add = move |tx: &mut super::writer::Tx| {
            let added = tx.execute(
                "insert or ignore into users (name, read_only, created_us, scram, web) values (?, ?, ?, ?, ?)",
                params![user.name, user.read_only, us(user.created), verifiers.scram, verifiers.web],
            )?;
            if added == 0 { Err(name_taken(&user.name)) } else { Ok(()) }
        };
        self.writer.write(add).await
    }

    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()> {
        let Verifiers { scram, web } = verifiers.clone();
        let sql = "update users set scram = ?, web = ? where name = ?";
        self.change_user(name, sql, (scram, web, name.to_owned())).await
    }

    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()> {
        self.change_user(name, "update users set read_only = ? where name = ?", (read_only, name.to_owned())).await
    }

    async fn list(&self) -> Result<Vec<User>> {
        let sql = "select name, read_only, created_us from users order by name";
        self.readers.read(move |db| db.rows(sql, (), user)).await
    }

    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>> {
        let name = name.to_owned();
        let sql = "select name, read_only, created_us, scram, web from users where name = ?";
        let parts = |row: &Row<'_>| Ok((user(row)?, Verifiers { scram: row.get("scram")?, web: row.get("web")? }));
        self.readers.read(move |db| db.row(sql, params![name], parts)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.change_user(name, "delete from users where name = ?", (name.to_owned(),)).await
    }
}
