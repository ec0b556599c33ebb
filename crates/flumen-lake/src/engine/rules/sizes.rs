//! How many rows joins have, for choosing which side of the next join is kept for looking up.
//!
//! DataFusion gives no number for a join whose condition is not an equality, nor for what is above one; the side of which it
//! knows nothing is then taken for the larger one, and millions of rows are kept in place of a handful. Numbers here are
//! guesses like those of `estimate.rs`, for plans whose operators have been chosen.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, JoinType, Result, Statistics};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::operator_statistics::{
    DefaultStatisticsProvider, ExtendedStatistics, FilterStatisticsProvider, LimitStatisticsProvider,
    PassthroughStatisticsProvider, ProjectionStatisticsProvider, StatisticsProvider, StatisticsRegistry,
    StatisticsResult, UnionStatisticsProvider,
};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use super::estimate::{is_whole, scalar};

/// The part of rows that a condition between two sides keeps, other than an equality.
const CONDITION: f64 = 0.3;
/// The fewest rows that an anti join is expected to leave.
const LEFT_OVER: f64 = 0.1;

/// Who is asked for the rows of a part of a plan, one after the other: DataFusion first, so that nothing changes where it knows.
pub(super) fn registry() -> StatisticsRegistry {
    StatisticsRegistry::with_providers(vec![
        Arc::new(Known),
        Arc::new(FilterStatisticsProvider),
        Arc::new(ProjectionStatisticsProvider),
        Arc::new(PassthroughStatisticsProvider),
        Arc::new(Joins),
        Arc::new(LimitStatisticsProvider),
        Arc::new(UnionStatisticsProvider),
        Arc::new(DefaultStatisticsProvider),
    ])
}

/// What DataFusion says by itself, if it says how many rows there are. Its guesses fit one another: a better one in one place alone
/// would have the wrong side of a join taken for the smaller one.
#[derive(Debug)]
struct Known;

impl StatisticsProvider for Known {
    fn compute_statistics(&self, plan: &dyn ExecutionPlan, _: &[ExtendedStatistics]) -> Result<StatisticsResult> {
        let statistics = StatisticsContext::new().compute(plan, &StatisticsArgs::new())?;
        Ok(match statistics.num_rows.get_value() {
            Some(_) => StatisticsResult::Computed(ExtendedStatistics::new_arc(statistics)),
            None => StatisticsResult::Delegate,
        })
    }
}

/// Joins of every kind but those of sorted inputs, which are chosen later.
#[derive(Debug)]
struct Joins;

impl StatisticsProvider for Joins {
    fn compute_statistics(&self, plan: &dyn ExecutionPlan, inputs: &[ExtendedStatistics]) -> Result<StatisticsResult> {
        let Some(join) = Join::of(plan) else { return Ok(StatisticsResult::Delegate) };
        let [left, right] = inputs else { return Ok(StatisticsResult::Delegate) };
        let Some(rows) = join.rows(left.base(), right.base()) else { return Ok(StatisticsResult::Delegate) };
        Ok(computed(join.statistics(left.base(), right.base(), rows)))
    }
}

fn computed(statistics: Statistics) -> StatisticsResult {
    StatisticsResult::Computed(ExtendedStatistics::new(statistics))
}

/// What counts of a join.
struct Join<'a> {
    kind: JoinType,
    on: &'a [(PhysicalExprRef, PhysicalExprRef)],
    has_condition: bool,
    projection: Option<&'a [usize]>,
    columns: usize,
}

