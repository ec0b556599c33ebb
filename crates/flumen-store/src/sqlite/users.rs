//! Users.

use async_trait::async_trait;
use chrono::DateTime;
use flumen_core::Result;
use flumen_core::user::{User, UserStore, Verifiers, name_taken, no_user};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;

fn user(row: &SqliteRow) -> sqlx::Result<User> {
    Ok(User {
        name: row.try_get("name")?,
        read_only: row.try_get("read_only")?,
        created: DateTime::from_timestamp_micros(row.try_get("created_us")?).unwrap_or_default(),
    })
}

#[async_trait]
impl UserStore for SqliteStore {
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()> {
        let added = sqlx::query("insert into users (name, read_only, created_us, scram, web) values (?, ?, ?, ?, ?)")
            .bind(&user.name)
            .bind(user.read_only)
            .bind(user.created.timestamp_micros())
            .bind(&verifiers.scram)
            .bind(&verifiers.web)
            .execute(&self.pool)
            .await;
        match added {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(name_taken(&user.name)),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()> {
        let changed = sqlx::query("update users set scram = ?, web = ? where name = ?")
            .bind(&verifiers.scram)
            .bind(&verifiers.web)
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if changed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }

    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()> {
        let changed = sqlx::query("update users set read_only = ? where name = ?")
            .bind(read_only)
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if changed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }

    async fn list(&self) -> Result<Vec<User>> {
        let rows = sqlx::query("select name, read_only, created_us from users order by name").fetch_all(&self.pool);
        let rows = rows.await.map_err(|error| self.failed(error))?;
        rows.iter().map(user).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }

    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>> {
        let row = sqlx::query("select name, read_only, created_us, scram, web from users where name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let parts =
            |row: &SqliteRow| Ok((user(row)?, Verifiers { scram: row.try_get("scram")?, web: row.try_get("web")? }));
        row.as_ref().map(parts).transpose().map_err(|error: sqlx::Error| self.failed(error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let removed = sqlx::query("delete from users where name = ?")
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if removed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }
}
