//! Users.

use async_trait::async_trait;
use chrono::DateTime;
use flumen_core::Result;
use flumen_core::user::{User, UserStore, Verifiers, name_taken, no_user};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::sessions::{Ask, Failure};

fn user(row: &PgRow) -> sqlx::Result<User> {
    Ok(User {
        name: row.try_get("name")?,
        read_only: row.try_get("read_only")?,
        created: DateTime::from_timestamp_micros(row.try_get("created_us")?).unwrap_or_default(),
    })
}

impl PostgresStore {
    /// Changes the user `name`, by a statement that answers with a row if there is one.
    async fn change_user<'q>(&self, name: &str, ask: impl Fn() -> Ask<'q> + Sync) -> Result<()> {
        let changed = self.sessions.write_if(ask, |rows| !rows.is_empty()).await?;
        if changed.is_empty() { Err(no_user(name)) } else { Ok(()) }
    }
}

#[async_trait]
impl UserStore for PostgresStore {
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()> {
        let ask = || {
            sqlx::query("insert into users (name, read_only, created_us, scram, web) values ($1, $2, $3, $4, $5)")
                .bind(&user.name)
                .bind(user.read_only)
                .bind(user.created.timestamp_micros())
                .bind(&verifiers.scram)
                .bind(&verifiers.web)
        };
        match self.sessions.write(ask).await {
            Ok(_) => Ok(()),
            // There is no other constraint.
            Err(Failure::Refused(..)) => Err(name_taken(&user.name)),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()> {
        let ask = || {
            sqlx::query("update users set scram = $1, web = $2 where name = $3 returning name")
                .bind(&verifiers.scram)
                .bind(&verifiers.web)
                .bind(name)
        };
        self.change_user(name, ask).await
    }

    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()> {
        let ask =
            || sqlx::query("update users set read_only = $1 where name = $2 returning name").bind(read_only).bind(name);
        self.change_user(name, ask).await
    }

    async fn list(&self) -> Result<Vec<User>> {
        let ask = || sqlx::query("select name, read_only, created_us from users order by name");
        let rows = self.sessions.read(ask).await?;
        rows.iter().map(user).collect::<sqlx::Result<_>>().map_err(|error| self.sessions.failed(error))
    }

    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>> {
        let ask =
            || sqlx::query("select name, read_only, created_us, scram, web from users where name = $1").bind(name);
        let rows = self.sessions.read(ask).await?;
        let parts =
            |row: &PgRow| Ok((user(row)?, Verifiers { scram: row.try_get("scram")?, web: row.try_get("web")? }));
        rows.first().map(parts).transpose().map_err(|error: sqlx::Error| self.sessions.failed(error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.change_user(name, || sqlx::query("delete from users where name = $1 returning name").bind(name)).await
    }
}
