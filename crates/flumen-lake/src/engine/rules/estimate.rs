//! How many rows a part of a plan is likely to have, from what the tables' statistics say.
//!
//! Estimates choose between plans that give the same answer, so being wrong costs time and never rows. Distinct counts
//! are upper bounds: a whole number has at most as many values as lie between its bounds, and no column more than rows.

use std::collections::HashMap;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Distinct, Expr, FetchType, Join, JoinType, LogicalPlan, Operator, TableProviderFilterPushDown, TableScan,
};

/// The part of rows that an equality keeps when nothing is known of the values.
const EQUAL: f64 = 0.1;
/// The part of rows that a comparison keeps when nothing is known of the values.
const COMPARED: f64 = 0.33;
/// The part of rows that a pattern keeps.
const PATTERN: f64 = 0.1;
/// The part of groups that pass a condition on them.
const UNKNOWN: f64 = 0.3;

/// What is expected of the rows of a plan.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    /// Rows.
    pub rows: f64,
    /// Rows without the conditions on them: no column has more values.
    pub base_rows: f64,
    columns: HashMap<Column, Values>,
}

/// What is expected of the values of a column.
#[derive(Debug, Clone, Default)]
struct Values {
    /// How many there are, at most; as if no condition was on the rows.
    distinct: Option<f64>,
    bounds: Option<(f64, f64)>,
}

