//! From the address of a data set to its sink.

use std::sync::Arc;

use async_trait::async_trait;
use flumen_connect::postgres::{Connect, ProjectConnector};
use flumen_connect::sinks::files::FileSink;
use flumen_connect::sinks::postgres::{PostgresOptions, PostgresSink};
use flumen_connect::spool::Spool;
use flumen_core::dataset::Dataset;
use flumen_core::sql::Destinations;
use flumen_core::write::{Sink, WriteOptions};
use flumen_core::{Error, Result};
use flumen_lake::catalog::{Catalog, Copied};
use flumen_lake::lake::Lake;
use flumen_lake::sink::LakeSink;
use flumen_project::Project;
use flumen_project::connections::postgres::PostgresConfig;

use crate::context::Context;
use crate::output::{bytes, counted};

/// What the command line says about a destination, besides its address.
#[derive(Debug, Clone)]
pub struct DestinationOptions {
    /// Whether a ledger is kept.
    pub ledger: bool,
    /// Whether a Postgres table's statistics are renewed after the load.
    pub analyze: bool,
    /// A Postgres connection that was given on the command line, in place of one of the project.
    pub connection: Option<url::Url>,
}

impl Default for DestinationOptions {
    fn default() -> Self {
        Self { ledger: true, analyze: true, connection: None }
    }
}

/// The sink for `dataset`.
///
/// Errors: `NotFound` outside a project, for what only a project knows, and for a connection that is not there.
pub async fn open(dataset: &Dataset, options: &DestinationOptions, context: &Context) -> Result<Arc<dyn Sink>> {
    match dataset {
        Dataset::Lake(name) => {
            let (output, address, environment) = (context.output, dataset.to_string(), context.environment.clone());
            let on_copy = move |copied: &Copied| output.note(copy_note(&address, &environment, copied));
            Ok(Arc::new(LakeSink::named(catalog(context)?, &context.environment, name, Arc::new(on_copy)).await?))
        }
        Dataset::Connection { connection, table } => {
            let connector: Arc<dyn Connect> = match &options.connection {
                Some(url) => Arc::new(ProjectConnector::new(PostgresConfig::from_url(url.as_str())?)),
                None => Arc::new(ProjectConnector::new(context.project()?.connection(connection)?.postgres()?)),
            };
            let settings =
                PostgresOptions { ledger: options.ledger, analyze: options.analyze, ..PostgresOptions::default() };
            Ok(Arc::new(PostgresSink::new(connector, dataset.to_string(), table.clone(), settings)?))
        }
        Dataset::Files(address) => Ok(Arc::new(FileSink::new(
            address,
            &WriteOptions::default(),
            context.maybe_project()?.as_deref(),
            &context.spool()?,
        )?)),
    }
}

/// Where `COPY … TO` of SQL can write.
pub struct Anywhere {
    project: Option<Arc<Project>>,
    spool: Arc<Spool>,
}

impl Anywhere {
    /// What this command can reach.
    ///
    /// Errors: whatever is wrong with the project.
    pub fn new(context: &Context) -> Result<Self> {
        Ok(Self { project: context.maybe_project()?, spool: context.spool()? })
    }
}

#[async_trait]
impl Destinations for Anywhere {
    async fn sink(&self, address: &str, options: &WriteOptions) -> Result<Arc<dyn Sink>> {
        let dataset = match &options.format {
            // Whose format is told need not have it in its name.
            Some(_) => Dataset::Files(address.to_owned()),
            None => address.parse()?,
        };
        match dataset {
            Dataset::Files(address) => {
                Ok(Arc::new(FileSink::new(&address, options, self.project.as_deref(), &self.spool)?))
            }
            _ if *options != WriteOptions::default() => {
                Err(Error::invalid(format!("{address} is no file, and has no options of one")).hint("leave them out"))
            }
            Dataset::Lake(name) => Err(Error::invalid(format!("lake.{name} is a table, not a file"))
                .hint(format!("write create table {name} as select …, or insert into {name} select …"))),
            Dataset::Connection { connection, table } => {
                let project = self.project.as_ref().ok_or_else(|| {
                    Error::not_found(format!("there is no project that could know the connection '{connection}'"))
                        .hint("run 'flumen init' to make one here")
                })?;
                let connector: Arc<dyn Connect> =
                    Arc::new(ProjectConnector::new(project.connection(&connection)?.postgres()?));
                let whole = format!("{connection}.{table}");
                Ok(Arc::new(PostgresSink::new(connector, whole, table, PostgresOptions::default())?))
            }
        }
    }
}

/// The project's lake.
///
/// Errors: `NotFound` outside a project.
pub fn lake(context: &Context) -> Result<Lake> {
    lake_of(context.project()?.as_ref())
}

/// The catalog of the project's lake.
///
/// Errors: `NotFound` outside a project.
pub fn catalog(context: &Context) -> Result<Catalog> {
    Ok(Catalog::new(lake(context)?, Arc::clone(&context.clock), Arc::clone(&context.ids)))
}

/// Tells that a table was copied because it is about to be written to.
pub fn copy_note(address: &str, environment: &str, copied: &Copied) -> String {
    let (files, size) = (counted(copied.files, "file"), bytes(copied.bytes));
    let how = if copied.linked { "as links, which take no space of their own" } else { "within the store" };
    format!("{address} has a copy of its own in '{environment}' now: {files}, {size}, {how}")
}

/// The folder or the bucket of the lake of `project`.
pub fn lake_of(project: &Project) -> Result<Lake> {
    let place = project.lake()?;
    if place.url.scheme() == "file" {
        let folder = place
            .url
            .to_file_path()
            .map_err(|()| Error::invalid(format!("the lake's root {} is no folder", place.url)))?;
        return Lake::local(folder);
    }
    Lake::at(place.url, place.store)
}
