//! Which expressions mean the same in Postgres and here, and how they are written there.
//!
//! What is not in this file is not sent: text is compared for equality alone, since its order depends on the database's
//! collation; numbers are not cut off or rounded; nothing is sent that one side refuses and the other computes. A value is
//! never converted in silence.

use arrow::datatypes::{DataType, DecimalType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::{Between, BinaryExpr, Case, Expr, Like, Operator};
use flumen_core::database::Compares;

use super::select::Output;

/// Days from the first of January of the year 1, which is day 1, to 1970.
const DAYS_BEFORE_1970: i32 = 719_163;

/// The kinds of values that are told apart. Two values of one kind can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// With the number of bits.
    Int(u8),
    Float(u8),
    /// With precision and scale, where both are known.
    Decimal(Option<(u8, i8)>),
    Text,
    Date,
    Timestamp,
    Timestamptz,
    Other,
}

impl Kind {
    pub fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Kind::Bool,
            DataType::Int8 => Kind::Int(8),
            DataType::Int16 => Kind::Int(16),
            DataType::Int32 => Kind::Int(32),
            DataType::Int64 => Kind::Int(64),
            DataType::Float32 => Kind::Float(32),
            DataType::Float64 => Kind::Float(64),
            DataType::Decimal128(precision, scale) => Kind::Decimal(Some((*precision, *scale))),
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Kind::Text,
            DataType::Date32 => Kind::Date,
            DataType::Timestamp(_, None) => Kind::Timestamp,
            DataType::Timestamp(_, Some(_)) => Kind::Timestamptz,
            _ => Kind::Other,
        }
    }

    fn is_like(self, other: Self) -> bool {
        self != Kind::Other && std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    fn is_number(self) -> bool {
        matches!(self, Kind::Int(_) | Kind::Float(_) | Kind::Decimal(_))
    }

    /// Which comparisons of computed values of this kind mean the same.
    fn compares(self) -> Compares {
        match self {
            Kind::Other => Compares::Never,
            Kind::Text => Compares::Equal,
            _ => Compares::Ordered,
        }
    }
}

/// An expression as the database has it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub sql: String,
    pub kind: Kind,
    pub compares: Compares,
    /// Whether it can stand beside an operator without parentheses.
    atomic: bool,
}

impl Written {
    fn atom(sql: impl Into<String>, kind: Kind) -> Self {
        Self { sql: sql.into(), kind, compares: kind.compares(), atomic: true }
    }

    fn compound(sql: String, kind: Kind) -> Self {
        Self { atomic: false, ..Self::atom(sql, kind) }
    }

    /// Itself as part of something larger.
    pub fn part(&self) -> String {
        if self.atomic { self.sql.clone() } else { format!("({})", self.sql) }
    }

    fn least(mut self, others: &[&Written]) -> Self {
        self.compares = others.iter().map(|other| other.compares).chain([self.compares]).min().unwrap_or(self.compares);
        self
    }
}

/// Where the columns of expressions come from.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub columns: &'a [Output],
    pub place: &'a dyn Fn(&Column) -> Option<usize>,
}

