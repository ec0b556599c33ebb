//! JSON, which is kept as text: `j -> 'a'` and `j ->> 'a'` and what other warehouses call the same, and values as JSON.
//!
//! Taking apart is done by `datafusion-functions-json`. What it gives for `->`, a union of types, no client understands: here
//! it is JSON again, as in Postgres.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow_json::writer::{EncoderOptions, make_encoder};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType as DataTypeName, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, Value,
};
use flumen_core::{Error, Result};

use super::{Text, Written, filled, travelling};

/// Makes the functions known to `registry`.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> DataFusionResult<()> {
    datafusion_functions_json::register_all(registry)?;
    for name in [TO_JSON, JSON_KEY] {
        let signature = Signature::any(1, Volatility::Immutable);
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(ToJson { name, signature })))?;
    }
    Ok(())
}

/// Any value as JSON. Null is null.
const TO_JSON: &str = "to_json";
/// A text as the key of a JSON object, which cannot be null.
const JSON_KEY: &str = "json_key";

pub(super) const WRITTEN: &[Written] = &[
    Written {
        names: &["json_get", "json_extract_path", "jsonb_extract_path"],
        arguments: 2..=usize::MAX,
        usage: "json_extract_path(json, 'key', …)",
        sql: Text::Of(|given| Ok(keys("json_get_json", given))),
    },
    Written {
        names: &["json_extract_path_text", "jsonb_extract_path_text"],
        arguments: 2..=usize::MAX,
        usage: "json_extract_path_text(json, 'key', …)",
        sql: Text::Of(|given| Ok(keys("json_as_text", given))),
    },
    Written {
        names: &["json_extract", "json_query"],
        arguments: 2..=2,
        usage: "json_extract(json, '$.key[0]')",
        sql: Text::Of(|given| path("json_get_json", given)),
    },
    Written {
        names: &["json_value", "json_extract_string", "json_extract_scalar", "get_json_object"],
        arguments: 2..=2,
        usage: "json_value(json, '$.key[0]')",
        sql: Text::Of(|given| path("json_as_text", given)),
    },
    Written {
        names: &["json_array_length", "jsonb_array_length"],
        arguments: 1..=1,
        usage: "json_array_length(json)",
        sql: Text::Same("CAST(cardinality(json_get_array($1)) AS BIGINT)"),
    },
    Written {
        names: &["json_array_elements", "jsonb_array_elements"],
        arguments: 1..=1,
        usage: "json_array_elements(json)",
        sql: Text::Same("unnest(json_get_array($1))"),
    },
    Written {
        names: &["to_jsonb", "row_to_json"],
        arguments: 1..=1,
        usage: "to_json(x)",
        sql: Text::Same("to_json($1)"),
    },
    Written {
        names: &["json_build_object", "jsonb_build_object"],
        arguments: 2..=usize::MAX,
        usage: "json_build_object('key', value, …)",
        sql: Text::Of(object),
    },
    Written {
        names: &["json_build_array", "jsonb_build_array"],
        arguments: 1..=usize::MAX,
        usage: "json_build_array(a, b, …)",
        sql: Text::Of(|given| {
            let values: Vec<String> = given.iter().enumerate().map(|(at, value)| as_json(at + 1, value)).collect();
            Ok(format!("concat('[', {}, ']')", values.join(", ',', ")))
        }),
    },
];

/// A call of `function` with all that is given.
fn keys(function: &str, given: &[Expr]) -> String {
    let places: Vec<String> = (1..=given.len()).map(|place| format!("${place}")).collect();
    format!("{function}({})", places.join(", "))
}

/// A call of `function` with the keys of a path such as `$.a.b[0]`.
///
/// Errors: `Invalid` for what is no path.
fn path(function: &str, given: &[Expr]) -> Result<String> {
    let text = given.get(1).and_then(text_of);
    let wrong = || {
        let shown = given.get(1).map(ToString::to_string).unwrap_or_default();
        Error::invalid(format!("{shown} is no path into JSON")).hint("write for example '$.user.names[0]'")
    };
    let found = text.as_deref().and_then(keys_of).ok_or_else(wrong)?;
    Ok(format!("{function}($1{})", found.iter().map(|key| format!(", {key}")).collect::<String>()))
}

/// A JSON object of keys and values in turn.
///
/// Errors: `Invalid` for a key without a value.
fn object(given: &[Expr]) -> Result<String> {
    if !given.len().is_multiple_of(2) {
        return Err(Error::invalid("json_build_object has a key without a value")
            .hint("write json_build_object('key', value, …)"));
    }
    let pair =
        |(at, value): (usize, &Expr)| format!("{JSON_KEY}(CAST(${} AS VARCHAR)), ':', {}", at, as_json(at + 1, value));
    let pairs = given.iter().enumerate().filter(|(at, _)| at % 2 == 1).map(pair);
    Ok(format!("concat('{{', {}, '}}')", pairs.collect::<Vec<_>>().join(", ',', ")))
}

/// The argument at `place`, which is `value`, as JSON.
fn as_json(place: usize, value: &Expr) -> String {
    if is_json(value) { format!("coalesce(${place}, 'null')") } else { format!("coalesce(to_json(${place}), 'null')") }
}

/// The functions that give JSON; others with such names give texts, numbers and truths.
const GIVING_JSON: [&str; 11] = [
    "to_json",
    "json_agg",
    "json_array_elements",
    "json_build_array",
    "json_build_object",
    "json_extract",
    "json_extract_path",
    "json_get",
    "json_get_json",
    "json_object_agg",
    "json_query",
];

