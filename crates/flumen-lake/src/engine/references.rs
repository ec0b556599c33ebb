//! Tables in a query that are more than a name: a version of a table, a table of another environment, and functions that give a
//! table.
//!
//! Each is looked up before the query is planned, and stands in it under a name of its own from then on.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, TableAlias, TableFactor, TableVersion,
    Value, Visitor, VisitorMut,
};
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::read::ReadOptions;
use flumen_core::{Error, Result};

use super::lake_table::{Contents, LakeTable};
use super::write::{name_of, name_of_ident};
use super::{Engine, changes, columns, external, files, time_travel, visit, volumes};
use crate::catalog::PROD;
use crate::lake::Table;

/// How the names begin under which such tables stand in the query.
const PREFIX: &str = "_flumen_reference_";

/// The functions that give a table, besides those that read files.
const FUNCTIONS: &[&str] = &["history", "changes", "files"];

/// Whether a call of `function` gives a table, and is looked up here.
pub(super) fn is_function(function: &str) -> bool {
    FUNCTIONS.contains(&function) || files::reads_files(function)
}

/// A table that is more than a name.
enum Reference {
    Version(ObjectName, u64),
    Time(ObjectName, Box<Expr>),
    History(String),
    Changes(String, u64, Option<u64>),
    Files(Option<String>),
    Read(Vec<String>, Box<ReadOptions>),
    Environment(String, TableName),
}

/// Leaves the environment that a session sees, and what stands for the lake, out of the names of tables: `dev.raw.trips` is
/// `raw.trips` for who sees `dev`.
pub(super) fn in_environment(statement: &mut Statement, environment: &str) {
    struct Names<'a>(&'a str);
    impl VisitorMut for Names<'_> {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
            if environment_of(name).is_some_and(|of| of == self.0) {
                name.0.remove(0);
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::CompoundIdentifier(parts) = expr
                && parts.len() == 4
                && name_of_ident(&parts[0]) == self.0
            {
                parts.remove(0);
            }
            ControlFlow::Continue(())
        }
    }
    match statement {
        Statement::Statement(inner) => {
            visit::change(inner.as_mut(), &mut Names(environment));
        }
        Statement::Explain(explain) => in_environment(&mut explain.statement, environment),
        _ => {}
    }
}

/// The first of three parts of a name.
fn environment_of(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [first, _, _] => first.as_ident().map(name_of_ident),
        _ => None,
    }
}

/// Finds them, and puts names in their place.
#[derive(Default)]
struct Finder {
    found: Vec<Reference>,
    environments: BTreeSet<String>,
}

/// The first parts of names that have three.
#[derive(Default)]
struct Firsts(BTreeSet<String>);

impl Visitor for Firsts {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.0.extend(environment_of(name).filter(|first| first != LAKE));
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Finder {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args, version, .. } = factor else { return ControlFlow::Continue(()) };
        let reference = match (&*version, &*args) {
            (Some(version), None) => match of_version(name, version) {
                Ok(reference) => Some(reference),
                Err(error) => return ControlFlow::Break(error),
            },
            (None, None) => match self.of_environment(name) {
                Ok(reference) => reference,
                Err(error) => return ControlFlow::Break(error),
            },
            (None, Some(args)) => {
                let arguments: Vec<&FunctionArg> = args.args.iter().collect();
                match of_function(name, &arguments) {
                    Ok(reference) => reference,
                    Err(error) => return ControlFlow::Break(error),
                }
            }
            _ => None,
        };
        let Some(reference) = reference else { return ControlFlow::Continue(()) };
        if alias.is_none() {
            let shown = name_of(name).unwrap_or_default();
            let made = Ident::with_quote('"', shown);
            *alias = Some(TableAlias { explicit: true, name: made, columns: Vec::new(), at: None });
        }
        let number = self.found.len();
        *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(format!("{PREFIX}{number}")))]);
        *version = None;
        *args = None;
        self.found.push(reference);
        ControlFlow::Continue(())
    }
}

impl Finder {
    fn of_environment(&self, name: &ObjectName) -> Result<Option<Reference>> {
        let Some(environment) = environment_of(name).filter(|first| self.environments.contains(first)) else {
            return Ok(None);
        };
        let parts: Vec<String> = name.0[1..].iter().filter_map(|part| part.as_ident().map(name_of_ident)).collect();
        let [namespace, table] = parts.as_slice() else { return Ok(None) };
        let table = TableName::new(namespace.as_str(), table.as_str())?;
        Ok(Some(Reference::Environment(environment, table)))
    }
}

