//! Queries that are understood, and how their rows are found: tables joined one after the other, by hashing where the
//! condition allows it; then groups, order and limit. The catalog's tables are small, and all in memory.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postgres_types::Type;

use super::Context;
use super::aggregates::Aggregate;
use super::expression::{Comparison, Ex, Frame, Node};
use super::value::{Key, Row, Value, sorted};
use crate::failure::Failure;

/// A query.
#[derive(Debug)]
pub(super) struct Plan {
    pub columns: Vec<(String, Type)>,
    pub body: Body,
    /// The order of what is no plain SELECT, by column.
    pub order: Vec<(usize, Direction)>,
    pub limit: Option<Ex>,
    pub offset: Option<Ex>,
}

/// Where rows come from.
#[derive(Debug)]
pub(super) enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Ex>>),
    Set {
        operation: SetOperation,
        all: bool,
        left: Arc<Plan>,
        right: Arc<Plan>,
    },
    /// A query with its own order and limit.
    Query(Arc<Plan>),
    /// What a recursive query has found so far, by its number.
    Recursive {
        first: Arc<Plan>,
        again: Arc<Plan>,
        all: bool,
        number: usize,
    },
    /// The rows of the step before of a recursive query.
    Working(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetOperation {
    Union,
    Intersect,
    Except,
}

/// How rows are sorted by one value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    pub descending: bool,
    pub nulls_first: bool,
}

/// A SELECT.
#[derive(Debug)]
pub(super) struct Select {
    pub from: From,
    pub grouped: bool,
    pub group: Vec<Ex>,
    pub aggregates: Vec<Aggregate>,
    pub having: Option<Ex>,
    pub windows: Vec<Window>,
    pub sets: Vec<Ex>,
    pub projection: Vec<Ex>,
    pub distinct: Distinct,
    pub order: Vec<(Ex, Direction)>,
}

#[derive(Debug)]
pub(super) enum Distinct {
    No,
    Rows,
    On(Vec<Ex>),
}

/// A number for each row of a partition.
#[derive(Debug)]
pub(super) struct Window {
    pub rank: Numbering,
    pub partition: Vec<Ex>,
    pub order: Vec<(Ex, Direction)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbering {
    RowNumber,
    Rank,
    DenseRank,
}

/// Tables that are joined.
#[derive(Debug, Default)]
pub(super) struct From {
    pub steps: Vec<Step>,
    /// What holds without any table.
    pub filters: Vec<Ex>,
}

/// A table that joins those before it.
#[derive(Debug)]
pub(super) struct Step {
    pub source: Source,
    pub width: usize,
    pub join: Join,
    /// The condition of the join.
    pub on: Vec<Ex>,
    /// Conditions of WHERE whose columns are there with this table.
    pub filters: Vec<Ex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    Inner,
    Left,
    Right,
    Full,
}

#[derive(Debug)]
pub(super) enum Source {
    Rows(Arc<Vec<Row>>),
    /// A query; it may use the tables before it if it is lateral.
    Query {
        plan: Arc<Plan>,
        lateral: bool,
    },
    /// Functions that give rows. They may use the tables before them.
    Functions {
        calls: Vec<Ex>,
        ordinality: bool,
        spread: bool,
    },
    /// Tables joined in parentheses.
    Nested(Box<From>),
}

impl Plan {
    /// Its rows.
    pub fn rows(&self, context: &Context, parent: Option<&Frame<'_>>) -> Result<Vec<Row>, Failure> {
        context.step()?;
        let empty = Frame::of(&[], parent);
        let number = |ex: &Option<Ex>| -> Result<Option<usize>, Failure> {
            let value = ex.as_ref().map(|ex| ex.value(context, &empty)).transpose()?;
            Ok(value.and_then(|value| value.int()).map(|value| usize::try_from(value).unwrap_or_default()))
        };
        let (limit, offset) = (number(&self.limit)?, number(&self.offset)?.unwrap_or_default());
        let mut rows = match &self.body {
            Body::Select(select) => select.rows(context, parent)?,
            Body::Values(values) => {
                let row = |exs: &Vec<Ex>| exs.iter().map(|ex| ex.value(context, &empty)).collect();
                values.iter().map(row).collect::<Result<_, _>>()?
            }
            Body::Query(plan) => plan.rows(context, parent)?,
            Body::Set { operation, all, left, right } => {
                set(*operation, *all, left.rows(context, parent)?, right.rows(context, parent)?)
            }
            Body::Working(number) => context.working.borrow().get(number).cloned().unwrap_or_default(),
            Body::Recursive { first, again, all, number } => recursive(first, again, *all, *number, context, parent)?,
        };
        if !self.order.is_empty() {
            rows.sort_by(|a, b| {
                let parts = self.order.iter().map(|(column, direction)| directed(&a[*column], &b[*column], *direction));
                parts.fold(Ordering::Equal, Ordering::then)
            });
        }
        if offset > 0 {
            rows.drain(..offset.min(rows.len()));
        }
        rows.truncate(limit.unwrap_or(usize::MAX));
        Ok(rows)
    }

