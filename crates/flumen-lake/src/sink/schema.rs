//! Whether the columns of a load fit its table, and what of the table has to change for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::{Error, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use super::convert::Conversion;
use crate::constraints::CONSTRAINT_PREFIX;
use crate::lake::{Snapshot, Table};
use crate::types;

/// What a load may change about its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evolution {
    /// Nothing.
    Frozen,
    /// New columns may be added.
    AddColumns,
    /// No row of before stays: columns may get other types too.
    Anything,
}

/// The columns of a load's files: those of the load, spelled and typed as the table has them.
///
/// Errors: `Invalid` if a column does not fit the table's, or is new and may not be added.
pub(crate) fn conversion(
    table: &Table,
    current: Option<&Snapshot>,
    load: &Schema,
    evolution: Evolution,
) -> Result<Conversion> {
    let stored = types::stored_schema(load).map_err(|error| error.within(table.address()))?;
    let existing = current.map(Snapshot::schema);
    let mut fields: Vec<Arc<Field>> = Vec::new();
    let mut from = Vec::new();
    for field in stored.fields() {
        from.push(load.index_of(field.name())?);
        let Some(there) = existing.as_ref().and_then(|schema| find(schema, field.name())) else {
            if existing.is_some() && evolution == Evolution::Frozen {
                return Err(Error::invalid(format!("{}: the table has no column '{}'", table.address(), field.name()))
                    .hint("let the contract evolve the table, or leave the column out with --select"));
            }
            fields.push(Arc::clone(field));
            continue;
        };
        if evolution == Evolution::Anything {
            fields.push(Arc::new(Field::new(there.name(), field.data_type().clone(), true)));
        } else if types::same_type(there.data_type(), field.data_type()) || widens(field.data_type(), there.data_type())
        {
            fields.push(Arc::clone(there));
        } else {
            return Err(Error::invalid(format!(
                "{}: the column '{}' is {} in the table, but {} in the load",
                table.address(),
                there.name(),
                there.data_type(),
                field.data_type()
            ))
            .hint(format!("give it the table's type with --types {}=…, or load into another table", there.name())));
        }
    }
    Ok(Conversion { from, schema: Arc::new(Schema::new(fields)) })
}

/// The column that Delta takes for `name`: case does not count.
pub(crate) fn find<'a>(schema: &'a Schema, name: &str) -> Option<&'a Arc<Field>> {
    schema.fields().iter().find(|field| field.name().to_lowercase() == name.to_lowercase())
}

/// Whether every value of `narrow` is one of `wide`.
fn widens(narrow: &DataType, wide: &DataType) -> bool {
    use DataType as T;
    let bits = |data_type: &DataType| match data_type {
        T::Int8 => Some(8),
        T::Int16 => Some(16),
        T::Int32 => Some(32),
        T::Int64 => Some(64),
        _ => None,
    };
    match (narrow, wide) {
        (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Int16 | T::Int32 | T::Int64) => bits(narrow) < bits(wide),
        (T::Int8 | T::Int16 | T::Int32 | T::Float32, T::Float64) | (T::Int8 | T::Int16, T::Float32) => true,
        (T::Date32, T::Timestamp(_, None)) => true,
        (T::Decimal128(digits, places), T::Decimal128(more, finer)) => {
            finer >= places && i16::from(*more) - i16::from(*finer) >= i16::from(*digits) - i16::from(*places)
        }
        (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Decimal128(digits, places)) => {
            let needed = match narrow {
                T::Int8 => 3,
                T::Int16 => 5,
                T::Int32 => 10,
                _ => 19,
            };
            i16::from(*digits) - i16::from(*places) >= needed
        }
        _ => false,
    }
}

