//! `CREATE TABLE`, with and without a query, and what `ALTER TABLE` does to columns, constraints and properties.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, ColumnDef, ColumnOption, CreateTable, CreateTableLike,
    CreateTableLikeKind, CreateTableOptions, DataType as SqlType, Expr, Ident, ObjectName, SqlOption, TableConstraint,
};
use flumen_core::{Error, Result};

use super::draft::{CHANGE_FEED, Draft};
use super::{Statement, filling, name_of_ident, refuse};
use crate::constraints::{CONSTRAINT_PREFIX, condition, describe_row};
use crate::engine::columns::{self, quoted};
use crate::engine::defaults::{self, ColumnDefault};
use crate::engine::functions::postgres;
use crate::types;

/// An `ALTER TABLE` that changes what the table itself says of it.
pub(in crate::engine) struct Alteration {
    pub table: ObjectName,
    pub operations: Vec<AlterTableOperation>,
}

/// What a CREATE TABLE says about the table besides its columns.
pub(in crate::engine) struct Declared {
    pub partition_by: Vec<String>,
    pub cluster_by: Vec<String>,
    pub properties: BTreeMap<String, String>,
}

/// Stages a new table, and the rows of its query.
pub(super) async fn create(statement: &Statement<'_>, create: &CreateTable, draft: &mut Draft) -> Result<u64> {
    let table = draft.table().address();
    if draft.exists() {
        if create.if_not_exists {
            return Ok(0);
        }
        if !create.or_replace {
            return Err(Error::conflict(format!("{table} is there already"))
                .hint("write create or replace table …, or create table if not exists …"));
        }
        let before = draft.files()?;
        draft.remove(before)?;
        draft.look();
    }
    refuse_forms(create)?;
    let declared = declared(create)?;
    let mut properties = declared.properties;
    let Some(query) = &create.query else {
        let schema = match &like_of(create) {
            Some(like) => like_schema(statement, like).await?,
            None => schema_of(statement, &create.columns, &create.constraints, &mut properties)?,
        };
        if schema.fields().is_empty() {
            return Err(Error::invalid(format!("{table}: a table needs a column")));
        }
        for column in create.columns.iter().filter(|_| like_of(create).is_none()) {
            put_default(statement, &mut properties, &schema, column).await?;
        }
        let partition_by = spelled_all(&schema, &declared.partition_by, &table)?;
        draft.define(schema, partition_by, properties);
        draft.describe(if create.or_replace { "CREATE OR REPLACE TABLE" } else { "CREATE TABLE" });
        return Ok(0);
    };
    let (context, plan) = statement.plan_kept(query).await?;
    let given: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
    if given.fields().is_empty() {
        return Err(Error::invalid(format!("{table}: the query has no columns")));
    }
    let schema = columns::stored(&given).map_err(|error| error.within(&table))?;
    let partition_by = spelled_all(&schema, &declared.partition_by, &table)?;
    let plan = statement.all_columns(plan, &schema)?;
    let plan = columns::sorted(plan, &spelled_all(&schema, &declared.cluster_by, &table)?)
        .map_err(|error| statement.explained(error))?;
    draft.define(schema, partition_by, properties);
    let written = statement.write_rows(draft, &context, &plan, false).await?;
    draft.add(written.files);
    draft.describe(if create.or_replace { "CREATE OR REPLACE TABLE AS SELECT" } else { "CREATE TABLE AS SELECT" });
    Ok(written.rows)
}

/// The table that a new one is to be like. `(LIKE t)` reads as a column called so, of the type `t`.
fn like_of(create: &CreateTable) -> Option<CreateTableLikeKind> {
    if create.like.is_some() {
        return create.like.clone();
    }
    let [column] = create.columns.as_slice() else { return None };
    let SqlType::Custom(name, modifiers) = &column.data_type else { return None };
    let is_like = column.name.quote_style.is_none() && column.name.value.eq_ignore_ascii_case("like");
    let like = CreateTableLike { name: name.clone(), defaults: None };
    (is_like && modifiers.is_empty() && column.options.is_empty()).then_some(CreateTableLikeKind::Parenthesized(like))
}

