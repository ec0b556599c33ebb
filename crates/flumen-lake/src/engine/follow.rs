//! What the catalog says about columns follows them: descriptions, keys and clustering, when a column is renamed or dropped.

use datafusion::sql::sqlparser::ast::{AlterTableOperation, ObjectName};
use flumen_core::Result;

use super::Engine;
use super::commands::parts;
use super::write::name_of_ident;
use crate::catalog::{Key, Located, TableEntry};

/// What happens to a column.
enum Change {
    Renamed(String, String),
    Dropped(String),
}

impl Engine {
    /// Brings what the catalog says about the columns of a table in line with `operations`, which are done.
    pub(super) async fn follow_columns(&self, name: &ObjectName, operations: &[AlterTableOperation]) -> Result<()> {
        let changes: Vec<Change> = operations.iter().flat_map(changes).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let table = self.tables.existing(&parts(name)?).await?;
        // What the catalog says nothing about needs no entry in it.
        let Some(Located::Table { entry: Some(_), .. }) = self.tables.locate(&table).await? else { return Ok(()) };
        let edit = |entry: &mut TableEntry| {
            changes.iter().for_each(|change| follow(entry, change));
            Ok(())
        };
        self.edit_table(&table, edit).await
    }
}

fn changes(operation: &AlterTableOperation) -> Vec<Change> {
    match operation {
        AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
            vec![Change::Renamed(name_of_ident(old_column_name), name_of_ident(new_column_name))]
        }
        AlterTableOperation::DropColumn { column_names, .. } => {
            column_names.iter().map(|name| Change::Dropped(name_of_ident(name))).collect()
        }
        _ => Vec::new(),
    }
}

fn follow(entry: &mut TableEntry, change: &Change) {
    match change {
        Change::Renamed(old, new) => {
            // Names in a statement mean columns without regard to case.
            let known = entry.columns.keys().find(|column| same(column, old)).cloned();
            if let Some(about) = known.and_then(|column| entry.columns.remove(&column)) {
                entry.columns.insert(new.clone(), about);
            }
            let keys = entry.primary_key.iter_mut().chain(&mut entry.unique).flat_map(|key| &mut key.columns);
            let foreign = entry.foreign_keys.iter_mut().flat_map(|key| &mut key.columns);
            for column in keys.chain(foreign).chain(&mut entry.clustering).filter(|column| same(column, old)) {
                column.clone_from(new);
            }
        }
        Change::Dropped(gone) => {
            let has = |columns: &[String]| columns.iter().any(|column| same(column, gone));
            let of_it = |key: &Key| has(&key.columns);
            entry.columns.retain(|column, _| !same(column, gone));
            entry.primary_key = entry.primary_key.take().filter(|key| !of_it(key));
            entry.unique.retain(|key| !of_it(key));
            entry.foreign_keys.retain(|key| !has(&key.columns));
            entry.clustering.retain(|column| !same(column, gone));
        }
    }
}

fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}