/// The `metaData` and `protocol` actions that make or change the table so that it holds files with `columns`.
///
/// Errors: `Conflict` if another load has made or changed the table meanwhile in a way that our files do not fit.
pub(crate) fn schema_actions(
    table: &Table,
    current: Option<&Snapshot>,
    columns: &SchemaRef,
    partition_by: &[String],
    evolution: Evolution,
    new_id: Uuid,
    now_ms: i64,
) -> Result<Vec<Value>> {
    let Some(current) = current else {
        return create(columns, partition_by, new_id, now_ms);
    };
    let existing = current.schema();
    let mut metadata = serde_json::to_value(current.state.metadata())
        .map_err(|error| Error::internal(format!("the table's metadata cannot be written: {error}")))?;
    let mut described: Value = metadata
        .get("schemaString")
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| Error::data(format!("{}: the table's schema cannot be read", table.address())))?;
    let Some(fields) = described.get_mut("fields").and_then(Value::as_array_mut) else {
        return Err(Error::data(format!("{}: the table's schema has no columns", table.address())));
    };
    let mut changed = false;
    for column in columns.fields() {
        match find(&existing, column.name()) {
            Some(there) if there.name() == column.name() && types::same_type(there.data_type(), column.data_type()) => {
            }
            Some(there) if there.name() == column.name() && evolution == Evolution::Anything => {
                let of =
                    fields.iter_mut().find(|field| field.get("name").and_then(Value::as_str) == Some(there.name()));
                if let Some(of) = of {
                    *of = types::delta_field(column)?;
                    changed = true;
                }
            }
            Some(there) => {
                return Err(Error::conflict(format!(
                    "{}: another load made the column '{}' ({}) meanwhile, which does not fit '{}' ({})",
                    table.address(),
                    there.name(),
                    there.data_type(),
                    column.name(),
                    column.data_type()
                ))
                .hint("run the same command again"));
            }
            None => {
                fields.push(types::delta_field(column)?);
                changed = true;
            }
        }
    }
    if !changed {
        return Ok(Vec::new());
    }
    if let Some(text) = metadata.get_mut("schemaString") {
        *text = Value::from(described.to_string());
    }
    let mut actions = vec![json!({ "metaData": metadata })];
    let protocol = current.protocol()?;
    if needs_ntz(columns) && !supports(&protocol, "timestampNtz") {
        actions.push(json!({ "protocol": with_feature(&protocol, "timestampNtz") }));
    }
    Ok(actions)
}

fn needs_ntz(columns: &Schema) -> bool {
    columns.fields().iter().any(|field| types::has_timestamp_ntz(field.data_type()))
}

fn create(columns: &Schema, partition_by: &[String], new_id: Uuid, now_ms: i64) -> Result<Vec<Value>> {
    let properties = BTreeMap::new();
    let protocol = protocol_for(None, columns, &properties)?;
    let metadata = table_metadata(None, columns, partition_by, &properties, new_id, now_ms)?;
    Ok(protocol
        .map(|protocol| json!({ "protocol": protocol }))
        .into_iter()
        .chain([json!({ "metaData": metadata })])
        .collect())
}