impl Estimate {
    /// Of `plan`. None if it reads what has no statistics, or does what is not understood here.
    pub fn of(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::TableScan(scan) => of_scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                Some(Self::of(&alias.input)?.renamed(alias.input.schema(), &alias.schema))
            }
            LogicalPlan::Projection(projection) => {
                let input = Self::of(&projection.input)?;
                let named = projection.expr.iter().zip(columns(&projection.schema));
                let columns = named.map(|(expr, column)| (column, input.values(expr))).collect();
                Some(Self { columns, ..input })
            }
            LogicalPlan::Filter(filter) => {
                let input = Self::of(&filter.input)?;
                let part = input.part(&filter.predicate);
                Some(Self { rows: (input.rows * part).max(1.0), ..input })
            }
            LogicalPlan::Aggregate(aggregate) => {
                let input = Self::of(&aggregate.input)?;
                Some(input.grouped(&aggregate.group_expr, &aggregate.schema))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let of_input = Self::of(input)?;
                let all: Vec<Expr> = columns(input.schema()).map(Expr::Column).collect();
                Some(of_input.grouped(&all, input.schema()))
            }
            LogicalPlan::Join(join) => of_join(join),
            LogicalPlan::Sort(sort) => {
                let input = Self::of(&sort.input)?;
                let rows = sort.fetch.map_or(input.rows, |fetch| input.rows.min(fetch as f64));
                Some(Self { rows, ..input })
            }
            LogicalPlan::Limit(limit) => {
                let input = Self::of(&limit.input)?;
                match limit.get_fetch_type() {
                    Ok(FetchType::Literal(Some(fetch))) => Some(Self { rows: input.rows.min(fetch as f64), ..input }),
                    _ => Some(input),
                }
            }
            LogicalPlan::Window(window) => Self::of(&window.input),
            LogicalPlan::Repartition(repartition) => Self::of(&repartition.input),
            LogicalPlan::EmptyRelation(_) => Some(Self::flat(1.0)),
            LogicalPlan::Values(values) => Some(Self::flat(values.values.len() as f64)),
            _ => None,
        }
    }

    fn flat(rows: f64) -> Self {
        Self { rows, base_rows: rows, columns: HashMap::new() }
    }

    fn renamed(self, from: &DFSchema, to: &DFSchema) -> Self {
        let mut old = self.columns;
        let renamed = columns(from).zip(columns(to)).map(|(from, to)| (to, old.remove(&from).unwrap_or_default()));
        Self { columns: renamed.collect(), ..self }
    }

    fn grouped(self, keys: &[Expr], schema: &DFSchema) -> Self {
        let groups: f64 = keys.iter().map(|key| self.distinct(key)).product();
        let rows = groups.min(self.rows).max(1.0);
        let columns = columns(schema).zip(keys).map(|(column, key)| (column, self.values(key))).collect();
        Self { rows, base_rows: groups.min(self.base_rows).max(1.0), columns }
    }

    /// How many values `expr` has at most, as if no condition was on the rows.
    pub fn distinct(&self, expr: &Expr) -> f64 {
        self.values(expr).distinct.unwrap_or(self.base_rows).min(self.base_rows).max(1.0)
    }

    fn values(&self, expr: &Expr) -> Values {
        match bare(expr) {
            Expr::Column(column) => self.columns.get(column).cloned().unwrap_or_default(),
            _ => Values::default(),
        }
    }

    /// Adds the columns of another part of the plan.
    pub fn beside(mut self, other: Self) -> Self {
        self.columns.extend(other.columns);
        self
    }

    /// The part of the rows that pass `condition`.
    pub fn part(&self, condition: &Expr) -> f64 {
        let mut part = 1.0;
        // Both ends of a range on one column are one condition.
        let mut ranges: HashMap<&Column, (f64, f64)> = HashMap::new();
        for condition in split_conjunction(condition) {
            match self.range(condition) {
                Some((column, (low, high))) => {
                    let range = ranges.entry(column).or_insert((f64::NEG_INFINITY, f64::INFINITY));
                    *range = (range.0.max(low), range.1.min(high));
                }
                None => part *= self.part_of_one(condition),
            }
        }
        for (column, (low, high)) in ranges {
            let Some((lowest, highest)) = self.columns.get(column).and_then(|values| values.bounds) else { continue };
            let width = (highest - lowest).max(f64::MIN_POSITIVE);
            part *= ((high.min(highest) - low.max(lowest)) / width).clamp(0.0, 1.0);
        }
        part.clamp(0.0, 1.0)
    }

    /// A comparison of a column that has bounds with a number.
    fn range<'a>(&self, condition: &'a Expr) -> Option<(&'a Column, (f64, f64))> {
        let (column, low, high) = match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, op, value) = match (bare(left), bare(right)) {
                    (Expr::Column(column), value) => (column, *op, number(value)?),
                    (value, Expr::Column(column)) => (column, op.swap()?, number(value)?),
                    _ => return None,
                };
                match op {
                    Operator::Lt | Operator::LtEq => (column, f64::NEG_INFINITY, value),
                    Operator::Gt | Operator::GtEq => (column, value, f64::INFINITY),
                    _ => return None,
                }
            }
            Expr::Between(between) if !between.negated => match bare(&between.expr) {
                Expr::Column(column) => (column, number(&between.low)?, number(&between.high)?),
                _ => return None,
            },
            _ => return None,
        };
        self.columns.get(column)?.bounds?;
        Some((column, (low, high)))
    }

    fn part_of_one(&self, condition: &Expr) -> f64 {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => self.part(condition),
                Operator::Or => {
                    let (left, right) = (self.part(left), self.part(right));
                    left + right - left * right
                }
                Operator::Eq => self.equal(left).max(self.equal(right)),
                Operator::NotEq => 1.0 - self.equal(left).max(self.equal(right)),
                Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => COMPARED,
                _ => UNKNOWN,
            },
            Expr::Not(inner) => 1.0 - self.part(inner),
            Expr::Between(_) => COMPARED * COMPARED,
            Expr::InList(InList { expr, list, negated }) => {
                let part = (self.equal(expr) * list.len() as f64).min(0.9);
                if *negated { 1.0 - part } else { part }
            }
            Expr::Like(like) => {
                if like.negated {
                    1.0 - PATTERN
                } else {
                    PATTERN
                }
            }
            Expr::IsNull(_) => EQUAL,
            Expr::IsNotNull(_) => 1.0 - EQUAL,
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => 1.0,
            _ => UNKNOWN,
        }
    }

    /// The part of rows in which `side` has one certain value.
    fn equal(&self, side: &Expr) -> f64 {
        let values = self.values(side);
        match (bare(side), values.distinct) {
            (Expr::Literal(..), _) => 0.0,
            (_, Some(distinct)) => 1.0 / distinct.min(self.base_rows).max(1.0),
            (_, None) => EQUAL.max(1.0 / self.base_rows.max(1.0)),
        }
    }
}

fn of_scan(scan: &TableScan) -> Option<Estimate> {
    let statistics = source_as_provider(&scan.source).ok()?.statistics()?;
    let rows = *statistics.num_rows.get_value()? as f64;
    let all = scan.source.schema().fields().len();
    let shown: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..all).collect());
    let values = |index: &usize| {
        let Some(known) = statistics.column_statistics.get(*index) else { return Values::default() };
        let low = known.min_value.get_value().and_then(scalar);
        let high = known.max_value.get_value().and_then(scalar);
        let bounds = low.zip(high);
        let whole = known.min_value.get_value().is_some_and(is_whole);
        let between = bounds.filter(|_| whole).map(|(low, high)| high - low + 1.0);
        let counted = known.distinct_count.get_value().map(|count| *count as f64);
        Values { distinct: counted.or(between).map(|distinct| distinct.min(rows)), bounds }
    };
    let columns = columns(&scan.projected_schema).zip(shown.iter().map(values)).collect();
    let mut estimate = Estimate { rows: rows.max(1.0), base_rows: rows.max(1.0), columns };
    // A condition that the table may only use to leave files out is in a filter above as well.
    let filters: Vec<&Expr> = scan.filters.iter().collect();
    let pushed = scan.source.supports_filters_pushdown(&filters).ok()?;
    for (filter, pushed) in filters.iter().zip(pushed) {
        if pushed == TableProviderFilterPushDown::Exact {
            estimate.rows = (estimate.rows * estimate.part(filter)).max(1.0);
        }
    }
    Some(estimate)
}