impl Scope<'_> {
    /// `expr` for the database; none if it means something else there.
    pub fn write(&self, expr: &Expr) -> Option<Written> {
        Some(match expr {
            Expr::Alias(alias) => self.write(&alias.expr)?,
            Expr::Column(column) => {
                let output = self.columns.get((self.place)(column)?)?;
                let kind = Kind::of(&output.data_type);
                Written { sql: output.sql.clone(), kind, compares: output.compares, atomic: true }
            }
            Expr::Literal(value, _) => literal(value)?,
            Expr::BinaryExpr(binary) => self.binary(binary)?,
            Expr::Not(inner) => Written::compound(format!("not {}", self.condition(inner)?.part()), Kind::Bool),
            Expr::IsNull(inner) => Written::compound(format!("{} is null", self.write(inner)?.part()), Kind::Bool),
            Expr::IsNotNull(inner) => {
                Written::compound(format!("{} is not null", self.write(inner)?.part()), Kind::Bool)
            }
            Expr::IsTrue(inner) => self.test(inner, "is true")?,
            Expr::IsFalse(inner) => self.test(inner, "is false")?,
            Expr::IsUnknown(inner) => self.test(inner, "is unknown")?,
            Expr::IsNotTrue(inner) => self.test(inner, "is not true")?,
            Expr::IsNotFalse(inner) => self.test(inner, "is not false")?,
            Expr::IsNotUnknown(inner) => self.test(inner, "is not unknown")?,
            Expr::Negative(inner) => {
                let inner = self.write(inner).filter(|inner| inner.kind.is_number())?;
                Written::compound(format!("- {}", inner.part()), inner.kind)
            }
            Expr::Between(between) => self.between(between)?,
            Expr::InList(list) => self.in_list(list)?,
            Expr::Like(like) => self.like(like)?,
            Expr::Case(case) => self.case(case)?,
            Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
                cast(self.write(expr)?, field.data_type())?
            }
            Expr::ScalarFunction(function) => self.function(function)?,
            _ => return None,
        })
    }

    /// An expression that is true or false.
    pub fn condition(&self, expr: &Expr) -> Option<Written> {
        self.write(expr).filter(|written| written.kind == Kind::Bool)
    }

    fn test(&self, expr: &Expr, test: &str) -> Option<Written> {
        Some(Written::compound(format!("{} {test}", self.condition(expr)?.part()), Kind::Bool))
    }

    fn binary(&self, BinaryExpr { left, op, right }: &BinaryExpr) -> Option<Written> {
        let (left, right) = (self.write(left)?, self.write(right)?);
        let written = |op: &str, kind| Some(Written::compound(format!("{} {op} {}", left.part(), right.part()), kind));
        let compared = |op: &str, least| if comparable(&left, &right, least) { written(op, Kind::Bool) } else { None };
        let computed = |op: &str, kind: Kind| {
            let kind = if let Kind::Decimal(_) = kind { Kind::Decimal(None) } else { kind };
            if left.kind.is_like(right.kind) { written(op, kind) } else { None }
        };
        match op {
            Operator::And | Operator::Or if left.kind == Kind::Bool && right.kind == Kind::Bool => {
                written(if *op == Operator::And { "and" } else { "or" }, Kind::Bool)
            }
            Operator::Eq => compared("=", Compares::Equal),
            Operator::NotEq => compared("<>", Compares::Equal),
            Operator::IsDistinctFrom => compared("is distinct from", Compares::Equal),
            Operator::IsNotDistinctFrom => compared("is not distinct from", Compares::Equal),
            Operator::Lt => compared("<", Compares::Ordered),
            Operator::LtEq => compared("<=", Compares::Ordered),
            Operator::Gt => compared(">", Compares::Ordered),
            Operator::GtEq => compared(">=", Compares::Ordered),
            Operator::Plus if left.kind.is_number() => computed("+", left.kind),
            Operator::Minus if left.kind.is_number() => computed("-", left.kind),
            Operator::Multiply if left.kind.is_number() => computed("*", left.kind),
            // Both cut off towards zero, and refuse to divide by it. Other numbers have other digits there.
            Operator::Divide if matches!(left.kind, Kind::Int(_)) => computed("/", left.kind),
            Operator::Modulo if matches!(left.kind, Kind::Int(_)) => computed("%", left.kind),
            _ => None,
        }
    }

    fn between(&self, between: &Between) -> Option<Written> {
        let value = self.write(&between.expr)?;
        let (low, high) = (self.write(&between.low)?, self.write(&between.high)?);
        if !comparable(&value, &low, Compares::Ordered) || !comparable(&value, &high, Compares::Ordered) {
            return None;
        }
        let not = if between.negated { "not " } else { "" };
        let sql = format!("{} {not}between {} and {}", value.part(), low.part(), high.part());
        Some(Written::compound(sql, Kind::Bool))
    }

    fn in_list(&self, list: &InList) -> Option<Written> {
        let value = self.write(&list.expr)?;
        let items = list.list.iter().map(|item| {
            let item = self.write(item)?;
            comparable(&value, &item, Compares::Equal).then_some(item.sql)
        });
        let items = items.collect::<Option<Vec<_>>>().filter(|items| !items.is_empty())?;
        let not = if list.negated { "not " } else { "" };
        Some(Written::compound(format!("{} {not}in ({})", value.part(), items.join(", ")), Kind::Bool))
    }

    fn like(&self, like: &Like) -> Option<Written> {
        let value = self.write(&like.expr)?;
        let pattern = text_of(&like.pattern)?;
        // A backslash at the end is an error there; upper and lower case depend on the collation.
        let plain = like.escape_char.is_none() && !like.case_insensitive && !pattern.contains('\\');
        if !plain || value.kind != Kind::Text || value.compares < Compares::Equal {
            return None;
        }
        let not = if like.negated { "not " } else { "" };
        Some(Written::compound(format!("{} {not}like {}", value.part(), quoted(pattern)?), Kind::Bool))
    }

    fn case(&self, case: &Case) -> Option<Written> {
        let base = match &case.expr {
            Some(base) => Some(self.write(base)?),
            None => None,
        };
        let mut sql = base.as_ref().map_or_else(|| "case".to_owned(), |base| format!("case {}", base.part()));
        let mut results = Vec::new();
        for (when, then) in &case.when_then_expr {
            let when = match &base {
                Some(base) => self.write(when).filter(|when| comparable(base, when, Compares::Equal))?,
                None => self.condition(when)?,
            };
            let then = self.write(then)?;
            sql.push_str(&format!(" when {} then {}", when.sql, then.sql));
            results.push(then);
        }
        if let Some(otherwise) = &case.else_expr {
            let otherwise = self.write(otherwise)?;
            sql.push_str(&format!(" else {}", otherwise.sql));
            results.push(otherwise);
        }
        sql.push_str(" end");
        alike(sql, &results)
    }

    fn function(&self, function: &ScalarFunction) -> Option<Written> {
        let args = &function.args;
        match (function.name(), args.as_slice()) {
            ("character_length", [text]) => {
                let text = self.write(text).filter(|text| text.kind == Kind::Text)?;
                Some(Written::atom(format!("length({})", text.sql), Kind::Int(32)))
            }
            ("abs", [number]) => {
                let number = self.write(number).filter(|number| number.kind.is_number())?;
                Some(Written::atom(format!("abs({})", number.sql), number.kind))
            }
            ("coalesce", args) => {
                let args = args.iter().map(|arg| self.write(arg)).collect::<Option<Vec<_>>>()?;
                let list: Vec<&str> = args.iter().map(|arg| arg.sql.as_str()).collect();
                alike(format!("coalesce({})", list.join(", ")), &args)
            }
            ("date_trunc", [unit, value]) => {
                let unit = text_of(unit)?.to_lowercase();
                let known = ["year", "quarter", "month", "week", "day", "hour", "minute", "second"];
                let value = self.write(value).filter(|_| known.contains(&unit.as_str()))?;
                let is_time = matches!(value.kind, Kind::Timestamp | Kind::Timestamptz);
                is_time.then(|| Written::atom(format!("date_trunc('{unit}', {})", value.sql), value.kind))
            }
            ("date_part", [unit, value]) => {
                let unit = text_of(unit)?.to_lowercase();
                let known = ["year", "quarter", "month", "day", "hour", "minute"];
                let value = self.write(value).filter(|_| known.contains(&unit.as_str()))?;
                let is_time = match value.kind {
                    Kind::Timestamp | Kind::Timestamptz => true,
                    Kind::Date => !matches!(unit.as_str(), "hour" | "minute"),
                    _ => false,
                };
                let sql = format!("extract({unit} from {})::integer", value.sql);
                is_time.then(|| Written::atom(sql, Kind::Int(32)))
            }
            _ => None,
        }
    }
}

