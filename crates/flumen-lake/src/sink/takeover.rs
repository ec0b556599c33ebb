//! Takes a Parquet file over as it is: copied (where the file system can, without copying its blocks), never encoded again.
//!
//! Such a file has no `_flumen_*` columns: in its rows they are null. Which load they are of is known by the file's place
//! (`load-<id>/`), which is what undo goes by.

use std::io::{Read, Write};
use std::path::Path as FsPath;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use flumen_core::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::files::{LoadFiles, NewFile};
use super::output::{Output, local_path};
use super::stats::delta_stats;
use crate::types::same_type;
use flumen_project::durable::create_folders;

/// Whether a file with the columns `file` can be part of a table whose load has the columns `load` (as the table keeps
/// them): the same columns, lineage aside, under the same names, in types that need no conversion.
pub(crate) fn fits(file: &Schema, load: &SchemaRef) -> bool {
    let own = load.fields().iter().filter(|field| !field.name().starts_with("_flumen_"));
    let (mut wanted, mut found) = (0, 0);
    for field in own {
        wanted += 1;
        let there = file.fields().iter().find(|there| there.name() == field.name());
        found += usize::from(there.is_some_and(|there| same_type(&plain(there.data_type()), field.data_type())));
    }
    wanted == found && wanted == file.fields().len()
}

/// Types that are one to Parquet.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Takes the file at `path` over into `files`. Gives its rows. Blocking.
///
/// Errors: `Data` if it is no sound Parquet file.
pub(crate) fn take_over(files: &LoadFiles, path: &FsPath) -> Result<u64> {
    let failed = |error| Error::io(path.display(), error);
    let broken = |error: parquet::errors::ParquetError| {
        Error::data(format!("{}: the Parquet file is broken: {error}", path.display())).caused_by(error)
    };
    let mut source = std::fs::File::open(path).map_err(failed)?;
    let footer = SerializedFileReader::new(source.try_clone().map_err(failed)?).map_err(broken)?;
    let metadata = footer.metadata();
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    if rows == 0 {
        return Ok(0);
    }
    let partition = Arc::from([]);
    let place = files.new_path(&partition);
    let (size, syncing) = match local_path(files.table(), &place) {
        Some(target) => {
            let there = |error| Error::io(target.display(), error);
            if let Some(folder) = target.parent() {
                create_folders(folder).map_err(there)?;
            }
            let size = std::fs::copy(path, &target).map_err(there)?;
            let copy = std::fs::File::open(&target).map_err(there)?;
            (size, Some(files.runtime().spawn_blocking(move || copy.sync_data())))
        }
        None => {
            use std::io::Seek;
            source.rewind().map_err(failed)?;
            let size = upload(files, &place, &mut source).map_err(|error| match error.downcast::<Error>() {
                Ok(ours) => ours,
                Err(io) => failed(io),
            })?;
            (size, None)
        }
    };
    let stats = delta_stats(files.columns(), metadata.row_groups());
    files.add(NewFile { path: place.to_string(), size, rows, partition, stats }, syncing);
    Ok(rows)
}

fn upload(files: &LoadFiles, place: &object_store::path::Path, source: &mut impl Read) -> std::io::Result<u64> {
    let mut output = Output::create(files.table(), place, files.runtime()).map_err(std::io::Error::other)?;
    let bytes = std::io::copy(source, &mut output)?;
    output.flush()?;
    output.finish(files.runtime())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, TimeUnit};

    #[test]
    fn only_what_needs_no_conversion_fits() {
        let schema = |fields: &[(&str, DataType)]| {
            Arc::new(Schema::new(
                fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>(),
            ))
        };
        let load = schema(&[("a", DataType::Int64), ("s", DataType::Utf8), ("_flumen_load", DataType::Utf8)]);
        assert!(fits(&schema(&[("s", DataType::LargeUtf8), ("a", DataType::Int64)]), &load));
        assert!(!fits(&schema(&[("a", DataType::Int64)]), &load), "a column is missing");
        assert!(!fits(&schema(&[("A", DataType::Int64), ("s", DataType::Utf8)]), &load), "another name");
        assert!(!fits(&schema(&[("a", DataType::Int32), ("s", DataType::Utf8)]), &load), "another type");
        let micros = schema(&[("t", DataType::Timestamp(TimeUnit::Microsecond, None))]);
        assert!(!fits(&schema(&[("t", DataType::Timestamp(TimeUnit::Nanosecond, None))]), &micros));
    }
}
