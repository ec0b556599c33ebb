//! The columns of each kind, and how they changed: the schemas of the Parquet files as TLC publishes them today.
//!
//! Yellow: `passenger_count` and `RatecodeID` are doubles from 2018-07 to 2023-01 and integers before and after; from
//! 2023-02 the ids are 32 bits wide, `airport_fee` is spelled `Airport_fee` and text is Arrow's large one; from 2025 on
//! there is `cbd_congestion_fee`. Green follows the same steps. Fhv never changed.
//!
//! The order here is the order in which [`super::trips`] gives the cells of a row.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{Kind, Month};

/// From when on passenger counts and rate codes are doubles.
const DOUBLE_CODES: Month = Month::of(2018, 7);
/// From when on they are integers again, ids 32 bits wide and text large.
const NARROW_IDS: Month = Month::of(2023, 2);
/// From when on there is a fee for driving into Manhattan's centre.
pub(super) const CBD_FEE: Month = Month::of(2025, 1);

/// The columns of a month; none for the zones, which have no month.
pub(super) fn schema(kind: Kind, month: Month) -> SchemaRef {
    let fields = match kind {
        Kind::Yellow => yellow(month),
        Kind::Green => green(month),
        Kind::Fhv => fhv(),
        Kind::Zones => Vec::new(),
    };
    Arc::new(Schema::new(fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect::<Vec<_>>()))
}

/// The types that changed with the years.
struct Types {
    id: DataType,
    code: DataType,
    text: DataType,
}

fn types(month: Month) -> Types {
    if month >= NARROW_IDS {
        Types { id: DataType::Int32, code: DataType::Int64, text: DataType::LargeUtf8 }
    } else {
        let code = if month >= DOUBLE_CODES { DataType::Float64 } else { DataType::Int64 };
        Types { id: DataType::Int64, code, text: DataType::Utf8 }
    }
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn yellow(month: Month) -> Vec<(&'static str, DataType)> {
    let Types { id, code, text } = types(month);
    let double = DataType::Float64;
    let mut fields = vec![
        ("VendorID", id.clone()),
        ("tpep_pickup_datetime", time()),
        ("tpep_dropoff_datetime", time()),
        ("passenger_count", code.clone()),
        ("trip_distance", double.clone()),
        ("RatecodeID", code),
        ("store_and_fwd_flag", text),
        ("PULocationID", id.clone()),
        ("DOLocationID", id),
        ("payment_type", DataType::Int64),
        ("fare_amount", double.clone()),
        ("extra", double.clone()),
        ("mta_tax", double.clone()),
        ("tip_amount", double.clone()),
        ("tolls_amount", double.clone()),
        ("improvement_surcharge", double.clone()),
        ("total_amount", double.clone()),
        ("congestion_surcharge", double.clone()),
        (if month >= NARROW_IDS { "Airport_fee" } else { "airport_fee" }, double.clone()),
    ];
    if month >= CBD_FEE {
        fields.push(("cbd_congestion_fee", double));
    }
    fields
}

fn green(month: Month) -> Vec<(&'static str, DataType)> {
    let Types { id, code, text } = types(month);
    let double = DataType::Float64;
    let mut fields = vec![
        ("VendorID", id.clone()),
        ("lpep_pickup_datetime", time()),
        ("lpep_dropoff_datetime", time()),
        ("store_and_fwd_flag", text),
        ("RatecodeID", code.clone()),
        ("PULocationID", id.clone()),
        ("DOLocationID", id),
        ("passenger_count", code.clone()),
        ("trip_distance", double.clone()),
        ("fare_amount", double.clone()),
        ("extra", double.clone()),
        ("mta_tax", double.clone()),
        ("tip_amount", double.clone()),
        ("tolls_amount", double.clone()),
        ("ehail_fee", double.clone()),
        ("improvement_surcharge", double.clone()),
        ("total_amount", double.clone()),
        ("payment_type", code.clone()),
        ("trip_type", code),
        ("congestion_surcharge", double.clone()),
    ];
    if month >= CBD_FEE {
        fields.push(("cbd_congestion_fee", double));
    }
    fields
}

fn fhv() -> Vec<(&'static str, DataType)> {
    vec![
        ("dispatching_base_num", DataType::Utf8),
        ("pickup_datetime", time()),
        ("dropOff_datetime", time()),
        ("PUlocationID", DataType::Float64),
        ("DOlocationID", DataType::Float64),
        ("SR_Flag", DataType::Int32),
        ("Affiliated_base_number", DataType::Utf8),
    ]
}