    /// Tells `found` of the columns that it reads of the row at `depth`, counted from outside.
    pub fn columns(&self, depth: usize, found: &mut dyn FnMut(usize)) {
        self.limit.iter().chain(&self.offset).for_each(|ex| ex.columns(depth + 1, found));
        match &self.body {
            Body::Select(select) => select.columns(depth, found),
            Body::Values(rows) => rows.iter().flatten().for_each(|ex| ex.columns(depth + 1, found)),
            Body::Query(plan) => plan.columns(depth, found),
            Body::Set { left, right, .. } => {
                left.columns(depth, found);
                right.columns(depth, found);
            }
            Body::Recursive { first, again, .. } => {
                first.columns(depth, found);
                again.columns(depth, found);
            }
            Body::Working(_) => {}
        }
    }
}

fn recursive(
    first: &Plan,
    again: &Plan,
    all: bool,
    number: usize,
    context: &Context,
    parent: Option<&Frame<'_>>,
) -> Result<Vec<Row>, Failure> {
    let mut seen: HashSet<Vec<Key>> = HashSet::new();
    let mut fresh =
        |rows: Vec<Row>| -> Vec<Row> { rows.into_iter().filter(|row| all || seen.insert(keys(row))).collect() };
    let mut found = fresh(first.rows(context, parent)?);
    let mut step = found.clone();
    while !step.is_empty() {
        context.working.borrow_mut().insert(number, step);
        step = fresh(again.rows(context, parent)?);
        found.extend(step.iter().cloned());
    }
    context.working.borrow_mut().remove(&number);
    Ok(found)
}

fn keys(row: &[Value]) -> Vec<Key> {
    row.iter().map(Value::key).collect()
}

fn set(operation: SetOperation, all: bool, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let mut counts: HashMap<Vec<Key>, usize> = HashMap::new();
    if operation != SetOperation::Union {
        right.iter().for_each(|row| *counts.entry(keys(row)).or_default() += 1);
    }
    let kept: Vec<Row> = match operation {
        SetOperation::Union => left.into_iter().chain(right).collect(),
        SetOperation::Intersect => left
            .into_iter()
            .filter(|row| match counts.get_mut(&keys(row)) {
                Some(count) if all => std::mem::replace(count, count.saturating_sub(1)) > 0,
                found => found.is_some(),
            })
            .collect(),
        SetOperation::Except => left
            .into_iter()
            .filter(|row| match counts.get_mut(&keys(row)) {
                Some(count) if all && *count > 0 => {
                    *count -= 1;
                    false
                }
                Some(_) if all => true,
                found => found.is_none(),
            })
            .collect(),
    };
    if all { kept } else { distinct(kept) }
}

fn distinct(rows: Vec<Row>) -> Vec<Row> {
    let mut seen = HashSet::new();
    rows.into_iter().filter(|row| seen.insert(keys(row))).collect()
}

fn directed(a: &Value, b: &Value, direction: Direction) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) if direction.descending => sorted(b, a),
        (false, false) | (true, true) => sorted(a, b),
        (true, false) if direction.nulls_first => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, true) if direction.nulls_first => Ordering::Greater,
        (false, true) => Ordering::Less,
    }
}

/// A row of the answer, with what it is sorted by.
struct Made {
    row: Row,
    order: Row,
    on: Option<Vec<Key>>,
}

impl Select {
    fn columns(&self, depth: usize, found: &mut dyn FnMut(usize)) {
        // What is in this query sees the row outside from one step further.
        let depth = depth + 1;
        self.from.columns(depth, found);
        let aggregates = self.aggregates.iter().flat_map(Aggregate::expressions);
        let windows = self.windows.iter().flat_map(|w| w.partition.iter().chain(w.order.iter().map(|(ex, _)| ex)));
        let on = match &self.distinct {
            Distinct::On(on) => on.as_slice(),
            _ => &[],
        };
        let all = self.group.iter().chain(&self.having).chain(&self.sets).chain(&self.projection).chain(on);
        let all = all.chain(self.order.iter().map(|(ex, _)| ex)).chain(aggregates).chain(windows);
        all.for_each(|ex| ex.columns(depth, found));
    }