fn of_version(name: &ObjectName, version: &TableVersion) -> Result<Reference> {
    Ok(match version {
        TableVersion::VersionAsOf(expr) => Reference::Version(name.clone(), number(expr)?),
        TableVersion::TimestampAsOf(expr) | TableVersion::ForSystemTimeAsOf(expr) => {
            Reference::Time(name.clone(), Box::new(expr.clone()))
        }
        other => {
            return Err(Error::invalid(format!("'{other}' is not understood"))
                .hint("write: from t version as of 3, or: from t timestamp as of '2026-03-01'"));
        }
    })
}

fn of_function(name: &ObjectName, args: &[&FunctionArg]) -> Result<Option<Reference>> {
    let function = name_of(name)?;
    if let Some((addresses, options)) = files::of_call(&function, args)? {
        return Ok(Some(Reference::Read(addresses, Box::new(options))));
    }
    let args: Vec<&Expr> = args
        .iter()
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect();
    match (function.as_str(), args.as_slice()) {
        ("history", [table]) => Ok(Some(Reference::History(text(table)?))),
        ("history", _) => Err(Error::invalid("history wants a table").hint("write: from history('raw.trips')")),
        ("changes", [table, from]) => Ok(Some(Reference::Changes(text(table)?, number(from)?, None))),
        ("changes", [table, from, to]) => Ok(Some(Reference::Changes(text(table)?, number(from)?, Some(number(to)?)))),
        ("changes", _) => Err(Error::invalid("changes wants a table and versions")
            .hint("write: from changes('raw.trips', 3, 5), both versions included")),
        ("files", []) => Ok(Some(Reference::Files(None))),
        ("files", [volume]) => Ok(Some(Reference::Files(Some(text(volume)?)))),
        ("files", _) => Err(Error::invalid("files wants a volume, or nothing for those of all volumes")
            .hint("write: from files('lake.files.images')")),
        _ => Ok(None),
    }
}

fn number(expr: &Expr) -> Result<u64> {
    let wrong = || Error::invalid(format!("'{expr}' is not the number of a version"));
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().map_err(|_| wrong()),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn text(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        Expr::TypedString(typed) => typed.value.value.clone().into_string(),
        _ => None,
    }
    .ok_or_else(|| Error::invalid(format!("'{expr}' should be a text in single quotes")))
}

/// The volume that `text` means: `files.images`, or with the lake before it.
fn volume_name(text: &str) -> Result<TableName> {
    let within = text.strip_prefix("lake.").filter(|rest| rest.contains('.')).unwrap_or(text);
    let (namespace, volume) = within.split_once('.').ok_or_else(|| {
        Error::invalid(format!("'{text}' is not the name of a volume")).hint("write: from files('lake.files.images')")
    })?;
    TableName::new(namespace, volume)
}

impl Engine {
    /// Looks up the tables in `statement` that are more than a name; gives the names that they have now. Whoever made a view was
    /// allowed to read its files.
    ///
    /// Errors: `NotFound` for a table or a version that is not there.
    pub(super) async fn resolve_references(
        &self,
        statement: &mut Statement,
        of_view: bool,
    ) -> Result<Vec<(String, Arc<dyn TableProvider>)>> {
        let mut inner = statement;
        while let Statement::Explain(explain) = inner {
            inner = &mut explain.statement;
        }
        let Statement::Statement(inner) = inner else { return Ok(Vec::new()) };
        let mut firsts = Firsts::default();
        visit::look(inner.as_ref(), &mut firsts);
        let mut finder = Finder::default();
        if !firsts.0.is_empty()
            && let Some(state) = self.catalog_state().await?
        {
            let is_there = |name: &String| name == PROD || state.environments.contains_key(name);
            finder.environments = firsts.0.into_iter().filter(is_there).collect();
        }
        visit::try_change(inner.as_mut(), &mut finder)?;
        let shows_own = columns::names_own(&inner.to_string());
        let mut tables = Vec::new();
        for (number, reference) in finder.found.into_iter().enumerate() {
            tables.push((format!("{PREFIX}{number}"), self.resolve(reference, shows_own, of_view).await?));
        }
        Ok(tables)
    }