/// Whether the two can be compared so far.
pub(super) fn comparable(left: &Written, right: &Written, least: Compares) -> bool {
    left.kind.is_like(right.kind) && left.compares >= least && right.compares >= least
}

/// An expression that gives one of `results`, if they are all of one kind.
fn alike(sql: String, results: &[Written]) -> Option<Written> {
    let first = results.first()?;
    let same = results.iter().all(|result| result.kind.is_like(first.kind));
    let kind = if let Kind::Decimal(_) = first.kind { Kind::Decimal(None) } else { first.kind };
    same.then(|| Written::atom(sql, kind).least(&results.iter().collect::<Vec<_>>()))
}

/// A cast that loses nothing, and cannot fail.
fn cast(value: Written, to: &DataType) -> Option<Written> {
    let target = Kind::of(to);
    let casted = |value: &Written, sql_type: &str| {
        Some(Written { compares: value.compares, ..Written::atom(format!("{}::{sql_type}", value.part()), target) })
    };
    match (value.kind, target) {
        (Kind::Int(from), Kind::Int(bits)) if from <= bits => casted(&value, &sql_type(to)?),
        // The nearest one, there as here.
        (Kind::Int(_) | Kind::Float(32), Kind::Float(64)) => casted(&value, "double precision"),
        (Kind::Int(bits), Kind::Decimal(Some((precision, scale)))) => {
            let digits = match bits {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 19,
            };
            (i16::from(precision) - i16::from(scale) >= digits).then_some(())?;
            casted(&value, &sql_type(to)?)
        }
        (Kind::Decimal(Some((precision, scale))), Kind::Decimal(Some((wider, finer)))) => {
            let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            (finer >= scale && whole(wider, finer) >= whole(precision, scale)).then_some(())?;
            casted(&value, &sql_type(to)?)
        }
        (Kind::Date, Kind::Timestamp) => casted(&value, "timestamp"),
        // Another layout of the same values.
        (Kind::Text, Kind::Text) | (Kind::Bool, Kind::Bool) | (Kind::Date, Kind::Date) => Some(value),
        (Kind::Float(64), Kind::Float(64)) | (Kind::Float(32), Kind::Float(32)) => Some(value),
        (Kind::Timestamp, Kind::Timestamp) | (Kind::Timestamptz, Kind::Timestamptz) => match to {
            DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

/// The name of the type that has the values of `data_type`, for those that can be computed there.
pub(super) fn sql_type(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(precision, scale) if *scale >= 0 => format!("numeric({precision},{scale})"),
        DataType::Utf8 => "text".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".to_owned(),
        _ => return None,
    })
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// `text` in quotes; none for what Postgres cannot keep.
fn quoted(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    Some(if text.contains('\\') { format!("E'{escaped}'") } else { format!("'{escaped}'") })
}

fn literal(value: &ScalarValue) -> Option<Written> {
    use ScalarValue as S;
    let data_type = value.data_type();
    let kind = Kind::of(&data_type);
    if value.is_null() {
        return Some(Written::atom(format!("null::{}", sql_type(&data_type)?), kind));
    }
    let whole = |value: i64| {
        let small = i32::try_from(value).is_ok();
        let sql = if small && value >= 0 { value.to_string() } else { format!("'{value}'::bigint") };
        if small && value < 0 { format!("({value})") } else { sql }
    };
    let sql = match value {
        S::Boolean(Some(value)) => value.to_string(),
        S::Int8(Some(value)) => whole(i64::from(*value)),
        S::Int16(Some(value)) => whole(i64::from(*value)),
        S::Int32(Some(value)) => whole(i64::from(*value)),
        S::Int64(Some(value)) => whole(*value),
        S::Float32(Some(value)) if value.is_finite() => format!("'{value:?}'::real"),
        S::Float64(Some(value)) if value.is_finite() => format!("'{value:?}'::double precision"),
        S::Decimal128(Some(value), precision, scale) if *scale >= 0 => {
            let text = arrow::datatypes::Decimal128Type::format_decimal(*value, *precision, *scale);
            if *value < 0 { format!("({text})") } else { text }
        }
        S::Utf8(Some(text)) | S::Utf8View(Some(text)) | S::LargeUtf8(Some(text)) => quoted(text)?,
        S::Date32(Some(days)) => {
            let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(DAYS_BEFORE_1970)?)?;
            (1..=9999).contains(&date.year()).then_some(())?;
            format!("date '{date}'")
        }
        S::TimestampSecond(Some(at), zone) => moment(at.checked_mul(1_000_000)?, zone.is_some())?,
        S::TimestampMillisecond(Some(at), zone) => moment(at.checked_mul(1_000)?, zone.is_some())?,
        S::TimestampMicrosecond(Some(at), zone) => moment(*at, zone.is_some())?,
        S::TimestampNanosecond(Some(at), zone) if at % 1_000 == 0 => moment(at / 1_000, zone.is_some())?,
        _ => return None,
    };
    Some(Written::atom(sql, kind))
}

/// A point in time, given in microseconds.
fn moment(micros: i64, zoned: bool) -> Option<String> {
    let at = DateTime::from_timestamp_micros(micros)?.naive_utc();
    (1..=9999).contains(&at.year()).then_some(())?;
    let at = at.format("%Y-%m-%d %H:%M:%S%.f");
    Some(if zoned { format!("timestamptz '{at}+00'") } else { format!("timestamp '{at}'") })
}