    fn rows(&self, context: &Context, parent: Option<&Frame<'_>>) -> Result<Vec<Row>, Failure> {
        let rows = self.from.rows(context, parent)?;
        let groups: Vec<(Row, Row)> = if self.grouped {
            self.groups(rows, context, parent)?
        } else {
            rows.into_iter().map(|row| (row, Vec::new())).collect()
        };
        let windows = self.windows.iter().map(|window| window.numbers(&groups, context, parent));
        let windows = windows.collect::<Result<Vec<_>, _>>()?;
        let mut made = Vec::with_capacity(groups.len());
        for (place, (row, aggregates)) in groups.iter().enumerate() {
            let numbers: Row = windows.iter().map(|numbers| Value::Int(numbers[place])).collect();
            let frame = Frame { row, aggregates, windows: &numbers, sets: &[], parent };
            self.project(&frame, context, &mut made)?;
        }
        if !self.order.is_empty() {
            made.sort_by(|a, b| {
                let parts = self.order.iter().zip(a.order.iter().zip(&b.order));
                parts.map(|((_, direction), (a, b))| directed(a, b, *direction)).fold(Ordering::Equal, Ordering::then)
            });
        }
        if let Distinct::On(_) = self.distinct {
            let mut seen = HashSet::new();
            made.retain(|made| made.on.clone().is_none_or(|on| seen.insert(on)));
        }
        let rows: Vec<Row> = made.into_iter().map(|made| made.row).collect();
        Ok(if matches!(self.distinct, Distinct::Rows) { distinct(rows) } else { rows })
    }

    /// The rows of the answer that one row of the tables becomes: several, where a function gives several values.
    fn project(&self, frame: &Frame<'_>, context: &Context, made: &mut Vec<Made>) -> Result<(), Failure> {
        let mut several = Vec::with_capacity(self.sets.len());
        for set in &self.sets {
            several.push(match set.value(context, frame)? {
                Value::Array(values) => values.as_ref().clone(),
                Value::Null => Vec::new(),
                other => vec![other],
            });
        }
        let times = several.iter().map(Vec::len).max().unwrap_or(1);
        for time in 0..times {
            let sets: Row = several.iter().map(|values| values.get(time).cloned().unwrap_or(Value::Null)).collect();
            let frame = Frame { sets: &sets, ..*frame };
            let values = |exs: &mut dyn Iterator<Item = &Ex>| {
                exs.map(|ex| ex.value(context, &frame)).collect::<Result<Row, _>>()
            };
            let on = match &self.distinct {
                Distinct::On(on) => Some(keys(&values(&mut on.iter())?)),
                _ => None,
            };
            let row = values(&mut self.projection.iter())?;
            let order = values(&mut self.order.iter().map(|(ex, _)| ex))?;
            made.push(Made { row, order, on });
        }
        Ok(())
    }

