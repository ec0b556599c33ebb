//! Files with options as a table of a query: `read_csv('data/*.csv', delimiter => ';')`, and its kin for the other formats.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, ObjectName, UnaryOperator, Value, ValueWithSpan,
};
use flumen_core::error::nearest;
use flumen_core::read::{FileReader, ReadOptions};
use flumen_core::{Error, Result};

use super::super::file_options;

/// The functions, and the formats that they read.
const FUNCTIONS: &[(&str, &str)] = &[
    ("read_csv", "csv"),
    ("read_csv_auto", "csv"),
    ("read_json", "json"),
    ("read_json_auto", "json"),
    ("read_ndjson", "ndjson"),
    ("read_parquet", "parquet"),
    ("parquet_scan", "parquet"),
    ("read_avro", "avro"),
    ("read_arrow", "arrow"),
    ("read_xlsx", "excel"),
    ("read_excel", "excel"),
];

/// Whether `function` reads files.
pub(in super::super) fn reads_files(function: &str) -> bool {
    FUNCTIONS.iter().any(|(name, _)| *name == function)
}

/// The addresses and options of a call; none if `function` does not read files.
///
/// Errors: `Invalid` for what is neither an address nor an option; `NotFound` for another function that should read something.
pub(in super::super) fn of_call(function: &str, args: &[&FunctionArg]) -> Result<Option<(Vec<String>, ReadOptions)>> {
    let Some((_, format)) = FUNCTIONS.iter().find(|(name, _)| *name == function) else {
        if !function.starts_with("read_") {
            return Ok(None);
        }
        let error = Error::not_found(format!("there is no function '{function}'"));
        return Err(match nearest(function, FUNCTIONS.iter().map(|(name, _)| *name)) {
            Some(near) => error.hint(format!("did you mean '{near}'?")),
            None => {
                error.hint("files are read by read_csv, read_json, read_parquet, read_avro, read_arrow and read_excel")
            }
        });
    };
    let usage = || {
        Error::invalid(format!("{function} wants a file, and options by name")).hint(format!(
            "write: from {function}('data/*.{format}'{})",
            if *format == "csv" { ", delimiter => ';'" } else { "" }
        ))
    };
    let (mut addresses, mut options) = (None, Vec::new());
    for arg in args {
        match named(arg) {
            Some((name, value)) => {
                let values = texts(value).ok_or_else(|| {
                    Error::invalid(format!("'{value}' is no value of the option '{name}'"))
                        .hint("give a text in single quotes, a number, true or false")
                })?;
                options.extend(values.into_iter().map(|value| (name.clone(), value)));
            }
            None => match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if addresses.is_none() => {
                    addresses = Some(texts(expr).ok_or_else(usage)?);
                }
                _ => return Err(usage()),
            },
        }
    }
    let addresses = addresses.filter(|addresses| !addresses.is_empty()).ok_or_else(usage)?;
    let options = file_options::reading(Some(format), options.iter().map(|(name, value)| (name, value)))?;
    Ok(Some((addresses, options)))
}

/// Puts whole addresses in place of those in a call of a function that reads files: whoever reads the view that it is in may be in
/// another folder.
///
/// Errors: those of `reader`.
pub(in super::super) fn register_call(
    name: &ObjectName,
    args: &mut [FunctionArg],
    reader: &dyn FileReader,
) -> Result<()> {
    if !reads_files(&name.to_string().to_lowercase()) {
        return Ok(());
    }
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) = args.iter_mut().find(|arg| named(arg).is_none())
    else {
        return Ok(());
    };
    let each = match expr {
        Expr::Array(array) => array.elem.iter_mut().collect(),
        one => vec![one],
    };
    for expr in each {
        if let Some(address) = texts(expr).and_then(|texts| texts.into_iter().next()) {
            *expr = Expr::value(Value::SingleQuotedString(reader.register(&address, "")?));
        }
    }
    Ok(())
}

/// Name and value of an option: `name => value`, `name := value`, `name = value`.
fn named(arg: &FunctionArg) -> Option<(String, &Expr)> {
    match arg {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => Some((name.value.to_lowercase(), value)),
        FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
            Some((name.value.to_lowercase(), value))
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp { left, op: BinaryOperator::Eq, right })) => {
            match left.as_ref() {
                Expr::Identifier(name) => Some((name.value.to_lowercase(), right)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The text of a value, or those of a list of values.
fn texts(expr: &Expr) -> Option<Vec<String>> {
    if let Expr::Array(array) = expr {
        let each = array.elem.iter().map(texts);
        return Some(each.collect::<Option<Vec<_>>>()?.concat());
    }
    let text = match expr {
        Expr::Value(ValueWithSpan { value: Value::Boolean(flag), .. }) => flag.to_string(),
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.clone(),
        Expr::Value(value) => value.value.clone().into_string()?,
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => format!("-{expr}"),
        _ => return None,
    };
    Some(vec![text])
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::Statement;
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement as Sql, TableFactor};

    use super::super::super::statements;
    use super::*;

    fn check(call: &str, expect: &str) {
        let Statement::Statement(statement) = statements::parse_any(&format!("select * from {call}")).unwrap() else {
            panic!("{call}")
        };
        let Sql::Query(query) = *statement else { panic!("{call}") };
        let SetExpr::Select(select) = *query.body else { panic!("{call}") };
        let TableFactor::Table { name, args: Some(args), .. } = &select.from[0].relation else { panic!("{call}") };
        let args: Vec<&FunctionArg> = args.args.iter().collect();
        let got = match of_call(&name.to_string(), &args) {
            Ok(None) => "none".to_owned(),
            Ok(Some((addresses, options))) => format!(
                "{} {} {:?} {:?} {}",
                addresses.join("+"),
                options.format.as_deref().unwrap_or_default(),
                options.delimiter.map(char::from),
                options.header,
                options.text.nulls.join("|"),
            ),
            Err(error) => error.message().to_owned(),
        };
        assert_eq!(got, expect, "{call}");
    }

    #[test]
    fn options_come_in_every_way_of_writing_them() {
        check("read_csv('a.csv')", "a.csv csv None None ");
        check("read_csv('a.csv', delim = ';', header = false)", "a.csv csv Some(';') Some(false) ");
        check("read_csv('a.csv', sep => '\\t', nullstr => ['NA', '-'])", "a.csv csv Some('\\t') None NA|-");
        check("read_csv(['a.csv', 'b.csv'], header := true)", "a.csv+b.csv csv None Some(true) ");
        check("parquet_scan('a/*', hive_partitioning = true)", "a/* parquet None None ");
        check("other('a.csv')", "none");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check("read_csv()", "read_csv wants a file, and options by name");
        check("read_csv('a.csv', 'b.csv')", "read_csv wants a file, and options by name");
        check("read_cvs('a.csv')", "there is no function 'read_cvs'");
        check("read_csv(a)", "read_csv wants a file, and options by name");
        check("read_csv('a.csv', delim => a + 1)", "'a + 1' is no value of the option 'delim'");
        check("read_csv('a.csv', colour => 'red')", "files have no option 'colour'");
        check("read_csv('a.csv', union_by_name = false)", "the option 'union_by_name' cannot be false");
    }
}
