//! `SHOW` and `DESCRIBE`: what is there, what its columns are, how the session is set.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::SchemaProvider;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ObjectName, ShowCreateObject, ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions,
    Statement as Sql,
};
use flumen_core::contract::type_name;
use flumen_core::sql::Answer;
use flumen_core::{Error, Result};

use super::commands::{AS_OF, ENVIRONMENT, parts};
use super::write::{name_of, refuse};
use super::{Engine, system};
use crate::catalog::{Kind, Located};

/// Where tables of the session are shown to be.
const TEMPORARY: &str = "temporary";

impl Engine {
    /// Answers a statement that only tells (SHOW, DESCRIBE, EXPLAIN of a write), and nothing else.
    pub(super) async fn tell(&self, sql: &str, statement: &Statement) -> Result<Option<Answer>> {
        match statement {
            Statement::Statement(inner) => self.show(inner).await,
            Statement::Explain(explain) => self.explain_write(sql, explain).await,
            _ => Ok(None),
        }
    }

    /// Answers a statement that tells about tables or settings; none for any other.
    ///
    /// Errors: `NotFound` for a table that is not there.
    pub(super) async fn show(&self, statement: &Sql) -> Result<Option<Answer>> {
        match statement {
            Sql::ShowTables { show_options, .. } => self.show_tables(show_options, None).await.map(Some),
            Sql::ShowViews { show_options, .. } => self.show_tables(show_options, Some(Kind::View)).await.map(Some),
            Sql::ShowSchemas { show_options, .. } | Sql::ShowDatabases { show_options, .. } => {
                self.show_schemas(show_options).await.map(Some)
            }
            Sql::ShowColumns { show_options, .. } => match place(show_options) {
                Some(name) => self.show_columns(name).await.map(Some),
                None => Err(Error::invalid("show columns of which table?").hint("write show columns from raw.trips")),
            },
            Sql::ExplainTable { table_name, .. } => self.show_columns(table_name).await.map(Some),
            Sql::ShowVariable { variable } => {
                let name: Vec<String> = variable.iter().map(|part| part.value.to_lowercase()).collect();
                self.show_setting(&name.join("."))
            }
            Sql::ShowCreate { obj_type: ShowCreateObject::View, obj_name } => self.show_view(obj_name).await.map(Some),
            Sql::ShowCreate { .. } => refuse("show create", "describe the table, or write show create view for a view"),
            _ => Ok(None),
        }
    }

    async fn show_tables(&self, options: &ShowStatementOptions, only: Option<Kind>) -> Result<Answer> {
        let schema = place(options).map(name_of).transpose()?;
        let matches = filter(options)?;
        let mut rows: Vec<[Option<String>; 3]> = Vec::new();
        for listed in self.tables.listed().await? {
            if only.is_none_or(|kind| kind == listed.kind) {
                let name = listed.name;
                rows.push([Some(name.namespace), Some(name.table), Some(listed.kind.name().to_owned())]);
            }
        }
        for name in self.tables.session.table_names() {
            let view = match self.tables.session.table(&name).await {
                Ok(Some(table)) => table.table_type() == datafusion::logical_expr::TableType::View,
                _ => false,
            };
            let kind = if view { Kind::View } else { Kind::Table };
            if only.is_none_or(|only| only == kind) {
                rows.push([Some(TEMPORARY.to_owned()), Some(name), Some(kind.name().to_owned())]);
            }
        }
        if schema.as_deref() == Some(system::NAMESPACE) && only.is_none() {
            let known = self.system_tables().into_iter();
            rows.extend(known.map(|name| [Some(name.namespace), Some(name.table), Some("system table".to_owned())]));
        }
        rows.retain(|[of, name, _]| {
            schema.as_ref().is_none_or(|schema| of.as_ref() == Some(schema))
                && matches(name.as_deref().unwrap_or_default())
        });
        rows.sort();
        answer(["schema", "name", "kind"], rows)
    }

    async fn show_schemas(&self, options: &ShowStatementOptions) -> Result<Answer> {
        let matches = filter(options)?;
        let mut names: Vec<String> =
            self.tables.listed().await?.into_iter().map(|listed| listed.name.namespace).collect();
        if let Some(catalog) = &self.tables.catalog {
            names.extend(self.tables.state(catalog).await?.namespaces.keys().cloned());
            names.push(system::NAMESPACE.to_owned());
        }
        names.retain(|name| matches(name));
        names.sort();
        names.dedup();
        answer(["schema"], names.into_iter().map(|name| [Some(name)]).collect())
    }