async fn like_schema(statement: &Statement<'_>, like: &CreateTableLikeKind) -> Result<SchemaRef> {
    use CreateTableLikeKind as Like;
    let (Like::Parenthesized(like) | Like::Plain(like)) = like;
    let (_, plan) = statement.plan(&format!("SELECT * FROM {}", like.name), Vec::new()).await?;
    columns::stored(&Arc::new(plan.schema().as_arrow().clone()))
}

fn refuse_forms(create: &CreateTable) -> Result<()> {
    if create.clone.is_some() {
        return refuse("create table … clone", "write create table b as select * from a");
    }
    if create.external || create.location.is_some() {
        return refuse("create table … location", "write create external table t stored as parquet location '…'");
    }
    if create.inherits.is_some() || create.partition_of.is_some() {
        return refuse("a table that inherits", "write create table … partitioned by (column)");
    }
    Ok(())
}

/// What a CREATE TABLE says in its options and clauses.
///
/// Errors: `Invalid` for options that mean nothing here.
pub(in crate::engine) fn declared(create: &CreateTable) -> Result<Declared> {
    let mut declared = Declared { partition_by: Vec::new(), cluster_by: Vec::new(), properties: BTreeMap::new() };
    if let Some(by) = &create.partition_by {
        declared.partition_by = names_in(by)?;
    }
    if let datafusion::sql::sqlparser::ast::HiveDistributionStyle::PARTITIONED { columns } = &create.hive_distribution {
        declared.partition_by = columns.iter().map(|column| name_of_ident(&column.name)).collect();
    }
    if let Some(by) = &create.cluster_by {
        use datafusion::sql::sqlparser::ast::WrappedCollection as W;
        let (W::NoWrapping(list) | W::Parentheses(list)) = by;
        for expr in list {
            declared.cluster_by.extend(names_in(expr)?);
        }
    }
    let options = match &create.table_options {
        CreateTableOptions::None => &[][..],
        CreateTableOptions::With(options)
        | CreateTableOptions::Options(options)
        | CreateTableOptions::Plain(options)
        | CreateTableOptions::TableProperties(options) => options,
    };
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            return refuse(&option.to_string(), "write with (key = 'value')");
        };
        set_property(&mut declared.properties, &key.value, &plain(value))?;
    }
    Ok(declared)
}

/// Sets a property of a table, by the name that SQL has for it.
///
/// Errors: `Invalid` for one that would change what the table's files mean.
fn set_property(properties: &mut BTreeMap<String, String>, key: &str, value: &str) -> Result<()> {
    const ALLOWED: &[&str] = &[
        "delta.appendOnly",
        CHANGE_FEED,
        "delta.logRetentionDuration",
        "delta.deletedFileRetentionDuration",
        "delta.checkpointInterval",
        "delta.dataSkippingNumIndexedCols",
        "delta.targetFileSize",
    ];
    let key = match key.to_lowercase().as_str() {
        "append_only" => "delta.appendOnly".to_owned(),
        "change_feed" | "change_data_feed" => CHANGE_FEED.to_owned(),
        lower => {
            ALLOWED.iter().find(|of| of.to_lowercase() == lower).map_or_else(|| key.to_owned(), ToString::to_string)
        }
    };
    if key.starts_with("delta.") && !ALLOWED.contains(&key.as_str()) {
        return Err(Error::invalid(format!("the property '{key}' cannot be set here"))
            .hint(format!("properties of Delta that can be set: {}; names of your own are free", ALLOWED.join(", "))));
    }
    properties.insert(key, value.to_owned());
    Ok(())
}

/// A value as it is written in a property.
fn plain(expr: &Expr) -> String {
    match expr {
        Expr::Value(value) => value.value.clone().into_string().unwrap_or_else(|| value.to_string()),
        other => other.to_string(),
    }
}

/// `a` or `(a, b)`.
fn names_in(expr: &Expr) -> Result<Vec<String>> {
    match expr {
        Expr::Identifier(ident) => Ok(vec![name_of_ident(ident)]),
        Expr::Nested(inner) => names_in(inner),
        Expr::Tuple(list) => list.iter().map(names_in).collect::<Result<Vec<_>>>().map(|names| names.concat()),
        other => Err(Error::invalid(format!("'{other}' is not a column")).hint("name columns: partitioned by (day)")),
    }
}