    async fn resolve(&self, reference: Reference, shows_own: bool, of_view: bool) -> Result<Arc<dyn TableProvider>> {
        match reference {
            Reference::Version(name, version) => {
                let table = self.named_table(&name).await?;
                self.table_at(&table, version, shows_own).await
            }
            Reference::Time(name, expr) => {
                let time = self.point_in_time(&expr).await?;
                let table = self.named_table(&name).await?;
                let latest = self.latest(&table).await?;
                let version = time_travel::version_at(&table, latest, time).await?;
                let version = version.ok_or_else(|| {
                    let shown = text(&expr).unwrap_or_else(|_| expr.to_string());
                    Error::not_found(format!("{} was not there at {shown}", table.address()))
                        .hint("'flumen lake history' lists its versions")
                })?;
                self.table_at(&table, version, shows_own).await
            }
            Reference::History(name) => {
                let table = self.text_table(&name).await?;
                changes::history(&table, self.latest(&table).await?).await
            }
            Reference::Files(name) => {
                let name = name.map(|name| volume_name(&name)).transpose()?;
                let catalog = self.tables.catalog("files")?;
                volumes::files(self.tables.state(catalog).await?.as_ref(), name.as_ref())
            }
            Reference::Read(addresses, options) => self.read_files(&addresses, &options, of_view).await,
            Reference::Environment(environment, name) => {
                self.tables.of_environment(&environment, &name, shows_own).await
            }
            Reference::Changes(name, from, to) => {
                let table = self.text_table(&name).await?;
                let latest = self.latest(&table).await?;
                changes::changes(&table, from, to.unwrap_or(latest), latest).await
            }
        }
    }

    async fn read_files(
        &self,
        addresses: &[String],
        options: &ReadOptions,
        of_view: bool,
    ) -> Result<Arc<dyn TableProvider>> {
        let tables = &self.tables;
        if of_view {
            let registered = external::Registered(tables.files.as_ref());
            return files::open_all(&registered, addresses, options, &tables.learnt, &tables.notes).await;
        }
        for address in addresses {
            self.check_file_access(address)?;
        }
        files::open_all(tables.files.as_ref(), addresses, options, &tables.learnt, &tables.notes).await
    }

    /// The point in time that `expr` is: a text, or whatever can be computed without a table.
    ///
    /// Errors: `Invalid` for one that is none.
    pub(super) async fn point_in_time(&self, expr: &Expr) -> Result<DateTime<Utc>> {
        if let Ok(text) = text(expr) {
            return time_travel::point_in_time(&text);
        }
        let wrong = || {
            Error::invalid(format!("'{expr}' is not a point in time"))
                .hint("write a text such as '2026-03-01 12:00', or an expression such as now() - interval '1 day'")
        };
        let (context, plan) = Box::pin(self.plan_part("", &format!("SELECT {expr}"), Vec::new())).await?;
        let frame = context.execute_logical_plan(plan).await.map_err(|_| wrong())?;
        let rows = frame.collect().await.map_err(|_| wrong())?;
        let value = rows.first().filter(|batch| batch.num_rows() == 1).and_then(|batch| batch.columns().first());
        let value = value.filter(|value| matches!(value.data_type(), DataType::Timestamp(..) | DataType::Date32));
        let value = value.and_then(|value| cast(value, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok());
        let value = value.filter(|value| value.is_valid(0)).ok_or_else(wrong)?;
        let micros = value.as_primitive::<TimestampMicrosecondType>().value(0);
        DateTime::from_timestamp_micros(micros).ok_or_else(wrong)
    }

    async fn text_table(&self, name: &str) -> Result<Table> {
        let parts = name.split('.').map(|part| ObjectNamePart::Identifier(Ident::with_quote('"', part)));
        self.named_table(&ObjectName(parts.collect())).await
    }

    async fn latest(&self, table: &Table) -> Result<u64> {
        let snapshot = table.snapshot().await?;
        snapshot
            .map(|snapshot| snapshot.version())
            .ok_or_else(|| Error::not_found(format!("there is no table '{}'", table.name())))
    }

    async fn table_at(&self, table: &Table, version: u64, shows_own: bool) -> Result<Arc<dyn TableProvider>> {
        let latest = self.latest(table).await?;
        if version > latest {
            return Err(Error::not_found(format!("{} has no version {version}", table.address()))
                .hint(format!("its latest version is {latest}")));
        }
        let snapshot = table.snapshot_at(Some(version)).await?;
        let snapshot = snapshot.ok_or_else(|| Error::not_found(format!("there is no table '{}'", table.name())))?;
        let contents = Contents::of(&snapshot)?;
        Ok(Arc::new(LakeTable::new(if shows_own { contents } else { contents.without_own() })?))
    }
}