/// Whether `expr` gives JSON by how it is written. A column of JSON is text, like others.
fn is_json(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_json(inner),
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::Arrow | BinaryOperator::HashArrow),
        Expr::Cast { data_type, .. } => matches!(data_type, DataTypeName::JSON | DataTypeName::JSONB),
        Expr::Function(call) => {
            let name = super::super::write::name_of(&call.name).unwrap_or_default();
            GIVING_JSON.contains(&name.replace("jsonb", "json").as_str())
        }
        _ => false,
    }
}

/// The text that `expr` is.
fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The keys of a path, as SQL has them: texts, and numbers for places in arrays.
///
/// Source: RFC 9535, as far as it names one value: `$.a`, `$['a']`, `$[0]`.
fn keys_of(path: &str) -> Option<Vec<String>> {
    let quoted = |key: &str| format!("'{}'", key.replace('\'', "''"));
    let Some(mut rest) = path.strip_prefix('$') else { return (!path.is_empty()).then(|| vec![quoted(path)]) };
    let mut found = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let key = after[..end].trim_matches('"');
            (!key.is_empty()).then(|| found.push(quoted(key)))?;
            rest = &after[end..];
        } else {
            let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
            let named = inside.strip_prefix(['\'', '"']).and_then(|key| key.strip_suffix(['\'', '"']));
            found.push(match named {
                Some(key) => quoted(key),
                None => inside.parse::<u32>().ok()?.to_string(),
            });
            rest = after;
        }
    }
    Some(found)
}

/// Gives `j -> 'a'`, `j ->> 'a'`, `j #> '{a,b}'` and `j #>> '{a,b}'` the form of calls.
pub(super) fn spell(expr: &mut Expr) -> Result<()> {
    let Expr::BinaryOp { left, op, right } = expr else { return Ok(()) };
    let function = match op {
        BinaryOperator::Arrow | BinaryOperator::HashArrow => "json_get_json",
        BinaryOperator::LongArrow | BinaryOperator::HashLongArrow => "json_as_text",
        _ => return Ok(()),
    };
    let of_path = matches!(op, BinaryOperator::HashArrow | BinaryOperator::HashLongArrow);
    let listed = text_of(right).and_then(|text| {
        let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?.to_owned();
        Some(inner.split(',').map(|key| super::literal(key.trim().trim_matches('"'))).collect::<Vec<_>>())
    });
    let mut given = vec![left.as_ref().clone()];
    match listed.filter(|_| of_path) {
        Some(listed) => given.extend(listed),
        None => given.push(right.as_ref().clone()),
    }
    *expr = filled(&keys(function, &given), &given)?;
    Ok(())
}

/// `json_agg(x)` and `json_object_agg(k, v)` are aggregates of lists, written as JSON.
///
/// Errors: `Invalid` for a call that they do not have.
pub(super) fn aggregate(name: &str, call: &Function) -> Result<Option<Expr>> {
    let listed = |element: Expr| {
        let mut call = call.clone();
        call.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("array_agg"))]);
        super::set_arguments(&mut call, vec![element]);
        Expr::Function(call)
    };
    let given = match &call.args {
        FunctionArguments::List(list) => list.args.iter().filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        }),
        _ => return Ok(None),
    };
    let given: Vec<Expr> = given.collect();
    let (element, begin, end) = match (name.replace("jsonb", "json").as_str(), given.as_slice()) {
        ("json_agg", [value]) => (as_json(1, value), '[', ']'),
        ("json_object_agg", [_, value]) => {
            let pair = format!("concat({JSON_KEY}(CAST($1 AS VARCHAR)), ':', {})", as_json(2, value));
            // Arguments are computed before rows are left out, whose keys may be null.
            (if call.filter.is_some() { format!("CASE WHEN $3 THEN {pair} END") } else { pair }, '{', '}')
        }
        ("json_agg", _) => return Err(wrongly_called(name, "json_agg(x)")),
        ("json_object_agg", _) => return Err(wrongly_called(name, "json_object_agg(key, value)")),
        _ => return Ok(None),
    };
    let given: Vec<Expr> = given.into_iter().chain(call.filter.as_deref().cloned()).collect();
    let listed = listed(filled(&element, &given)?);
    // Without rows there is no list, and the whole is null.
    filled(&format!("('{begin}' || array_to_string($1, ',') || '{end}')"), &[listed]).map(Some)
}

fn wrongly_called(name: &str, usage: &str) -> Error {
    Error::invalid(format!("{name} is called in a way that it does not have")).hint(format!("write {usage}"))
}

/// [`TO_JSON`] and [`JSON_KEY`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [values] = arrays.as_slice() else {
            return Err(travelling(Error::internal(format!("{} has one argument", self.name))));
        };
        if self.name == JSON_KEY && values.null_count() > 0 {
            return Err(travelling(
                Error::invalid("a key of a JSON object cannot be null")
                    .hint("leave such rows out, or coalesce the key"),
            ));
        }
        let made: ArrayRef = Arc::new(written(values)?);
        if one {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?));
        }
        Ok(ColumnarValue::Array(made))
    }
}

fn written(values: &ArrayRef) -> DataFusionResult<StringArray> {
    let field = Arc::new(Field::new("value", values.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, values, &options)?;
    let mut text = Vec::new();
    let mut made = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        if encoder.is_null(row) || values.is_null(row) {
            made.push(None);
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        made.push(Some(String::from_utf8_lossy(&text).into_owned()));
    }
    Ok(made.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_keys() {
        for (path, expect) in [
            ("$.a.b[0]", Some("'a' 'b' 0")),
            ("$['it''s'][\"x\"]", Some("'it''''s' 'x'")),
            ("$", Some("")),
            ("a.b", Some("'a.b'")),
            ("$.a..b", None),
            ("$[x]", None),
            ("$a", None),
            ("", None),
        ] {
            assert_eq!(keys_of(path).map(|keys| keys.join(" ")).as_deref(), expect, "{path}");
        }
    }
}