fn spelled_all(schema: &Schema, names: &[String], table: &str) -> Result<Vec<String>> {
    names.iter().map(|name| columns::spelled(schema, name, table)).collect()
}

/// The columns of a CREATE TABLE, and into `properties` its CHECK constraints.
fn schema_of(
    statement: &Statement<'_>,
    defined: &[ColumnDef],
    constraints: &[TableConstraint],
    properties: &mut BTreeMap<String, String>,
) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(defined.len());
    let mut checks: Vec<(Option<String>, String)> = Vec::new();
    let mut required: Vec<String> = Vec::new();
    for column in defined {
        let mut field = statement.field(column)?;
        if postgres::is_serial(&column.data_type) {
            field = field.with_nullable(false);
        }
        for option in &column.options {
            match &option.option {
                ColumnOption::NotNull => field = field.with_nullable(false),
                ColumnOption::Null | ColumnOption::Comment(_) | ColumnOption::Unique(_) => {}
                ColumnOption::PrimaryKey(_) => field = field.with_nullable(false),
                ColumnOption::ForeignKey(_) | ColumnOption::Default(_) | ColumnOption::Identity(_) => {}
                ColumnOption::Generated { generation_expr: None, .. } => {}
                ColumnOption::Check(check) => {
                    checks.push((option.name.as_ref().map(|name| name.value.clone()), check.expr.to_string()));
                }
                other => {
                    return refuse(&format!("column … {other}"), "give the value in the insert");
                }
            }
        }
        fields.push(field);
    }
    for constraint in constraints {
        match constraint {
            TableConstraint::Check(check) => {
                checks.push((check.name.as_ref().map(|name| name.value.clone()), check.expr.to_string()));
            }
            TableConstraint::PrimaryKey(key) => {
                required.extend(key.columns.iter().filter_map(|column| match &column.column.expr {
                    Expr::Identifier(ident) => Some(name_of_ident(ident)),
                    _ => None,
                }));
            }
            TableConstraint::Unique(_) | TableConstraint::ForeignKey(_) => {}
            other => return refuse(&other.to_string(), "declare primary key, unique, foreign key or check"),
        }
    }
    for field in &mut fields {
        if required.contains(field.name()) {
            *field = field.clone().with_nullable(false);
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    types::stored_schema(&schema)?;
    for (name, text) in checks {
        add_check(properties, name, &text, &schema)?;
    }
    Ok(schema)
}

fn add_check(
    properties: &mut BTreeMap<String, String>,
    name: Option<String>,
    text: &str,
    schema: &SchemaRef,
) -> Result<()> {
    condition(text, schema)?;
    let free = |name: &String| !properties.contains_key(&format!("{CONSTRAINT_PREFIX}{name}"));
    let name = match name {
        Some(name) if !free(&name) => return Err(Error::conflict(format!("there is a constraint '{name}' already"))),
        Some(name) => name,
        None => (1..).map(|number| format!("check_{number}")).find(free).unwrap_or_default(),
    };
    properties.insert(format!("{CONSTRAINT_PREFIX}{name}"), text.to_owned());
    Ok(())
}

/// Stages an ALTER TABLE.
pub(super) async fn alter(statement: &Statement<'_>, alteration: &Alteration, draft: &mut Draft) -> Result<u64> {
    for operation in &alteration.operations {
        alter_once(statement, operation, draft).await?;
    }
    Ok(0)
}

async fn alter_once(statement: &Statement<'_>, operation: &AlterTableOperation, draft: &mut Draft) -> Result<()> {
    let table = draft.table().address();
    let schema = Arc::clone(draft.schema());
    match operation {
        AlterTableOperation::AddColumn { column_def, if_not_exists, .. } => {
            let is_required = column_def.options.iter().any(|option| matches!(option.option, ColumnOption::NotNull))
                || postgres::is_serial(&column_def.data_type);
            let field = statement.field(column_def)?.with_nullable(!is_required);
            if columns::spelled(&schema, field.name(), &table).is_ok() {
                if *if_not_exists {
                    return Ok(());
                }
                return Err(Error::conflict(format!("{table} has a column '{}' already", field.name())));
            }
            if is_required && ColumnDefault::declared(column_def).is_none() && !draft.files()?.is_empty() {
                return Err(Error::invalid(format!("'{}' would be null in the rows that are there", field.name()))
                    .hint(
                        "add it without not null, fill it with update, then: alter table … alter column … set not null",
                    ));
            }
            let fields = schema.fields().iter().cloned().chain([Arc::new(field)]);
            add_column(statement, draft, Schema::new(fields.collect::<Vec<_>>()), column_def).await
        }
        AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
            let mut kept: Vec<FieldRef> = schema.fields().to_vec();
            for name in column_names {
                match columns::spelled(&schema, &name_of_ident(name), &table) {
                    Ok(name) => kept.retain(|field| *field.name() != name),
                    Err(_) if *if_exists => {}
                    Err(error) => return Err(error),
                }
            }
            if kept.len() == schema.fields().len() {
                return Ok(());
            }
            check_not_partition(draft, &schema, &kept, "dropped")?;
            check_constraints(draft, &kept)?;
            let mut properties = draft.properties().clone();
            for field in schema.fields().iter().filter(|field| !kept.iter().any(|of| of.name() == field.name())) {
                defaults::remove(&mut properties, field.name());
            }
            draft.define(Arc::clone(&schema), draft.partition_by().to_vec(), properties);
            let selected: Vec<String> = kept.iter().map(|field| quoted(field.name())).collect();
            rewrite_all(statement, draft, Schema::new(kept), &selected, "DROP COLUMNS").await
        }
        AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
            let old = columns::spelled(&schema, &name_of_ident(old_column_name), &table)?;
            let new = name_of_ident(new_column_name);
            if let Ok(there) = columns::spelled(&schema, &new, &table)
                && there != old
            {
                return Err(Error::conflict(format!("{table} has a column '{there}' already")));
            }
            let renamed = |field: &FieldRef| match *field.name() == old {
                true => Arc::new(field.as_ref().clone().with_name(&new)),
                false => Arc::clone(field),
            };
            let fields: Vec<FieldRef> = schema.fields().iter().map(renamed).collect();
            check_not_partition(draft, &schema, &fields, "renamed")?;
            check_constraints(draft, &fields)?;
            let mut properties = draft.properties().clone();
            defaults::rename(&mut properties, &old, &new);
            draft.define(Arc::clone(&schema), draft.partition_by().to_vec(), properties);
            let selected: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
            rewrite_all(statement, draft, Schema::new(fields), &selected, "RENAME COLUMN").await
        }
        AlterTableOperation::AlterColumn { column_name, op } => alter_column(statement, column_name, op, draft).await,
        AlterTableOperation::AddConstraint { constraint: TableConstraint::Check(check), .. } => {
            let mut properties = draft.properties().clone();
            let text = check.expr.to_string();
            add_check(&mut properties, check.name.as_ref().map(|name| name.value.clone()), &text, &schema)?;
            statement
                .none_where(draft, &format!("({text}) IS FALSE"), &format!("break the constraint ({text})"))
                .await?;
            draft.define(schema, draft.partition_by().to_vec(), properties);
            draft.look();
            draft.describe("ADD CONSTRAINT");
            Ok(())
        }
        AlterTableOperation::DropConstraint { if_exists, name, .. } => {
            let mut properties = draft.properties().clone();
            if properties.remove(&format!("{CONSTRAINT_PREFIX}{}", name.value)).is_none() && !if_exists {
                let names = properties.keys().filter_map(|key| key.strip_prefix(CONSTRAINT_PREFIX));
                return Err(Error::not_found(format!("{table} has no constraint '{}'", name.value))
                    .did_you_mean(&name.value, names));
            }
            draft.define(schema, draft.partition_by().to_vec(), properties);
            draft.describe("DROP CONSTRAINT");
            Ok(())
        }
        AlterTableOperation::SetTblProperties { table_properties } => {
            let mut properties = draft.properties().clone();
            for option in table_properties {
                let SqlOption::KeyValue { key, value } = option else {
                    return refuse(&option.to_string(), "write set tblproperties ('key' = 'value')");
                };
                set_property(&mut properties, &key.value, &plain(value))?;
            }
            draft.define(schema, draft.partition_by().to_vec(), properties);
            draft.describe("SET TBLPROPERTIES");
            Ok(())
        }
        other => refuse(&format!("alter table {other}"), "see docs/sql.md for what can be altered"),
    }
}

