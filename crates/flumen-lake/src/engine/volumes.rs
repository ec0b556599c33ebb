//! The table function `files('files.images')`: what is in the volumes of the lake, a row a file.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::{Error, Result};

use crate::catalog::{State, VolumeFile};
use crate::ops::volume::no_volume;

/// The files of the volume `name`, or those of all volumes, by volume and path.
///
/// Errors: `NotFound` with the nearest name if there is no such volume.
pub(super) fn files(state: &State, name: Option<&TableName>) -> Result<Arc<dyn TableProvider>> {
    if let Some(name) = name.filter(|name| !state.volumes.contains_key(name)) {
        return Err(no_volume(state, name));
    }
    let volumes = state.volumes.iter().filter(|(of, _)| name.is_none_or(|name| *of == name));
    let rows: Vec<(String, &String, &VolumeFile)> = volumes
        .flat_map(|(of, volume)| volume.files.iter().map(move |(path, file)| (format!("{LAKE}.{of}"), path, file)))
        .collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for (_, _, file) in &rows {
        tags.append_value(file.about.tags.iter().map(Some));
    }
    let tags = tags.finish();
    let times: TimestampMicrosecondArray =
        rows.iter().map(|(_, _, file)| Some(file.created.timestamp_micros())).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("volume", Arc::new(rows.iter().map(|(volume, _, _)| Some(volume)).collect::<StringArray>())),
        ("path", Arc::new(rows.iter().map(|(_, path, _)| Some(path)).collect::<StringArray>())),
        ("size", Arc::new(rows.iter().map(|(_, _, file)| i64::try_from(file.size).ok()).collect::<Int64Array>())),
        ("media_type", Arc::new(rows.iter().map(|(_, _, file)| Some(&file.media_type)).collect::<StringArray>())),
        ("checksum", Arc::new(rows.iter().map(|(_, _, file)| Some(&file.checksum)).collect::<StringArray>())),
        (
            "description",
            Arc::new(rows.iter().map(|(_, _, file)| file.about.description.as_ref()).collect::<StringArray>()),
        ),
        ("tags", Arc::new(tags)),
        ("created", Arc::new(times.with_timezone("UTC"))),
    ];
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect())?;
    let made = MemTable::try_new(schema, vec![vec![batch]]);
    Ok(Arc::new(made.map_err(|error| Error::internal("the files of volumes have two shapes").caused_by(error))?))
}