/// The protocol that a table with `columns` and `properties` needs, if it is not that of `current`.
///
/// Errors: `Internal` if the table's own cannot be written.
pub(crate) fn protocol_for(
    current: Option<&Snapshot>,
    columns: &Schema,
    properties: &BTreeMap<String, String>,
) -> Result<Option<Value>> {
    let on = |name: &str| properties.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut features = Vec::new();
    if needs_ntz(columns) {
        features.push("timestampNtz");
    }
    if properties.keys().any(|key| key.starts_with(CONSTRAINT_PREFIX)) {
        features.push("checkConstraints");
    }
    if on("delta.enableChangeDataFeed") {
        features.push("changeDataFeed");
    }
    if on("delta.appendOnly") {
        features.push("appendOnly");
    }
    if columns.fields().iter().any(|field| !field.is_nullable()) {
        features.push("invariants");
    }
    let Some(current) = current else {
        let modern = features.iter().any(|feature| !matches!(*feature, "appendOnly" | "invariants"));
        return Ok(Some(if modern {
            let readers: Vec<&str> = features.iter().copied().filter(|of| READER_FEATURES.contains(of)).collect();
            if readers.is_empty() {
                json!({ "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features })
            } else {
                json!({
                    "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": readers, "writerFeatures": features,
                })
            }
        } else {
            json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
        }));
    };
    let mut protocol = current.protocol()?;
    let mut changed = false;
    for feature in features {
        if !supports(&protocol, feature) {
            protocol = with_feature(&protocol, feature);
            changed = true;
        }
    }
    Ok(changed.then_some(protocol))
}

/// The `metaData` of a table: that of `current`, with these columns, partitions and properties. What `current` says about
/// columns that stay is kept.
///
/// Errors: `Internal` if it cannot be written.
pub(crate) fn table_metadata(
    current: Option<&Snapshot>,
    columns: &Schema,
    partition_by: &[String],
    properties: &BTreeMap<String, String>,
    new_id: Uuid,
    now_ms: i64,
) -> Result<Value> {
    let mut described = types::delta_schema(columns)?;
    let mut metadata = match current {
        Some(current) => serde_json::to_value(current.state.metadata())
            .map_err(|error| Error::internal(format!("the table's metadata cannot be written: {error}")))?,
        None => json!({
            "id": new_id.to_string(),
            "format": { "provider": "parquet", "options": {} },
            "createdTime": now_ms,
        }),
    };
    let before: Option<Value> =
        metadata.get("schemaString").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    let known = before.as_ref().and_then(|schema| schema.get("fields")).and_then(Value::as_array);
    for field in described.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = known.into_iter().flatten().find(|of| of.get("name") == field.get("name"));
        if let Some(about) = same.and_then(|of| of.get("metadata")) {
            field["metadata"] = about.clone();
        }
    }
    metadata["schemaString"] = Value::from(described.to_string());
    metadata["partitionColumns"] = json!(partition_by);
    metadata["configuration"] = json!(properties);
    Ok(metadata)
}

/// The features that readers have to know, too.
const READER_FEATURES: &[&str] = &["timestampNtz"];

fn supports(protocol: &Value, feature: &str) -> bool {
    let version = protocol.get("minWriterVersion").and_then(Value::as_i64).unwrap_or(2);
    if version < 7 {
        return IMPLIED_WRITER_FEATURES.iter().any(|(from, of)| version >= *from && of.contains(&feature));
    }
    let features = protocol.get("writerFeatures").and_then(Value::as_array);
    features.is_some_and(|features| features.iter().any(|of| of.as_str() == Some(feature)))
}

/// `protocol`, with a feature more. A version of before features becomes the list of those that it implied.
fn with_feature(protocol: &Value, feature: &str) -> Value {
    let list = |key: &str| protocol.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |key: &str, least: i64| protocol.get(key).and_then(Value::as_i64).unwrap_or(least);
    let (mut readers, mut writers) = (list("readerFeatures"), list("writerFeatures"));
    let (mut reader, writer) = (number("minReaderVersion", 1), number("minWriterVersion", 2));
    if writer < 7 {
        let implied = IMPLIED_WRITER_FEATURES.iter().filter(|(from, _)| writer >= *from);
        writers.extend(implied.flat_map(|(_, features)| features.iter().map(|feature| json!(feature))));
    }
    if READER_FEATURES.contains(&feature) {
        if reader == 2 {
            readers.push(json!("columnMapping"));
        }
        reader = 3;
        readers.push(json!(feature));
    }
    writers.push(json!(feature));
    let mut made = json!({ "minReaderVersion": reader, "minWriterVersion": 7, "writerFeatures": writers });
    if reader == 3 {
        made["readerFeatures"] = json!(readers);
    }
    made
}

/// The features that a writer version of before features implies.
const IMPLIED_WRITER_FEATURES: &[(i64, &[&str])] = &[
    (2, &["appendOnly", "invariants"]),
    (3, &["checkConstraints"]),
    (4, &["changeDataFeed", "generatedColumns"]),
    (5, &["columnMapping"]),
    (6, &["identityColumns"]),
];

/// The features of a table that we can write to. Constraints and the like are refused by what the metadata says.
const WRITABLE_FEATURES: &[&str] = &[
    "appendOnly",
    "invariants",
    "checkConstraints",
    "timestampNtz",
    "changeDataFeed",
    "generatedColumns",
    "columnMapping",
    "identityColumns",
    "deletionVectors",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

impl Snapshot {
    fn protocol(&self) -> Result<Value> {
        serde_json::to_value(self.state.protocol())
            .map_err(|error| Error::internal(format!("the table's protocol cannot be written: {error}")))
    }

    /// The table's properties, such as `delta.appendOnly`.
    pub fn properties(&self) -> BTreeMap<String, String> {
        self.state.metadata().configuration().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Whether a load may write here; `rewrites` if it takes rows away, too.
    ///
    /// Errors: `Invalid` if the table (which another tool made) asks for what we cannot keep.
    pub(crate) fn check_writable(&self, rewrites: bool) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::invalid(format!("{}: the table {what}, which flumen cannot keep up", self.table().address()))
                .hint("load into another table, and let the tool that made this one take it from there"))
        };
        let protocol = self.protocol()?;
        let features = protocol.get("writerFeatures").and_then(Value::as_array).cloned().unwrap_or_default();
        for feature in features.iter().filter_map(Value::as_str) {
            if !WRITABLE_FEATURES.contains(&feature) {
                return refuse(format!("has the feature '{feature}'"));
            }
        }
        if self.property("delta.columnMapping.mode").is_some_and(|mode| mode != "none") {
            return refuse("maps its columns to other names".to_owned());
        }
        let metadata = serde_json::to_value(self.state.metadata()).unwrap_or_default();
        let schema = metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
        for (mark, what) in [
            ("delta.invariants", "has column invariants"),
            ("delta.generationExpression", "has generated columns"),
            ("delta.identity.", "has identity columns"),
        ] {
            if schema.contains(mark) {
                return refuse(what.to_owned());
            }
        }
        // A change feed follows from the files that come and go, where a commit has none of its own:
        // https://github.com/delta-io/delta/blob/master/PROTOCOL.md#reader-requirements-for-cdc-files
        if rewrites { self.check_rewritable() } else { Ok(()) }
    }

    /// Whether rows may be taken away.
    ///
    /// Errors: `Invalid` if the table is append-only.
    pub(crate) fn check_rewritable(&self) -> Result<()> {
        if !self.is_on("delta.appendOnly") {
            return Ok(());
        }
        Err(Error::invalid(format!("{}: the table is append-only", self.table().address()))
            .hint("add rows only, or set the table's property delta.appendOnly to false"))
    }

    fn is_on(&self, property: &str) -> bool {
        self.property(property).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}
