//! Views of the lake: their queries are kept with whole names, and planned anew whenever they are read.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::SchemaProvider;
use datafusion::common::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    CreateView, Ident, ObjectName, ObjectNamePart, Query, Statement as Sql, TableAlias, TableFactor, VisitorMut,
};
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::read::FileReader;
use flumen_core::sql::Answer;
use flumen_core::{Error, Result};

use super::write::{name_of_ident, refuse};
use super::{Engine, errors, files, labels, references, system, tables, unviewed, visit};
use crate::catalog::{About, Entry, ViewEntry, columns_of};

impl Engine {
    /// Makes a view; none for one of the session.
    pub(super) async fn create_view(&self, sql: &str, create: &CreateView) -> Result<Option<Answer>> {
        let bare = match create.name.0.as_slice() {
            [part] => part.as_ident().map(name_of_ident),
            _ => None,
        };
        let of_session =
            bare.is_some_and(|name| self.tables.catalog.is_none() || self.tables.session.table_exist(&name));
        if create.temporary || of_session {
            return Ok(None);
        }
        if create.materialized {
            return refuse("create materialized view", "make a table: create or replace table … as select …");
        }
        let name = self.name_for(&create.name)?;
        let mut query = create.query.as_ref().clone();
        labels::alias_kept(&mut query);
        let reads = self.qualify(&mut query).await?;
        if reads.contains(&name) {
            return Err(Error::invalid(format!("the view '{name}' would read itself")));
        }
        let mut text = query.to_string();
        if !create.columns.is_empty() {
            let names: Vec<String> = create.columns.iter().map(|column| column.name.to_string()).collect();
            text = format!("SELECT * FROM ({text}) AS v({})", names.join(", "));
        }
        let (_, plan) = self.plan_part(sql, &text, Vec::new()).await?;
        let columns = columns_of(&unviewed(&Arc::new(plan.schema().as_arrow().clone())));
        let about = About { description: create.comment.clone(), ..About::default() };
        let made = ViewEntry {
            id: self.writers.ids.next(),
            sql: text,
            columns,
            reads,
            about,
            column_notes: Default::default(),
            created: self.writers.clock.now(),
        };
        self.put_new(&name, Entry::View(made), create.or_replace, create.if_not_exists).await?;
        Ok(Some(Answer::done("CREATE VIEW", None)))
    }

    /// Writes the whole names of tables into `query`; gives those that it reads.
    ///
    /// Errors: `NotFound` for a table that is not there; `Invalid` for one that is gone when the session ends.
    async fn qualify(&self, query: &mut Query) -> Result<Vec<TableName>> {
        let statement = Statement::Statement(Box::new(Sql::Query(Box::new(query.clone()))));
        let references = self.base().resolve_table_references(&statement);
        let references = references.map_err(|error| errors::explain_part(error, ""))?;
        let (mut reads, mut bare, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for reference in references {
            let table = reference.table();
            if tables::looks_like_file(table) {
                // Whoever reads the view may be in another folder.
                files.push((table.to_owned(), self.tables.files.register(table, "")?));
                continue;
            }
            if self.base().table_functions().contains_key(table) || references::is_function(table) {
                continue;
            }
            let name = match &reference {
                TableReference::Bare { table } if self.tables.session.table_exist(table) => {
                    return Err(Error::invalid(format!(
                        "'{table}' is a table of this session, which a view of the lake cannot read"
                    ))
                    .hint("write create temporary view, or keep the rows in a table of the lake"));
                }
                TableReference::Bare { table } => {
                    let name = self.tables.existing(&[table.to_string()]).await?;
                    bare.push((table.to_string(), name.clone()));
                    name
                }
                TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                    if matches!(schema.as_ref(), system::NAMESPACE | "information_schema" | "pg_catalog") =>
                {
                    continue;
                }
                TableReference::Full { catalog, .. } if catalog.as_ref() != LAKE => continue,
                TableReference::Partial { schema, table } | TableReference::Full { schema, table, .. } => {
                    self.tables.existing(&[schema.to_string(), table.to_string()]).await?
                }
            };
            reads.push(name);
        }
        let mut qualifier = Qualifier { bare, files, reader: self.tables.files.as_ref() };
        visit::try_change(query, &mut qualifier)?;
        reads.sort();
        reads.dedup();
        Ok(reads)
    }
}

/// Puts namespaces before names that have none.
struct Qualifier<'a> {
    bare: Vec<(String, TableName)>,
    /// Files as they are written, and by their whole addresses.
    files: Vec<(String, String)>,
    reader: &'a dyn FileReader,
}

impl VisitorMut for Qualifier<'_> {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args, .. } = factor else { return ControlFlow::Continue(()) };
        if let Some(args) = args {
            return match files::register_call(name, &mut args.args, self.reader) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            };
        }
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let Some(own) = part.as_ident().map(name_of_ident) else { return ControlFlow::Continue(()) };
        let ident = |quote, text: &str| ObjectNamePart::Identifier(Ident::with_quote(quote, text));
        let bare = self.bare.iter().find(|(bare, _)| *bare == own);
        let file = self.files.iter().find(|(file, _)| *file == own);
        let whole = match (bare, file) {
            (Some((_, whole)), _) => vec![ident('"', &whole.namespace), ident('"', &whole.table)],
            (None, Some((_, address))) if *address != own => vec![ident('\'', address)],
            _ => return ControlFlow::Continue(()),
        };
        if alias.is_none() {
            *alias =
                Some(TableAlias { explicit: true, name: Ident::with_quote('"', &own), columns: Vec::new(), at: None });
        }
        *name = ObjectName(whole);
        ControlFlow::Continue(())
    }
}
