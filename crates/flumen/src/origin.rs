//! From the address of a source to its inputs: files wherever they are, and tables of databases.

use std::sync::Arc;

use flumen_connect::postgres::ProjectConnector;
use flumen_connect::sources::Files;
use flumen_connect::sources::postgres::PostgresSource;
use flumen_core::dataset::Dataset;
use flumen_core::read::{FileReader, Input, ReadOptions, Source};
use flumen_core::{Error, Result};
use flumen_project::connections::postgres::PostgresConfig;

use crate::context::Context;

/// Opens sources; downloads of one command share a folder.
pub struct Origins<'a> {
    context: &'a Context,
    files: Files,
}

impl<'a> Origins<'a> {
    /// For one command.
    pub fn new(context: &'a Context) -> Result<Self> {
        Ok(Self { context, files: files(context)? })
    }

    /// The inputs at `address`.
    ///
    /// Errors: those of the source behind it.
    pub async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        if let Some(config) = self.database(address, options)? {
            return PostgresSource::new(Arc::new(ProjectConnector::new(config))).open(address, options).await;
        }
        FileReader::open(&self.files, address, options).await
    }

    /// The database that `address` means, if it means one: a connection (with a query), a table of a connection.
    fn database(&self, address: &str, options: &ReadOptions) -> Result<Option<PostgresConfig>> {
        if options.query.is_some() {
            return if address.contains("://") {
                PostgresConfig::from_url(address).map(Some)
            } else {
                self.context.project()?.connection(address)?.postgres().map(Some)
            };
        }
        if std::path::Path::new(address).exists() {
            return Ok(None);
        }
        match address.parse() {
            Ok(Dataset::Connection { connection, .. }) => {
                self.context.project()?.connection(&connection)?.postgres().map(Some)
            }
            Ok(Dataset::Lake(table)) => {
                Err(Error::invalid(format!("lake.{table} is a table of the lake; ingest reads files and databases"))
                    .hint(format!(
                        "flumen sql \"select * from lake.{table}\" --format parquet -o FILE writes it to a file"
                    )))
            }
            _ => Ok(None),
        }
    }
}

/// All files that can be read from here.
pub fn files(context: &Context) -> Result<Files> {
    let files = match context.maybe_project()? {
        Some(project) => Files::of_project(project)?,
        None => Files::new(),
    };
    Ok(files.with_spool(context.spool()?))
}