async fn alter_column(
    statement: &Statement<'_>,
    column: &Ident,
    operation: &AlterColumnOperation,
    draft: &mut Draft,
) -> Result<()> {
    let table = draft.table().address();
    let schema = Arc::clone(draft.schema());
    let name = columns::spelled(&schema, &name_of_ident(column), &table)?;
    let with = |change: &dyn Fn(Field) -> Field| {
        let fields = schema.fields().iter().map(|field| match *field.name() == name {
            true => Arc::new(change(field.as_ref().clone())),
            false => Arc::clone(field),
        });
        Schema::new(fields.collect::<Vec<_>>())
    };
    match operation {
        AlterColumnOperation::SetNotNull => {
            statement.none_where(draft, &format!("{} IS NULL", quoted(&name)), &format!("have no '{name}'")).await?;
            redefine(draft, with(&|field| field.with_nullable(false)), "CHANGE COLUMN");
            draft.look();
            Ok(())
        }
        AlterColumnOperation::DropNotNull => {
            redefine(draft, with(&|field| field.with_nullable(true)), "CHANGE COLUMN");
            Ok(())
        }
        AlterColumnOperation::SetDataType { data_type, .. } => {
            let wanted = statement.stored_type(data_type)?;
            let there = schema.field_with_name(&name)?;
            if types::same_type(there.data_type(), &wanted) {
                return Ok(());
            }
            check_not_partition_column(draft, &name, "given another type")?;
            let selected: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
            let changed = with(&|field| field.with_data_type(wanted.clone()));
            rewrite_all(statement, draft, changed, &selected, "CHANGE COLUMN").await
        }
        AlterColumnOperation::SetDefault { value } => {
            let mut properties = draft.properties().clone();
            match ColumnDefault::of_expr(value) {
                Some(default) => {
                    filling::check(statement, schema.field_with_name(&name)?, &default).await?;
                    default.put(&mut properties, &schema, &name)?;
                }
                None => drop(defaults::remove(&mut properties, &name)),
            }
            draft.define(Arc::clone(&schema), draft.partition_by().to_vec(), properties);
            draft.describe("CHANGE COLUMN");
            Ok(())
        }
        AlterColumnOperation::DropDefault => {
            let mut properties = draft.properties().clone();
            defaults::remove(&mut properties, &name);
            draft.define(Arc::clone(&schema), draft.partition_by().to_vec(), properties);
            draft.describe("CHANGE COLUMN");
            Ok(())
        }
        AlterColumnOperation::AddGenerated { .. } => {
            let mut properties = draft.properties().clone();
            ColumnDefault::Serial.put(&mut properties, &schema, &name)?;
            draft.define(Arc::clone(&schema), draft.partition_by().to_vec(), properties);
            draft.describe("CHANGE COLUMN");
            Ok(())
        }
    }
}

