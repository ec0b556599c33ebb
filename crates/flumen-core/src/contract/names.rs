//! Names of columns and of types.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::{Error, Result};

/// How new columns are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// As in the file, white space round the name cut off.
    #[default]
    Keep,
    /// `PULocationID` becomes `pu_location_id`.
    Snake,
    /// `PULocationID` becomes `pulocationid`.
    Lower,
}

impl FromStr for Case {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "keep" => Ok(Case::Keep),
            "snake" => Ok(Case::Snake),
            "lower" => Ok(Case::Lower),
            _ => Err(Error::invalid(format!("'{text}' is not a column case")).hint("use keep, snake or lower")),
        }
    }
}

impl Case {
    /// `name` in this case.
    pub fn apply(self, name: &str) -> String {
        let name = name.trim();
        match self {
            Case::Keep => name.to_owned(),
            Case::Lower => name.to_lowercase(),
            Case::Snake => snake(name),
        }
    }
}

fn snake(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, &c) in characters.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !snake.ends_with('_') && !snake.is_empty() {
                snake.push('_');
            }
            continue;
        }
        let before = i.checked_sub(1).map(|i| characters[i]);
        let after_lower = before.is_some_and(|b| b.is_lowercase() || b.is_numeric());
        let ends_acronym =
            before.is_some_and(char::is_uppercase) && characters.get(i + 1).is_some_and(|n| n.is_lowercase());
        if c.is_uppercase() && (after_lower || ends_acronym) && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake.trim_end_matches('_').to_owned()
}

/// The type that people call `text` in SQL or in Arrow.
pub fn parse_type(text: &str) -> Result<DataType> {
    let lower = text.trim().to_lowercase();
    let (name, arguments) = match lower.split_once('(') {
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')').ok_or_else(|| unknown(text))?;
            let numbers: Result<Vec<i64>> =
                inner.split(',').map(|n| n.trim().parse().map_err(|_| unknown(text))).collect();
            (name.trim().to_owned(), numbers?)
        }
        None => (lower, Vec::new()),
    };
    let timestamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Ok(match name.as_str() {
        "boolean" | "bool" => DataType::Boolean,
        "int8" | "tinyint" => DataType::Int8,
        "int16" | "smallint" | "int2" => DataType::Int16,
        "int32" | "int" | "integer" | "int4" => DataType::Int32,
        "int64" | "bigint" | "long" => DataType::Int64,
        "float32" | "real" | "float4" => DataType::Float32,
        "float64" | "double" | "float" | "float8" | "double precision" => DataType::Float64,
        "decimal" | "numeric" => match arguments.as_slice() {
            [] => DataType::Decimal128(38, 10),
            [p @ 1..=38] => DataType::Decimal128(*p as u8, 0),
            [p @ 1..=38, s @ 0..=38] if s <= p => DataType::Decimal128(*p as u8, *s as i8),
            _ => {
                return Err(Error::invalid(format!("'{text}' is not a decimal type"))
                    .hint("write decimal(precision, scale), up to 38 digits"));
            }
        },
        "text" | "string" | "varchar" | "char" | "utf8" | "json" | "uuid" | "character varying" => DataType::Utf8,
        "date" | "date32" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" | "datetime" | "timestamp_ntz" | "timestamp without time zone" => timestamp(None),
        "timestamptz" | "timestamp_tz" | "timestamp with time zone" => timestamp(Some("UTC")),
        "binary" | "bytea" | "blob" => DataType::Binary,
        _ => match name.strip_suffix("[]") {
            Some(inner) => DataType::List(Arc::new(Field::new_list_field(parse_type(inner)?, true))),
            None => return Err(unknown(text)),
        },
    })
}

const TYPES: &[&str] = &[
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double",
    "decimal(p,s)",
    "text",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "binary",
];

fn unknown(text: &str) -> Error {
    let error = Error::invalid(format!("'{text}' is not a type")).hint(format!("the types are {}", TYPES.join(", ")));
    error.did_you_mean(text, TYPES.iter().copied())
}

/// What people call `data_type`: the inverse of [`parse_type`].
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".into()
        }
        DataType::List(field) | DataType::LargeList(field) => format!("{}[]", type_name(field.data_type())),
        DataType::Dictionary(_, value) => type_name(value),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case() {
        for (name, expect) in [
            ("PULocationID", "pu_location_id"),
            ("tpep_pickup_datetime", "tpep_pickup_datetime"),
            ("VendorID", "vendor_id"),
            ("Trip_Pickup_DateTime", "trip_pickup_date_time"),
            (" Fare Amt ($)", "fare_amt"),
            ("RatecodeID", "ratecode_id"),
            ("2ndColumn", "2nd_column"),
        ] {
            assert_eq!(Case::Snake.apply(name), expect);
        }
    }

    #[test]
    fn types_have_names_and_back() {
        for name in [
            "boolean",
            "smallint",
            "integer",
            "bigint",
            "real",
            "double",
            "decimal(10,2)",
            "text",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "binary",
            "bigint[]",
        ] {
            assert_eq!(type_name(&parse_type(name).unwrap()), name);
        }
        assert_eq!(parse_type("doubel").unwrap_err().remedy(), Some("did you mean 'double'?"));
        assert!(parse_type("decimal(99)").is_err());
    }
}