fn of_join(join: &Join) -> Option<Estimate> {
    let left = Estimate::of(&join.left)?;
    if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) {
        let kept = kept_by_semi_join(join, &left)?;
        let part = if join.join_type == JoinType::LeftSemi { kept } else { 1.0 - kept };
        return Some(Estimate { rows: (left.rows * part.max(0.01)).max(1.0), ..left });
    }
    let right = Estimate::of(&join.right)?;
    let domain: f64 = join.on.iter().map(|(l, r)| left.distinct(l).min(right.distinct(r))).product();
    let domain = domain.min(left.base_rows).min(right.base_rows).max(1.0);
    let (left_rows, right_rows) = (left.rows, right.rows);
    let inner = left_rows * right_rows / if join.on.is_empty() { 1.0 } else { domain };
    let base_rows = left.base_rows.max(right.base_rows);
    let both = left.beside(right);
    let inner = join.filter.as_ref().map_or(inner, |filter| inner * both.part(filter));
    let rows = match join.join_type {
        JoinType::Inner => inner,
        JoinType::Left => inner.max(left_rows),
        JoinType::Right => inner.max(right_rows),
        JoinType::Full => inner.max(left_rows).max(right_rows),
        _ => return None,
    };
    Some(Estimate { rows: rows.max(1.0), base_rows: base_rows.max(rows), ..both })
}

/// The part of the rows of `left` that have a match in a semi join.
pub(super) fn kept_by_semi_join(join: &Join, left: &Estimate) -> Option<f64> {
    let right = Estimate::of(&join.right)?;
    let domain: f64 = join.on.iter().map(|(l, _)| left.distinct(l)).product();
    let domain = domain.min(left.base_rows).max(1.0);
    let there: f64 = join.on.iter().map(|(_, r)| right.distinct(r)).product();
    let there = there.min(right.base_rows).max(1.0);
    // A value is left as long as one of its rows passes the conditions on them.
    let passes = (right.rows / right.base_rows).min(1.0);
    let left_over = 1.0 - (1.0 - passes).powf(right.base_rows / there);
    Some((there.min(domain) / domain * left_over).clamp(0.0, 1.0))
}

fn columns(schema: &DFSchema) -> impl Iterator<Item = Column> {
    schema.columns().into_iter()
}

/// `expr` without casts and other names.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) => bare(&cast.expr),
        Expr::TryCast(cast) => bare(&cast.expr),
        other => other,
    }
}

fn number(expr: &Expr) -> Option<f64> {
    match bare(expr) {
        Expr::Literal(value, _) => scalar(value),
        _ => None,
    }
}

fn is_whole(value: &ScalarValue) -> bool {
    let data_type = value.data_type();
    data_type.is_integer() || matches!(value, ScalarValue::Date32(_) | ScalarValue::Boolean(_))
}

/// A value as a number; days for dates, microseconds for timestamps.
fn scalar(value: &ScalarValue) -> Option<f64> {
    use ScalarValue as S;
    Some(match value {
        S::Boolean(value) => f64::from(u8::from((*value)?)),
        S::Int8(value) => f64::from((*value)?),
        S::Int16(value) => f64::from((*value)?),
        S::Int32(value) | S::Date32(value) => f64::from((*value)?),
        S::Int64(value) | S::TimestampMicrosecond(value, _) => (*value)? as f64,
        S::UInt8(value) => f64::from((*value)?),
        S::UInt16(value) => f64::from((*value)?),
        S::UInt32(value) => f64::from((*value)?),
        S::UInt64(value) => (*value)? as f64,
        S::Float32(value) => f64::from((*value)?),
        S::Float64(value) => (*value)?,
        S::TimestampSecond(value, _) => (*value)? as f64 * 1e6,
        S::TimestampMillisecond(value, _) => (*value)? as f64 * 1e3,
        S::TimestampNanosecond(value, _) => (*value)? as f64 / 1e3,
        S::Decimal128(value, _, scale) => (*value)? as f64 / 10f64.powi(i32::from(*scale)),
        _ => return None,
    })
}
