//! The flags of the classic ingestion script, as they are.

use flumen_core::{Error, Result};

use super::IngestCommand;
use crate::context::Context;

/// The flags of the classic script: they mean `--mode replace` into a Postgres table.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClassicOptions {
    /// The user
    #[arg(long, help_heading = "Classic script (replaces a Postgres table)")]
    pub user: Option<String>,
    /// The password; better in PGPASSWORD, or a connection in flumen.yml
    #[arg(long, help_heading = "Classic script (replaces a Postgres table)")]
    pub password: Option<String>,
    /// The file or URL to load
    #[arg(long = "file_location", value_name = "URL", help_heading = "Classic script (replaces a Postgres table)")]
    pub file_location: Option<String>,
    /// The server
    #[arg(long = "host_name", value_name = "HOST", help_heading = "Classic script (replaces a Postgres table)")]
    pub host_name: Option<String>,
    /// Its port
    #[arg(long, help_heading = "Classic script (replaces a Postgres table)")]
    pub port: Option<u16>,
    /// The table
    #[arg(long = "table_name", value_name = "TABLE", help_heading = "Classic script (replaces a Postgres table)")]
    pub table_name: Option<String>,
    /// The database
    #[arg(
        long = "database_name",
        value_name = "DATABASE",
        help_heading = "Classic script (replaces a Postgres table)"
    )]
    pub database_name: Option<String>,
}

/// The name by which the connection made of the flags goes in `--to`.
pub const CONNECTION: &str = "postgres";

impl ClassicOptions {
    fn is_used(&self) -> bool {
        self.file_location.is_some()
            || self.table_name.is_some()
            || self.database_name.is_some()
            || self.host_name.is_some()
    }

    /// Turns the flags into a source, a destination and a mode, if they are used, and gives the connection as an URL.
    pub fn apply(&self, command: &mut IngestCommand, context: &Context) -> Result<Option<url::Url>> {
        if !self.is_used() {
            return Ok(None);
        }
        let need = |value: &Option<String>, flag: &str| {
            value.clone().ok_or_else(|| {
                Error::invalid(format!("--{flag} is missing")).hint(
                    "the classic flags go together: --user --password --file_location --host_name --port --table_name --database_name",
                )
            })
        };
        let table = need(&self.table_name, "table_name")?;
        let file = need(&self.file_location, "file_location")?;
        let mut url = url::Url::parse("postgresql://localhost").map_err(|error| Error::internal(error.to_string()))?;
        let bad = |flag: &str| Error::invalid(format!("--{flag} cannot be part of a connection"));
        url.set_host(Some(self.host_name.as_deref().unwrap_or("localhost"))).map_err(|_| bad("host_name"))?;
        url.set_port(self.port).map_err(|()| bad("port"))?;
        url.set_username(&need(&self.user, "user")?).map_err(|()| bad("user"))?;
        let from_environment = std::env::var("PGPASSWORD").ok();
        if let Some(password) = self.password.as_ref().or(from_environment.as_ref()) {
            url.set_password(Some(password)).map_err(|()| bad("password"))?;
        }
        if self.password.is_some() {
            context.output.warning(
                "a password among the arguments can be seen by everyone on this machine; put it into PGPASSWORD, or make a \
                 connection with 'flumen connection add'",
            );
        }
        url.set_path(&need(&self.database_name, "database_name")?);
        let (schema, table) = table.split_once('.').unwrap_or(("public", &table));
        command.to = Some(format!("{CONNECTION}.{schema}.{table}"));
        command.sources = vec![file];
        command.mode = Some("replace".to_owned());
        Ok(Some(url))
    }
}
