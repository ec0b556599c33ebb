//! External tables: files and Delta tables that somebody else keeps, read in place with the columns that were declared.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;
use flumen_core::dataset::TableName;
use flumen_core::read::{FileReader, Input, ReadOptions};
use flumen_core::{Error, Result};

use super::columns::{self, Assigned};
use super::lake_table::{Contents, LakeTable};
use super::tables::Tables;
use super::{file_options, files};
use crate::catalog::{ExternalEntry, schema_of};
use crate::lake::{Lake, Table};

/// The formats that can be declared.
pub(super) const FORMATS: &[&str] = &["csv", "json", "ndjson", "parquet", "avro", "arrow", "delta"];

/// Opens what `entry` declares.
///
/// Errors: `NotFound` if nothing is there; `Data` if it lacks a declared column.
pub(super) async fn open(tables: &Tables, name: &TableName, entry: &ExternalEntry) -> Result<Arc<dyn TableProvider>> {
    let provider: Arc<dyn TableProvider> = if entry.format == "delta" {
        let table = delta(tables, name, &entry.location)?;
        let snapshot = table.snapshot().await?;
        let snapshot =
            snapshot.ok_or_else(|| Error::not_found(format!("there is no Delta table in {}", entry.location)))?;
        Arc::new(LakeTable::new(Contents::of(&snapshot)?)?)
    } else {
        let options = file_options::reading(Some(&entry.format), &entry.options)?;
        // A folder is all that is in it and below, but for what writers leave behind: `_SUCCESS`, `_metadata`.
        let location = if entry.location.ends_with('/') || Path::new(&entry.location).is_dir() {
            format!("{}/**/[!_]*", entry.location.trim_end_matches('/'))
        } else {
            entry.location.clone()
        };
        let registered = Registered(tables.files.as_ref());
        files::open_as(&registered, &location, &options, &tables.learnt, &tables.notes).await?
    };
    match &entry.columns {
        Some(declared) => as_declared(provider, &schema_of(declared)?),
        None => Ok(provider),
    }
}

/// Reads what tables of the catalog name.
pub(super) struct Registered<'a>(pub &'a dyn FileReader);

#[async_trait]
impl FileReader for Registered<'_> {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        self.0.open_registered(address, options).await
    }
}

/// The Delta table at `location`: a folder, or an URL in the store of the lake.
fn delta(tables: &Tables, name: &TableName, location: &str) -> Result<Table> {
    if !location.contains("://") {
        let folder = std::path::absolute(location).map_err(|error| Error::io(location, error))?;
        let parent = folder.parent().unwrap_or(&folder);
        let last = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Lake::local(parent)?.table_at(&last, name);
    }
    let lake = tables.catalog(name)?.lake();
    let inside = location.strip_prefix(lake.url().as_str());
    let inside = inside.ok_or_else(|| {
        Error::invalid(format!("{location} is not within the lake at {}", lake.url()))
            .hint("external Delta tables are read from local folders, and from the bucket folder of the lake itself")
    })?;
    lake.table_at(inside.trim_end_matches('/'), name)
}

/// `provider` with the declared columns: chosen by name without regard to case, in the declared types.
fn as_declared(provider: Arc<dyn TableProvider>, declared: &SchemaRef) -> Result<Arc<dyn TableProvider>> {
    let there = provider.schema();
    let assigned = declared.fields().iter().map(|field| {
        let name = columns::spelled(&there, field.name(), "the data")?;
        Ok(Assigned { name: field.name().clone(), at: there.index_of(&name)? })
    });
    let assigned = assigned.collect::<Result<Vec<_>>>()?;
    let failed = |error| Error::internal("an external table has two shapes").caused_by(error);
    let scan = LogicalPlanBuilder::scan("external", provider_as_source(provider), None).and_then(|plan| plan.build());
    let plan = scan.and_then(|plan| columns::assigned(plan, declared, &assigned)).map_err(failed)?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