/// Notes what `column` gets where an insert leaves it out, if it says so.
async fn put_default(
    statement: &Statement<'_>,
    properties: &mut BTreeMap<String, String>,
    schema: &Schema,
    column: &ColumnDef,
) -> Result<()> {
    let Some(default) = ColumnDefault::declared(column) else { return Ok(()) };
    let name = name_of_ident(&column.name);
    filling::check(statement, schema.field_with_name(&name)?, &default).await?;
    default.put(properties, schema, &name)
}

/// Adds the last column of `schema`. The rows that are there get its default, if it has one.
async fn add_column(statement: &Statement<'_>, draft: &mut Draft, schema: Schema, column: &ColumnDef) -> Result<()> {
    let mut properties = draft.properties().clone();
    put_default(statement, &mut properties, &schema, column).await?;
    let value = match ColumnDefault::declared(column) {
        None => {
            redefine(draft, schema, "ADD COLUMNS");
            return Ok(());
        }
        Some(ColumnDefault::Serial) => "row_number() OVER ()".to_owned(),
        Some(ColumnDefault::Expression(text)) => format!("({text})"),
    };
    let before = draft.schema().fields().iter().map(|field| quoted(field.name()));
    let selected: Vec<String> = before.chain([value]).collect();
    let (now, partition_by) = (Arc::clone(draft.schema()), draft.partition_by().to_vec());
    draft.define(now, partition_by, properties);
    rewrite_all(statement, draft, schema, &selected, "ADD COLUMNS").await
}

