//! What a server of sessions asks of an engine beyond running statements: what a statement will answer, and rows of its
//! own as a table.

use std::sync::{Arc, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{SchemaProvider as _, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::function::WindowUDFFieldArgs;
use datafusion::logical_expr::{Documentation, ReturnFieldArgs, ScalarUDF, Signature, TypeSignature};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::sql::{Answer, BatchStream, SqlEngine as _};
use flumen_core::{Error, Result};
use futures::TryStreamExt as _;

use super::columns::{self, quoted};
use super::commands::parts;
use super::defaults::ColumnDefault;
use super::labels::{self, Labels};
use super::once::Once;
use super::tables::{LentTables, Tables};
use super::write::{self, insert, returning};
use super::{Engine, errors, functions, plan_of, references, shapes, statements, unviewed};
use crate::catalog::{Entry, Kind, Listed, Located, State, TableEntry, schema_of};
use crate::constraints::CONSTRAINT_PREFIX;
use datafusion::sql::parser::Statement;

/// What a statement takes and gives.
#[derive(Debug, Clone)]
pub struct Description {
    /// The types of its parameters `$1`, `$2`, …; none where nothing in the statement tells.
    pub parameters: Vec<Option<DataType>>,
    /// The columns of its answer.
    pub schema: SchemaRef,
}

/// What is known about a table without reading its rows.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// What it is.
    pub kind: Kind,
    /// Its columns. What is said about one is in its metadata, as `comment`.
    pub schema: SchemaRef,
    /// How many rows it has, if every file tells.
    pub rows: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is said about it.
    pub comment: Option<String>,
    /// The query of a view.
    pub sql: Option<String>,
    /// Conditions that its rows meet, by their names.
    pub checks: Vec<(String, String)>,
    /// What columns get that an insert leaves out.
    pub defaults: Vec<(String, ColumnDefault)>,
    /// What else the catalog says of a table: declared keys, owner, tags.
    pub entry: Option<TableEntry>,
}

impl Default for TableInfo {
    fn default() -> Self {
        let schema = SchemaRef::new(Schema::empty());
        Self {
            kind: Kind::Table,
            schema,
            rows: None,
            bytes: 0,
            comment: None,
            sql: None,
            checks: Vec::new(),
            defaults: Vec::new(),
            entry: None,
        }
    }
}

/// `schema`, with what `entry` says about columns as their metadata.
fn commented(schema: &SchemaRef, entry: &Entry) -> SchemaRef {
    let field = |field: &FieldRef| match entry.columns().get(field.name()).and_then(|about| about.description.clone()) {
        Some(comment) => {
            let metadata = [("comment".to_owned(), comment)].into();
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A function of the engine.
#[derive(Debug, Clone)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// `f` for one of values, `a` for one of groups, `w` for one of windows.
    pub kind: &'static str,
    /// What it takes, in words.
    pub arguments: String,
    /// What it takes and gives: examples of each form, as far as that is told.
    pub forms: Vec<Form>,
}

/// A form of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The types of its arguments.
    pub arguments: Vec<DataType>,
    /// The type of what it gives.
    pub result: DataType,
}

/// The forms of a function with `signature`. `coerced` says as what it takes arguments of a type, `given` what it gives.
fn forms(
    signature: &Signature,
    documentation: Option<&Documentation>,
    coerced: impl Fn(&[DataType]) -> Option<Vec<DataType>>,
    given: impl Fn(&[FieldRef]) -> Option<DataType>,
) -> Vec<Form> {
    let mut examples = signature.type_signature.get_example_types();
    if signature.type_signature == TypeSignature::Nullary {
        examples = vec![Vec::new()];
    }
    if examples.is_empty() && signature.type_signature == TypeSignature::UserDefined {
        // It tells only when it is asked.
        let count = documentation.and_then(|documentation| documentation.arguments.as_ref()).map_or(1, Vec::len);
        let tried = [DataType::Int64, DataType::Float64, DataType::Utf8, DataType::Date32];
        examples = tried.iter().filter_map(|tried| coerced(&vec![tried.clone(); count])).collect();
    }
    let form = |arguments: Vec<DataType>| {
        let fields = arguments.iter().enumerate();
        let fields = fields.map(|(place, of)| Arc::new(Field::new(format!("arg_{place}"), of.clone(), true)));
        let result = given(&fields.collect::<Vec<_>>())?;
        Some(Form { arguments, result })
    };
    let mut forms: Vec<Form> = Vec::new();
    for form in examples.into_iter().filter_map(form) {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

impl Engine {
    /// All namespaces of the lake, sorted.
    #[boxed]
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        let Some(catalog) = &self.tables.catalog else { return Ok(Vec::new()) };
        let state = self.tables.state(catalog).await?;
        catalog.namespaces(&state).await
    }

    /// The tables, views and external tables of the lake, sorted.
    #[boxed]
    pub async fn listed(&self) -> Result<Vec<Listed>> {
        self.tables.listed().await
    }

    /// The catalog of the lake as this session sees it; none without a lake.
    #[boxed]
    pub async fn catalog_state(&self) -> Result<Option<Arc<State>>> {
        match &self.tables.catalog {
            Some(catalog) => self.tables.state(catalog).await.map(Some),
            None => Ok(None),
        }
    }

    /// What is known about a table of the lake; none if it is not there.
    ///
    /// Errors: those of reading its log.
    #[boxed]
    pub async fn table_info(&self, name: &TableName) -> Result<Option<TableInfo>> {
        let (entry, mut info) = match self.tables.locate(name).await? {
            None => return Ok(None),
            Some(Located::View(view)) => {
                let schema = schema_of(&view.columns)?;
                let sql = Some(view.sql.clone());
                (Some(Entry::View(view)), TableInfo { kind: Kind::View, schema, sql, ..TableInfo::default() })
            }
            Some(Located::External(external)) => {
                let schema = match &external.columns {
                    Some(columns) => schema_of(columns)?,
                    None => self.columns(&format!("{}.{}", quoted(&name.namespace), quoted(&name.table))).await?,
                };
                (Some(Entry::External(external)), TableInfo { kind: Kind::External, schema, ..TableInfo::default() })
            }
            Some(Located::Table { table, version, entry }) => {
                let Some(contents) = self.tables.contents(&table, version).await? else { return Ok(None) };
                let files = &contents.files;
                let rows = files.iter().map(|file| file.stats.as_ref().and_then(|stats| stats.num_records)).sum();
                let bytes = files.iter().map(|file| file.size).sum();
                let schema = columns::without_own(&contents.schema);
                let checks = contents.properties.iter().filter_map(|(property, condition)| {
                    let name = property.strip_prefix(CONSTRAINT_PREFIX)?;
                    Some((name.to_owned(), condition.clone()))
                });
                let checks = checks.collect();
                let fields = contents.schema.fields().iter();
                let default = |name: &String| {
                    ColumnDefault::of(&contents.properties, name).map(|default| (name.clone(), default))
                };
                let defaults = fields.filter_map(|field| default(field.name())).collect();
                (entry.map(Entry::Table), TableInfo { schema, rows, bytes, checks, defaults, ..TableInfo::default() })
            }
        };
        if let Some(entry) = entry {
            info.comment.clone_from(&entry.about().description);
            info.schema = commented(&info.schema, &entry);
            info.entry = entry.as_table().cloned();
        }
        Ok(Some(info))
    }

    /// All functions, sorted by name.
    pub fn functions(&self) -> Vec<FunctionInfo> {
        let state = self.base();
        let arguments = |documentation: Option<&Documentation>| {
            let example = documentation.map(|documentation| documentation.syntax_example.as_str()).unwrap_or_default();
            let inner = example.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
            inner.map(|(arguments, _)| arguments.to_owned()).unwrap_or_default()
        };
        let made = |name: &String, kind, documentation, forms| FunctionInfo {
            name: name.clone(),
            kind,
            arguments: arguments(documentation),
            forms,
        };
        let scalar = state.scalar_functions().iter().map(|(name, function)| {
            let about = function.documentation();
            let given = |fields: &[FieldRef]| {
                let scalar_arguments = vec![None; fields.len()];
                let arguments = ReturnFieldArgs { arg_fields: fields, scalar_arguments: &scalar_arguments };
                Some(function.return_field_from_args(arguments).ok()?.data_type().clone())
            };
            let coerced = |types: &[DataType]| function.coerce_types(types).ok();
            made(name, "f", about, forms(function.signature(), about, coerced, given))
        });
        let aggregate = state.aggregate_functions().iter().map(|(name, function)| {
            let about = function.documentation();
            let given = |fields: &[FieldRef]| Some(function.return_field(fields).ok()?.data_type().clone());
            let coerced = |types: &[DataType]| function.coerce_types(types).ok();
            made(name, "a", about, forms(function.signature(), about, coerced, given))
        });
        let window = state.window_functions().iter().map(|(name, function)| {
            let about = function.documentation();
            let given = |fields: &[FieldRef]| {
                let arguments = WindowUDFFieldArgs::new(fields, function.name());
                Some(function.field(arguments).ok()?.data_type().clone())
            };
            let coerced = |types: &[DataType]| function.coerce_types(types).ok();
            made(name, "w", about, forms(function.signature(), about, coerced, given))
        });
        let written = functions::written().map(|(name, arguments)| FunctionInfo {
            name: name.to_owned(),
            kind: "f",
            arguments: arguments.to_owned(),
            forms: Vec::new(),
        });
        let mut all: Vec<FunctionInfo> = scalar.chain(aggregate).chain(window).chain(written).collect();
        all.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }

    /// What a query, or a change of rows, takes and gives. It is planned and not run.
    ///
    /// Errors: those of [`query`](flumen_core::sql::SqlEngine::query).
    #[boxed]
    pub async fn describe(&self, sql: &str) -> Result<Description> {
        let mut statement = statements::parse(sql)?;
        references::in_environment(&mut statement, &self.tables.environment());
        if let Some(answer) = self.tell(sql, &statement).await? {
            return Ok(Description { parameters: Vec::new(), schema: answer.schema });
        }
        let returned = self.describe_returned(sql, &mut statement).await?;
        insert::simplify(&mut statement);
        match (self.describe_plan(sql, statement).await, returned) {
            (described, None) => described,
            // What is not known of the parameters is said by who gives them.
            (described, Some(schema)) => {
                let parameters = described.map(|described| described.parameters).unwrap_or_default();
                Ok(Description { parameters, schema })
            }
        }
    }

    /// The columns of what a statement returns, which is taken out of it.
    async fn describe_returned(&self, sql: &str, statement: &mut Statement) -> Result<Option<SchemaRef>> {
        let Some(items) = returning::take(statement) else { return Ok(None) };
        let Statement::Statement(inner) = &*statement else { return Ok(None) };
        let (name, alias) = write::returning_table(inner)?;
        let table = self.tables.existing(&parts(&name)?).await?;
        self.returned_columns(sql, &table, &alias, items).await.map(Some)
    }

    async fn describe_plan(&self, sql: &str, mut statement: Statement) -> Result<Description> {
        let explained = |error| errors::explain(error, sql);
        self.rewrite_pivots(sql, &mut statement).await?;
        let references = self.resolve_references(&mut statement, false).await?;
        let labels = Labels::of(&statement);
        labels::alias(&mut statement);
        functions::rewrite(&mut statement)?;
        shapes::rewrite(&mut statement)?;
        let context = self.context_for(sql, &mut statement, references, &[]).await?;
        let plan = plan_of(&context, statement).await.map_err(explained)?;
        let mut parameters = Vec::new();
        for (name, data_type) in plan.get_parameter_types().map_err(explained)? {
            let number = name.trim_start_matches('$').parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let Some(index) = number.filter(|index| *index <= usize::from(u16::MAX)) else { continue };
            if parameters.len() <= index {
                parameters.resize(index + 1, None);
            }
            parameters[index] = data_type;
        }
        Ok(Description { parameters, schema: labels.apply(&unviewed(&Arc::new(plan.schema().as_arrow().clone()))) })
    }

    /// Runs `sql`, in which `name` is a table of this session with the rows of `batches`. They can be read once.
    ///
    /// Errors: those of [`query`](flumen_core::sql::SqlEngine::query).
    #[boxed]
    pub async fn query_with_rows(
        &self,
        sql: &str,
        name: &str,
        schema: SchemaRef,
        batches: BatchStream,
    ) -> Result<Answer> {
        let explained = |error| errors::explain(error, sql);
        let batches = batches.map_err(|error| DataFusionError::External(Box::new(error)));
        let once = Once::new(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches)));
        let table = StreamingTable::try_new(schema, vec![Arc::new(once)]).map_err(explained)?;
        let table: Arc<dyn TableProvider> = Arc::new(table);
        self.tables.session.register_table(name.to_owned(), table).map_err(explained)?;
        // The plan holds the rows when the query is begun.
        let _named = Named { engine: self, name };
        self.query(sql).await
    }

    /// Lends tables to the statements of this session, under the namespaces and names that come with them, until what is
    /// given back is dropped. Those of [`LENT_SCHEMA`] are found by their names alone.
    pub fn lend(&self, tables: impl IntoIterator<Item = ((String, String), Arc<dyn TableProvider>)>) -> Lent {
        let lent = Arc::new(tables.into_iter().collect::<LentTables>());
        let all = Arc::clone(&self.tables);
        all.lent.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&lent));
        Lent { all, lent }
    }

    /// Adds functions to this session.
    ///
    /// Errors: `Internal`.
    pub fn add_functions(&self, functions: impl IntoIterator<Item = ScalarUDF>) -> Result<()> {
        use datafusion::execution::FunctionRegistry as _;
        let added = self.change_state(|state| {
            functions.into_iter().try_for_each(|function| state.register_udf(Arc::new(function)).map(drop))
        });
        let failed = |error| Error::internal("a function could not be added").caused_by(error);
        added.transpose().map(drop).map_err(failed)
    }
}

/// The namespace of tables that are lent and need not be named with it.
pub const LENT_SCHEMA: &str = "pg_catalog";

/// Tables that are lent as long as this is held.
pub struct Lent {
    all: Arc<Tables>,
    lent: Arc<LentTables>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut all = self.all.lent.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|lent| !Arc::ptr_eq(lent, &self.lent));
    }
}

/// A table of the session that is there as long as this, even if what it is for is broken off.
pub(super) struct Named<'a> {
    /// Whose session it is of.
    pub engine: &'a Engine,
    /// Its name.
    pub name: &'a str,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        // One that is gone already is gone.
        let _ = self.engine.tables.session.deregister_table(self.name);
    }
}