    /// The columns of a table, with what people say about them.
    async fn show_columns(&self, name: &ObjectName) -> Result<Answer> {
        let (_, plan) = self.plan_part("", &format!("SELECT * FROM {name}"), Vec::new()).await?;
        let schema = super::unviewed(plan.schema().inner());
        let notes = self.notes(name).await.unwrap_or_default();
        let rows = schema.fields().iter().map(|field| {
            let nullable = if field.is_nullable() { "yes" } else { "no" };
            let note = notes.iter().find(|(column, _)| column == field.name()).map(|(_, note)| note.clone());
            [Some(field.name().clone()), Some(type_name(field.data_type())), Some(nullable.to_owned()), note]
        });
        answer(["column", "type", "nullable", "description"], rows.collect())
    }

    /// Descriptions of the columns of a table of the lake; none for what is not in its catalog.
    async fn notes(&self, name: &ObjectName) -> Option<Vec<(String, String)>> {
        let parts = parts(name).ok()?;
        if parts.len() == 1 && self.tables.session.table_exist(&parts[0]) {
            return None;
        }
        let name = self.tables.existing(&parts).await.ok()?;
        let columns = match self.tables.locate(&name).await.ok()?? {
            Located::Table { entry, .. } => entry?.columns,
            Located::View(view) => view.column_notes,
            Located::External(external) => external.column_notes,
        };
        Some(columns.into_iter().filter_map(|(column, about)| Some((column, about.description?))).collect())
    }

    fn show_setting(&self, name: &str) -> Result<Option<Answer>> {
        let value = match name {
            ENVIRONMENT => Some(self.tables.environment()),
            AS_OF => self.tables.as_of().map(|time| time.format("%Y-%m-%d %H:%M:%S%.f UTC").to_string()),
            "search_path" | "schema" => Some(self.tables.namespace()),
            _ => return Ok(None),
        };
        answer([name], vec![[value]]).map(Some)
    }

    async fn show_view(&self, name: &ObjectName) -> Result<Answer> {
        let name = self.tables.existing(&parts(name)?).await?;
        match self.tables.locate(&name).await? {
            Some(Located::View(view)) => {
                let text = format!("CREATE VIEW {name} AS {}", view.sql);
                answer(["view", "statement"], vec![[Some(name.to_string()), Some(text)]])
            }
            _ => Err(Error::invalid(format!("'{name}' is not a view")).hint(format!("write describe {name}"))),
        }
    }
}

/// What comes after FROM or IN.
fn place(options: &ShowStatementOptions) -> Option<&ObjectName> {
    options.show_in.as_ref()?.parent_name.as_ref()
}

/// Whether a name is wanted: what LIKE says.
fn filter(options: &ShowStatementOptions) -> Result<impl Fn(&str) -> bool> {
    let pattern = match &options.filter_position {
        None => None,
        Some(ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter)) => {
            match filter {
                ShowStatementFilter::Like(pattern) | ShowStatementFilter::ILike(pattern) => {
                    Some(pattern.to_lowercase())
                }
                other => {
                    return Err(Error::invalid(format!("show … {other} is not understood"))
                        .hint("write show tables like 'trips%', or select from information_schema.tables"));
                }
            }
        }
    };
    Ok(move |name: &str| pattern.as_deref().is_none_or(|pattern| like(&name.to_lowercase(), pattern)))
}

/// Whether `text` is like `pattern`, in which `%` is anything and `_` one character.
fn like(text: &str, pattern: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('%') => {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| like(&text[at..], letters.as_str()))
        }
        Some(wanted) => {
            let mut rest = text.chars();
            rest.next().is_some_and(|letter| wanted == '_' || wanted == letter) && like(rest.as_str(), letters.as_str())
        }
    }
}

/// Rows of text as an answer.
fn answer<const COLUMNS: usize>(names: [&str; COLUMNS], rows: Vec<[Option<String>; COLUMNS]>) -> Result<Answer> {
    let fields = names.map(|name| Field::new(name, DataType::Utf8, true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let columns = (0..COLUMNS).map(|column| {
        let values: StringArray = rows.iter().map(|row| row[column].as_deref()).collect();
        Arc::new(values) as ArrayRef
    });
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect())?;
    Ok(Answer { schema, batches: Box::pin(futures::stream::iter([Ok(batch)])), done: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_like() {
        for (text, pattern, expect) in [
            ("trips", "tr%", true),
            ("trips", "%ips", true),
            ("trips", "t_ips", true),
            ("trips", "t_ip", false),
            ("", "%", true),
            ("ähre", "%h_e", true),
        ] {
            assert_eq!(like(text, pattern), expect, "{text} {pattern}");
        }
    }
}