    /// One row of each group, with its sums.
    fn groups(
        &self,
        rows: Vec<Row>,
        context: &Context,
        parent: Option<&Frame<'_>>,
    ) -> Result<Vec<(Row, Row)>, Failure> {
        let mut places: HashMap<Vec<Key>, usize> = HashMap::new();
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in rows {
            let frame = Frame::of(&row, parent);
            let values = self.group.iter().map(|ex| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
            let place = *places.entry(keys(&values)).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(row);
        }
        if groups.is_empty() && self.group.is_empty() {
            groups.push(Vec::new());
        }
        let mut found = Vec::with_capacity(groups.len());
        for rows in groups {
            let aggregates = self.aggregates.iter().map(|aggregate| aggregate.value(&rows, context, parent));
            let aggregates = aggregates.collect::<Result<Row, _>>()?;
            let row = rows.into_iter().next().unwrap_or_default();
            let frame = Frame { aggregates: &aggregates, ..Frame::of(&row, parent) };
            if self.having.as_ref().is_none_or(|having| having.holds(context, &frame).unwrap_or(false)) {
                found.push((row, aggregates));
            }
        }
        Ok(found)
    }
}

impl Window {
    /// The number of each row.
    fn numbers(&self, rows: &[(Row, Row)], context: &Context, parent: Option<&Frame<'_>>) -> Result<Vec<i64>, Failure> {
        let mut partitions: HashMap<Vec<Key>, Vec<(usize, Row)>> = HashMap::new();
        for (place, (row, aggregates)) in rows.iter().enumerate() {
            let frame = Frame { aggregates, ..Frame::of(row, parent) };
            let partition = self.partition.iter().map(|ex| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
            let order = self.order.iter().map(|(ex, _)| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
            partitions.entry(keys(&partition)).or_default().push((place, order));
        }
        let mut numbers = vec![0; rows.len()];
        let order = |a: &Row, b: &Row| {
            let parts = self.order.iter().zip(a.iter().zip(b));
            parts.map(|((_, direction), (a, b))| directed(a, b, *direction)).fold(Ordering::Equal, Ordering::then)
        };
        for mut partition in partitions.into_values() {
            partition.sort_by(|(_, a), (_, b)| order(a, b));
            let (mut rank, mut dense) = (0, 0);
            for index in 0..partition.len() {
                let tied = index > 0 && order(&partition[index - 1].1, &partition[index].1).is_eq();
                if !tied {
                    (rank, dense) = (index as i64 + 1, dense + 1);
                }
                numbers[partition[index].0] = match self.rank {
                    Numbering::RowNumber => index as i64 + 1,
                    Numbering::Rank => rank,
                    Numbering::DenseRank => dense,
                };
            }
        }
        Ok(numbers)
    }
}

impl From {
    fn columns(&self, depth: usize, found: &mut dyn FnMut(usize)) {
        self.filters.iter().for_each(|ex| ex.columns(depth, found));
        for step in &self.steps {
            step.on.iter().chain(&step.filters).for_each(|ex| ex.columns(depth, found));
            match &step.source {
                Source::Rows(_) => {}
                // A query that is not lateral sees the row outside directly, a lateral one past the tables before it.
                Source::Query { plan, lateral: false } => plan.columns(depth - 1, found),
                Source::Query { plan, lateral: true } => plan.columns(depth, found),
                Source::Functions { calls, .. } => calls.iter().for_each(|ex| ex.columns(depth, found)),
                Source::Nested(from) => from.columns(depth, found),
            }
        }
    }

    /// The joined rows.
    fn rows(&self, context: &Context, parent: Option<&Frame<'_>>) -> Result<Vec<Row>, Failure> {
        let nothing = Frame::of(&[], parent);
        for filter in &self.filters {
            if !filter.holds(context, &nothing)? {
                return Ok(Vec::new());
            }
        }
        let mut rows: Vec<Row> = vec![Vec::new()];
        let mut width = 0;
        for step in &self.steps {
            rows = step.join(rows, width, context, parent)?;
            width += step.width;
        }
        Ok(rows)
    }
}

impl Step {
    /// The rows of the table, for a row of those before it if it needs one.
    fn source(&self, left: &[Value], context: &Context, parent: Option<&Frame<'_>>) -> Result<Arc<Vec<Row>>, Failure> {
        Ok(match &self.source {
            Source::Rows(rows) => Arc::clone(rows),
            Source::Query { plan, lateral: false } => Arc::new(plan.rows(context, parent)?),
            Source::Query { plan, lateral: true } => Arc::new(plan.rows(context, Some(&Frame::of(left, parent)))?),
            Source::Nested(from) => Arc::new(from.rows(context, parent)?),
            Source::Functions { calls, ordinality, spread } => {
                let frame = Frame::of(left, parent);
                let mut columns = Vec::with_capacity(calls.len());
                for call in calls {
                    columns.push(match call.value(context, &frame)? {
                        Value::Array(values) => values,
                        Value::Null => Arc::default(),
                        one => Arc::new(vec![one]),
                    });
                }
                let length = columns.iter().map(|values| values.len()).max().unwrap_or_default();
                let row = |place: usize| {
                    let mut row: Row = Vec::new();
                    for values in &columns {
                        match values.get(place) {
                            Some(Value::Row(fields)) if *spread => row.extend(fields.iter().cloned()),
                            value => row.push(value.cloned().unwrap_or(Value::Null)),
                        }
                    }
                    if *ordinality {
                        row.push(Value::Int(place as i64 + 1));
                    }
                    row
                };
                Arc::new((0..length).map(row).collect())
            }
        })
    }

    fn is_lateral(&self) -> bool {
        matches!(self.source, Source::Query { lateral: true, .. } | Source::Functions { .. })
    }

    fn join(
        &self,
        lefts: Vec<Row>,
        width: usize,
        context: &Context,
        parent: Option<&Frame<'_>>,
    ) -> Result<Vec<Row>, Failure> {
        let mut found = Vec::new();
        // Conditions of WHERE are as good as those of the join, where no row has to stay without one.
        let inner = self.join == Join::Inner;
        let conditions: Vec<&Ex> = self.on.iter().chain(self.filters.iter().filter(|_| inner)).collect();
        let after: Vec<&Ex> = self.filters.iter().filter(|_| !inner).collect();
        let rights = if self.is_lateral() { None } else { Some(self.source(&[], context, parent)?) };
        let hashed = rights.as_ref().map(|rights| Hashed::new(&conditions, rights, width, self.width, context, parent));
        let hashed = hashed.transpose()?.flatten();
        let mut matched = vec![false; rights.as_ref().map_or(0, |rights| rights.len())];
        let holds = |conditions: &[&Ex], row: &[Value]| -> Result<bool, Failure> {
            let frame = Frame::of(row, parent);
            for condition in conditions {
                if !condition.holds(context, &frame)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let nulls = || std::iter::repeat_n(Value::Null, self.width);
        for left in lefts {
            context.step()?;
            let own;
            let rights = match &rights {
                Some(rights) => rights,
                None => {
                    own = self.source(&left, context, parent)?;
                    &own
                }
            };
            let mut any = false;
            let mut consider = |place: usize, row: &Row| -> Result<(), Failure> {
                let joined: Row = left.iter().chain(row).cloned().collect();
                if holds(&conditions, &joined)? {
                    any = true;
                    if let Some(matched) = matched.get_mut(place) {
                        *matched = true;
                    }
                    if holds(&after, &joined)? {
                        found.push(joined);
                    }
                }
                Ok(())
            };
            match &hashed {
                Some(hashed) => {
                    for place in hashed.places(&left, context, parent)? {
                        consider(*place, &rights[*place])?;
                    }
                }
                None => {
                    for (place, row) in rights.iter().enumerate() {
                        consider(place, row)?;
                    }
                }
            }
            if !any && matches!(self.join, Join::Left | Join::Full) {
                let joined: Row = left.into_iter().chain(nulls()).collect();
                if holds(&after, &joined)? {
                    found.push(joined);
                }
            }
        }
        if matches!(self.join, Join::Right | Join::Full) {
            for (row, _) in
                rights.iter().flat_map(|rights| rights.iter()).zip(&matched).filter(|(_, matched)| !**matched)
            {
                let joined: Row = std::iter::repeat_n(Value::Null, width).chain(row.iter().cloned()).collect();
                if holds(&after, &joined)? {
                    found.push(joined);
                }
            }
        }
        Ok(found)
    }
}

/// Rows of a table by the values that a join asks for.
struct Hashed<'a> {
    lefts: Vec<&'a Ex>,
    places: HashMap<Vec<Key>, Vec<usize>>,
}

impl<'a> Hashed<'a> {
    /// None, if nothing in `conditions` makes values of the two sides equal.
    fn new(
        conditions: &[&'a Ex],
        rights: &[Row],
        left_width: usize,
        width: usize,
        context: &Context,
        parent: Option<&Frame<'_>>,
    ) -> Result<Option<Self>, Failure> {
        let side = |ex: &Ex| {
            let (mut left, mut right, mut any) = (true, true, false);
            ex.columns(0, &mut |index| {
                any = true;
                left &= index < left_width;
                right &= index >= left_width && index < left_width + width;
            });
            (any && left, any && right)
        };
        let mut pairs = Vec::new();
        for condition in conditions {
            let Node::Compare(Comparison::Eq, a, b) = &condition.node else { continue };
            match (side(a), side(b)) {
                ((true, _), (_, true)) => pairs.push((a.as_ref(), b.as_ref())),
                ((_, true), (true, _)) => pairs.push((b.as_ref(), a.as_ref())),
                _ => {}
            }
        }
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut places: HashMap<Vec<Key>, Vec<usize>> = HashMap::new();
        for (place, row) in rights.iter().enumerate() {
            let padded: Row = std::iter::repeat_n(Value::Null, left_width).chain(row.iter().cloned()).collect();
            let frame = Frame::of(&padded, parent);
            let values = pairs.iter().map(|(_, right)| right.value(context, &frame)).collect::<Result<Row, _>>()?;
            places.entry(keys(&values)).or_default().push(place);
        }
        Ok(Some(Self { lefts: pairs.into_iter().map(|(left, _)| left).collect(), places }))
    }

    fn places(&self, left: &[Value], context: &Context, parent: Option<&Frame<'_>>) -> Result<&[usize], Failure> {
        let frame = Frame::of(left, parent);
        let values = self.lefts.iter().map(|ex| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
        Ok(self.places.get(&keys(&values)).map_or(&[][..], Vec::as_slice))
    }
}
