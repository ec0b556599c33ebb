//! JSON as values of templates and back.

use minijinja::value::{Value, ValueKind};
use serde_json::{Map, Number, Value as Json};

/// A JSON value, of which each text goes through `text`.
pub(super) fn to_value(json: &Json, text: &dyn Fn(&str) -> Value) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(it) => Value::from(*it),
        Json::Number(it) => match (it.as_i64(), it.as_u64(), it.as_f64()) {
            (Some(it), ..) => Value::from(it),
            (None, Some(it), _) => Value::from(it),
            (None, None, it) => Value::from(it.unwrap_or(f64::NAN)),
        },
        Json::String(it) => text(it),
        Json::Array(items) => items.iter().map(|item| to_value(item, text)).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, item)| (key.clone(), to_value(item, text)))),
    }
}

/// A value as JSON; dates and the like are texts.
///
/// Errors: in words, where JSON has nothing like it.
pub(super) fn from_value(value: &Value) -> Result<Json, String> {
    let items = |value: &Value| {
        let items = value.try_iter().map_err(|error| error.to_string())?;
        items.map(|item| from_value(&item)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match value.kind() {
        ValueKind::Undefined => return Err("it is undefined".to_owned()),
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value)?,
        ValueKind::Seq | ValueKind::Iterable => Json::Array(items(value)?),
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                map.insert(key.to_string(), from_value(&item)?);
            }
            Json::Object(map)
        }
        ValueKind::Invalid => return Err(value.to_string()),
        _ => Json::String(value.to_string()),
    })
}

fn number(value: &Value) -> Result<Json, String> {
    if let Some(it) = value.as_i64().filter(|_| value.is_integer()) {
        return Ok(Json::from(it));
    }
    if let (true, Ok(it)) = (value.is_integer(), u64::try_from(value.clone())) {
        return Ok(Json::from(it));
    }
    let float = f64::try_from(value.clone()).ok().and_then(Number::from_f64);
    float.map(Json::Number).ok_or_else(|| format!("{value} is no number of JSON"))
}
