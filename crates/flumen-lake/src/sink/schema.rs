//! Whether the columns of a load fit its table, and what of the table has to change for them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::{Error, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use super::convert::Conversion;
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
    if needs_ntz(columns) && !current.supports("timestampNtz")? {
        actions.push(json!({ "protocol": current.protocol_with("timestampNtz")? }));
    }
    Ok(actions)
}

fn needs_ntz(columns: &Schema) -> bool {
    columns.fields().iter().any(|field| types::has_timestamp_ntz(field.data_type()))
}

fn create(columns: &Schema, partition_by: &[String], new_id: Uuid, now_ms: i64) -> Result<Vec<Value>> {
    let protocol = if needs_ntz(columns) {
        json!({
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"],
        })
    } else {
        json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
    };
    let metadata = json!({
        "id": new_id.to_string(),
        "format": { "provider": "parquet", "options": {} },
        "schemaString": types::delta_schema(columns)?.to_string(),
        "partitionColumns": partition_by,
        "configuration": {},
        "createdTime": now_ms,
    });
    Ok(vec![json!({ "protocol": protocol }), json!({ "metaData": metadata })])
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

    fn supports(&self, feature: &str) -> Result<bool> {
        Ok(self
            .protocol()?
            .get("writerFeatures")
            .and_then(Value::as_array)
            .is_some_and(|features| features.iter().any(|of| of.as_str() == Some(feature))))
    }

    fn protocol_with(&self, feature: &str) -> Result<Value> {
        let protocol = self.protocol()?;
        let list = |key: &str| protocol.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut readers, mut writers) = (list("readerFeatures"), list("writerFeatures"));
        let version = protocol.get("minWriterVersion").and_then(Value::as_i64).unwrap_or(2);
        if version < 7 {
            let implied = IMPLIED_WRITER_FEATURES.iter().filter(|(from, _)| version >= *from);
            writers.extend(implied.flat_map(|(_, features)| features.iter().map(|feature| json!(feature))));
            if protocol.get("minReaderVersion").and_then(Value::as_i64) == Some(2) {
                readers.push(json!("columnMapping"));
            }
        }
        readers.push(json!(feature));
        writers.push(json!(feature));
        Ok(json!({
            "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": readers, "writerFeatures": writers,
        }))
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
        let on = |name: &str| self.property(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if let Some(name) =
            self.state.metadata().configuration().keys().find(|key| key.starts_with("delta.constraints."))
        {
            return refuse(format!("has the constraint '{}'", name.trim_start_matches("delta.constraints.")));
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
        if rewrites && on("delta.appendOnly") {
            return Err(Error::invalid(format!("{}: the table is append-only", self.table().address()))
                .hint("load with --mode append, or set the table's property delta.appendOnly to false"));
        }
        if rewrites && on("delta.enableChangeDataFeed") {
            return refuse("records a change data feed".to_owned());
        }
        Ok(())
    }
}