impl<'a> Join<'a> {
    fn of(plan: &'a dyn ExecutionPlan) -> Option<Self> {
        let columns = plan.schema().fields().len();
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let (kind, has_condition) = (*join.join_type(), join.filter().is_some());
            return Some(Self { kind, on: join.on(), has_condition, projection: join.projection.as_deref(), columns });
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let (kind, has_condition) = (*join.join_type(), join.filter().is_some());
            return Some(Self { kind, on: &[], has_condition, projection: join.projection().as_deref(), columns });
        }
        plan.downcast_ref::<CrossJoinExec>()?;
        Some(Self { kind: JoinType::Inner, on: &[], has_condition: false, projection: None, columns })
    }

    fn rows(&self, left: &Statistics, right: &Statistics) -> Option<f64> {
        let (left_rows, right_rows) = (rows_of(left)?, rows_of(right)?);
        let condition = if self.has_condition { CONDITION } else { 1.0 };
        let pairs = self.on.iter().map(|(l, r)| (distinct(l, left, left_rows), distinct(r, right, right_rows)));
        let (mut domain, mut in_left, mut in_right): (f64, f64, f64) = (1.0, 1.0, 1.0);
        for (l, r) in pairs {
            (domain, in_left, in_right) = (domain * l.max(r), in_left * l, in_right * r);
        }
        // Several keys together have no more values than there are rows.
        let domain = domain.min(left_rows.max(right_rows)).max(1.0);
        let inner = (left_rows * right_rows / domain * condition).max(1.0);
        let (in_left, in_right) = (in_left.min(left_rows).max(1.0), in_right.min(right_rows).max(1.0));
        let semi = |rows: f64, here: f64, there: f64| rows * (there / here).min(1.0) * condition;
        let anti = |rows: f64, matched: f64| (rows - matched).max(rows * LEFT_OVER);
        Some(match self.kind {
            JoinType::Inner => inner,
            JoinType::Left => inner.max(left_rows),
            JoinType::Right => inner.max(right_rows),
            JoinType::Full => inner.max(left_rows).max(right_rows),
            JoinType::LeftSemi => semi(left_rows, in_left, in_right),
            JoinType::RightSemi => semi(right_rows, in_right, in_left),
            JoinType::LeftAnti => anti(left_rows, semi(left_rows, in_left, in_right)),
            JoinType::RightAnti => anti(right_rows, semi(right_rows, in_right, in_left)),
            JoinType::LeftMark => left_rows,
            JoinType::RightMark => right_rows,
        })
    }

    fn statistics(&self, left: &Statistics, right: &Statistics, rows: f64) -> Statistics {
        use JoinType as J;
        let of_left = !matches!(self.kind, J::RightSemi | J::RightAnti | J::RightMark);
        let of_right = !matches!(self.kind, J::LeftSemi | J::LeftAnti | J::LeftMark);
        let sides = [(left, of_left), (right, of_right)];
        let sides = sides.into_iter().filter_map(|(side, is_given)| is_given.then_some(side));
        let mut columns: Vec<ColumnStatistics> =
            sides.clone().flat_map(|side| side.column_statistics.clone()).collect();
        if matches!(self.kind, J::LeftMark | J::RightMark) {
            columns.push(ColumnStatistics::new_unknown());
        }
        let width: Option<f64> = sides.map(width).sum();
        let all = columns.len().max(1) as f64;
        let columns: Vec<ColumnStatistics> = match self.projection {
            Some(places) => places.iter().filter_map(|place| columns.get(*place)).cloned().collect(),
            None => columns,
        };
        // Columns that are left out are taken for average ones.
        let bytes = width.map(|width| width * rows * columns.len() as f64 / all);
        let mut columns: Vec<ColumnStatistics> = columns.into_iter().map(ColumnStatistics::to_inexact).collect();
        columns.resize_with(self.columns, ColumnStatistics::new_unknown);
        Statistics {
            num_rows: inexact(rows),
            total_byte_size: bytes.map_or(Precision::Absent, inexact),
            column_statistics: columns,
        }
    }
}

/// Bytes of a row.
fn width(of: &Statistics) -> Option<f64> {
    Some(*of.total_byte_size.get_value()? as f64 / rows_of(of)?)
}

/// Rows, at least one.
fn rows_of(statistics: &Statistics) -> Option<f64> {
    statistics.num_rows.get_value().map(|rows| (*rows as f64).max(1.0))
}

fn inexact(number: f64) -> Precision<usize> {
    Precision::Inexact(number.round() as usize)
}

fn column_of<'a>(key: &PhysicalExprRef, of: &'a Statistics) -> Option<&'a ColumnStatistics> {
    of.column_statistics.get(key.downcast_ref::<Column>()?.index())
}

/// How many values `key` has, at most: as many as were counted, or as lie between its bounds, or as there are rows.
fn distinct(key: &PhysicalExprRef, of: &Statistics, rows: f64) -> f64 {
    let Some(column) = column_of(key, of) else { return rows };
    let counted = column.distinct_count.get_value().map(|count| *count as f64);
    let between = || {
        let (low, high) = (column.min_value.get_value()?, column.max_value.get_value()?);
        is_whole(low).then(|| Some((scalar(high)? - scalar(low)? + 1.0).max(1.0)))?
    };
    counted.or_else(between).unwrap_or(rows).clamp(1.0, rows)
}