fn redefine(draft: &mut Draft, schema: Schema, operation: &'static str) {
    let (partition_by, properties) = (draft.partition_by().to_vec(), draft.properties().clone());
    draft.define(Arc::new(schema), partition_by, properties);
    draft.describe(operation);
}

/// Writes all rows anew, with the columns of `schema`, which take their values from `selected`.
async fn rewrite_all(
    statement: &Statement<'_>,
    draft: &mut Draft,
    schema: Schema,
    selected: &[String],
    operation: &'static str,
) -> Result<()> {
    draft.look();
    let files = draft.files()?;
    let before = draft.contents()?;
    redefine(draft, schema, operation);
    if files.is_empty() {
        return Ok(());
    }
    let query = format!("SELECT {} FROM {}", selected.join(", "), super::TARGET);
    statement.rewrite_from(draft, before, &query).await
}

fn check_not_partition(draft: &Draft, before: &Schema, after: &[FieldRef], what: &str) -> Result<()> {
    let gone = before
        .fields()
        .iter()
        .find(|field| draft.partition_by().contains(field.name()) && !after.iter().any(|of| of.name() == field.name()));
    gone.map_or(Ok(()), |field| check_not_partition_column(draft, field.name(), what))
}

fn check_not_partition_column(draft: &Draft, name: &str, what: &str) -> Result<()> {
    if !draft.partition_by().iter().any(|column| column == name) {
        return Ok(());
    }
    Err(Error::invalid(format!("the table is partitioned by '{name}', which cannot be {what}"))
        .hint("write the table anew: create or replace table … partitioned by (…) as select …"))
}

/// Constraints must go on meaning something.
fn check_constraints(draft: &Draft, after: &[FieldRef]) -> Result<()> {
    let schema: SchemaRef = Arc::new(Schema::new(after.to_vec()));
    for (key, text) in draft.properties() {
        if let Some(name) = key.strip_prefix(CONSTRAINT_PREFIX)
            && condition(text, &schema).is_err()
        {
            return Err(Error::conflict(format!("the constraint '{name}' ({text}) needs the column"))
                .hint(format!("drop it first: alter table … drop constraint {name}")));
        }
    }
    Ok(())
}

impl Statement<'_> {
    /// The column that `column` defines, in the type that the lake keeps.
    fn field(&self, column: &ColumnDef) -> Result<Field> {
        let data_type = self.stored_type(&column.data_type)?;
        Ok(Field::new(name_of_ident(&column.name), data_type, true))
    }

    /// The type that the lake keeps for a type of SQL.
    fn stored_type(&self, data_type: &datafusion::sql::sqlparser::ast::DataType) -> Result<DataType> {
        let arrow = self.engine.sql_type(self.sql, data_type)?;
        types::stored_type(&arrow)
    }

    /// That there is no row for which `condition` holds.
    ///
    /// Errors: `Data`, with the first such row.
    async fn none_where(&self, draft: &Draft, condition: &str, what: &str) -> Result<()> {
        let table = self.places(draft, draft.files()?)?;
        let columns = columns_list(draft.schema());
        let query = format!("SELECT {columns} FROM {} WHERE {condition} LIMIT 1", super::TARGET);
        let (context, plan) = self.plan(&query, vec![(super::TARGET.to_owned(), table)]).await?;
        let frame = context.execute_logical_plan(plan).await.map_err(|error| self.explained(error))?;
        let rows = frame.collect().await.map_err(|error| self.explained(error))?;
        match rows.iter().find(|batch| batch.num_rows() > 0) {
            None => Ok(()),
            Some(batch) => Err(Error::data(format!(
                "{}: rows of the table {what}, for example: {}",
                draft.table().address(),
                describe_row(batch, 0)
            ))
            .hint("correct these rows first, with update or delete")),
        }
    }
}

fn columns_list(schema: &Schema) -> String {
    schema.fields().iter().map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ")
}
