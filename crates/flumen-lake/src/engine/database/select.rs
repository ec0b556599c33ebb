//! Queries to a database, made of plans.

use std::fmt;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Expr, FetchType, Join, Limit, LogicalPlan, Projection, SkipType, Sort, TableScan,
};
use flumen_core::database::Compares;

use super::expression::{Kind, Scope, Written, comparable, sql_type};
use super::{Remote, RemoteTable};

/// The part of rows that a condition is taken to leave.
const KEPT_BY_CONDITION: f64 = 0.2;
/// Digits behind the point to which an average is computed, before it is rounded to those that it has.
const DIVISION_DIGITS: usize = 38;

/// A column of a query.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub sql: String,
    pub data_type: DataType,
    pub compares: Compares,
    /// Whether it is a column of what is read, whose values have the type as they are.
    pub is_column: bool,
}

impl Output {
    pub fn column(sql: String, data_type: DataType, compares: Compares) -> Self {
        Self { sql, data_type, compares, is_column: true }
    }

    /// What is computed, and has to be of `data_type`.
    fn computed(written: &Written, data_type: &DataType) -> Option<Self> {
        sql_type(data_type)?;
        Some(Self { sql: written.part(), data_type: data_type.clone(), compares: written.compares, is_column: false })
    }

    fn listed(&self) -> String {
        match sql_type(&self.data_type) {
            Some(sql_type) if !self.is_column => format!("{}::{sql_type}", self.sql),
            _ => self.sql.clone(),
        }
    }
}

/// A query.
#[derive(Debug, Clone)]
pub(super) struct Select {
    columns: Vec<Output>,
    from: String,
    /// Whether `from` is a join.
    joined: bool,
    conditions: Vec<String>,
    /// What it is grouped by, if it is; nothing for one group of all rows.
    group: Option<Vec<String>>,
    order: Vec<String>,
    skip: usize,
    fetch: Option<usize>,
    rows: Option<f64>,
    /// Whether it is more than a scan of one table.
    worthwhile: bool,
}

impl Select {
    /// All rows of a table.
    pub fn table(from: String, columns: Vec<Output>, rows: Option<u64>) -> Self {
        Self {
            columns,
            from,
            joined: false,
            conditions: Vec::new(),
            group: None,
            order: Vec::new(),
            skip: 0,
            fetch: None,
            rows: rows.map(|rows| rows as f64),
            worthwhile: false,
        }
    }

    /// `filter` for the database, if it means the same there.
    pub fn condition(&self, filter: &Expr, place: &dyn Fn(&Column) -> Option<usize>) -> Option<String> {
        Some(Scope { columns: &self.columns, place }.condition(filter)?.part())
    }

    /// Leaves only rows for which `condition` is true.
    pub fn add_condition(&mut self, condition: String) {
        self.rows = self.rows.map(|rows| rows * KEPT_BY_CONDITION);
        self.conditions.push(condition);
    }

    /// Leaves only these columns, in this order.
    pub fn keep(&mut self, places: &[usize]) {
        self.columns = places.iter().filter_map(|place| self.columns.get(*place).cloned()).collect();
    }

    /// Leaves only so many rows.
    pub fn limit(&mut self, skip: usize, fetch: Option<usize>) {
        self.skip = skip;
        self.fetch = fetch;
        self.rows = match (self.rows, fetch) {
            (Some(rows), Some(fetch)) => Some(rows.min(fetch as f64)),
            (None, Some(fetch)) => Some(fetch as f64),
            (rows, None) => rows,
        };
    }

    /// About how many rows it has.
    pub fn rows(&self) -> Option<usize> {
        self.rows.map(|rows| rows.max(1.0) as usize)
    }

    /// Whether it is more than a scan of one table.
    pub fn is_worthwhile(&self) -> bool {
        self.worthwhile
    }

    /// Whether its rows come in an order.
    pub fn is_ordered(&self) -> bool {
        !self.order.is_empty()
    }

    fn is_limited(&self) -> bool {
        self.skip > 0 || self.fetch.is_some()
    }

    fn is_plain(&self) -> bool {
        self.group.is_none() && !self.is_limited() && self.order.is_empty()
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.columns.iter().map(Output::listed).collect();
        // A query has a column; a count of rows needs none.
        write!(f, "select {}", if list.is_empty() { "true".to_owned() } else { list.join(", ") })?;
        self.rest(f)
    }
}

impl Select {
    /// What stands behind the columns.
    fn rest(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, " from {}", self.from)?;
        if !self.conditions.is_empty() {
            write!(f, " where {}", self.conditions.join(" and "))?;
        }
        match &self.group {
            Some(keys) if !keys.is_empty() => write!(f, " group by {}", keys.join(", "))?,
            // Without an aggregate in the list, nothing else says that it is one group.
            Some(_) if self.columns.is_empty() => f.write_str(" having true")?,
            _ => {}
        }
        if !self.order.is_empty() {
            write!(f, " order by {}", self.order.join(", "))?;
        }
        if let Some(fetch) = self.fetch {
            write!(f, " limit {fetch}")?;
        }
        if self.skip > 0 {
            write!(f, " offset {}", self.skip)?;
        }
        Ok(())
    }
}

/// Makes queries of plans.
#[derive(Default)]
pub(super) struct Compiler {
    /// The database of all tables so far.
    pub remote: Option<Remote>,
    aliases: usize,
}

impl Compiler {
    /// The query that gives the rows of `plan`; none if the database means something else by it, or if not all of its
    /// tables are of one database.
    pub fn plan(&mut self, plan: &LogicalPlan) -> Option<Select> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Filter(filter) => {
                let mut select = self.plan(&filter.input)?;
                if !select.is_plain() {
                    select = self.wrapped(&select);
                }
                let place = place_in(filter.input.schema());
                for part in split_conjunction(&filter.predicate) {
                    let condition = select.condition(part, &place)?;
                    select.add_condition(condition);
                }
                Some(select)
            }
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Join(join) => self.join(join),
            _ => None,
        }
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// The same as a table of its own.
    fn wrapped(&mut self, select: &Select) -> Select {
        let alias = self.alias();
        let mut inner = String::new();
        let named = |(place, column): (usize, &Output)| format!("{} as c{place}", column.listed());
        let list: Vec<String> = select.columns.iter().enumerate().map(named).collect();
        let list = if list.is_empty() { "true as c".to_owned() } else { list.join(", ") };
        // Writing to a text does not fail.
        let _ = select.rest(&mut inner);
        let columns = select.columns.iter().enumerate();
        let columns = columns.map(|(place, column)| {
            Output::column(format!("{alias}.c{place}"), column.data_type.clone(), column.compares)
        });
        let mut made = Select::table(format!("(select {list}{inner}) as {alias}"), columns.collect(), None);
        made.rows = select.rows;
        made.worthwhile = select.worthwhile;
        made
    }

    fn scan(&mut self, scan: &TableScan) -> Option<Select> {
        let provider = source_as_provider(&scan.source).ok()?;
        let table = provider.downcast_ref::<RemoteTable>()?;
        match &self.remote {
            Some(remote) if remote.connection != table.remote.connection => return None,
            Some(_) => {}
            None => self.remote = Some(table.remote.clone()),
        }
        let alias = self.alias();
        let mut select = table.select(&alias);
        for filter in &scan.filters {
            let condition = select.condition(filter, &|column| table.place(column))?;
            select.add_condition(condition);
        }
        if let Some(places) = &scan.projection {
            select.keep(places);
        }
        if let Some(fetch) = scan.fetch {
            select.limit(0, Some(fetch));
        }
        Some(select)
    }

    fn projection(&mut self, projection: &Projection) -> Option<Select> {
        let mut select = self.plan(&projection.input)?;
        let constant = |expr: &Expr| expr.column_refs().is_empty();
        if select.group.as_ref().is_some_and(Vec::is_empty) && projection.expr.iter().any(constant) {
            select = self.wrapped(&select);
        }
        let place = place_in(projection.input.schema());
        let scope = Scope { columns: &select.columns, place: &place };
        let fields = projection.schema.fields().iter();
        let columns = projection.expr.iter().zip(fields).map(|(expr, field)| match unaliased(expr) {
            Expr::Column(column) => select.columns.get(place(column)?).cloned(),
            expr => Output::computed(&scope.write(expr)?, field.data_type()),
        });
        let columns = columns.collect::<Option<Vec<_>>>()?;
        select.columns = columns;
        Some(select)
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Option<Select> {
        let mut select = self.plan(&aggregate.input)?;
        if !select.is_plain() {
            select = self.wrapped(&select);
        }
        let place = place_in(aggregate.input.schema());
        let scope = Scope { columns: &select.columns, place: &place };
        let (mut keys, mut columns) = (Vec::new(), Vec::new());
        let mut fields = aggregate.schema.fields().iter();
        for expr in &aggregate.group_expr {
            let expr = unaliased(expr);
            let key = scope.write(expr).filter(|key| key.compares >= Compares::Equal && !is_constant(&key.sql))?;
            columns.push(match expr {
                Expr::Column(column) => select.columns.get(place(column)?)?.clone(),
                _ => Output::computed(&key, fields.clone().next()?.data_type())?,
            });
            fields.next();
            keys.push(key.part());
        }
        for expr in &aggregate.aggr_expr {
            let Expr::AggregateFunction(function) = unaliased(expr) else { return None };
            let data_type = fields.next()?.data_type();
            let sql = aggregated(&scope, function, data_type)?;
            columns.push(Output::column(sql, data_type.clone(), Compares::Ordered));
        }
        select.columns = columns;
        select.rows = if keys.is_empty() { Some(1.0) } else { select.rows.map(f64::sqrt) };
        select.group = Some(keys);
        select.worthwhile = true;
        Some(select)
    }

    fn sort(&mut self, sort: &Sort) -> Option<Select> {
        // An order of all rows saves nothing: it is made here as well.
        let fetch = sort.fetch?;
        let mut select = self.plan(&sort.input)?;
        if select.is_limited() {
            select = self.wrapped(&select);
        }
        let place = place_in(sort.input.schema());
        let scope = Scope { columns: &select.columns, place: &place };
        let keys = sort.expr.iter().map(|key| {
            let written = scope.write(&key.expr).filter(|written| !is_constant(&written.sql))?;
            (written.compares == Compares::Ordered).then_some(())?;
            let direction = if key.asc { "" } else { " desc" };
            let nulls = if key.nulls_first { "first" } else { "last" };
            Some(format!("{}{direction} nulls {nulls}", written.part()))
        });
        select.order = keys.collect::<Option<Vec<_>>>()?;
        select.limit(0, Some(fetch));
        select.worthwhile = true;
        Some(select)
    }

    fn limit(&mut self, limit: &Limit) -> Option<Select> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type().ok()?, limit.get_fetch_type().ok()?)
        else {
            return None;
        };
        let mut select = self.plan(&limit.input)?;
        if select.is_ordered() {
            // Which rows come first after those that are left out is decided where they are put in order: here.
            let first = fetch.filter(|_| skip == 0)?;
            select.limit(0, Some(select.fetch.map_or(first, |known| known.min(first))));
            return Some(select);
        }
        if select.is_limited() {
            select = self.wrapped(&select);
        }
        select.limit(skip, fetch);
        Some(select)
    }

    fn join(&mut self, join: &Join) -> Option<Select> {
        let plain = join.null_equality == NullEquality::NullEqualsNothing && !join.null_aware && !join.on.is_empty();
        plain.then_some(())?;
        let outer = matches!(join.join_type, JoinType::Left | JoinType::Right);
        let (left, right) = (self.side(&join.left, outer)?, self.side(&join.right, outer)?);
        let on = join_condition(join, &left, &right)?;
        let from_right = if right.joined { format!("({})", right.from) } else { right.from.clone() };
        let rows = match (left.rows, right.rows) {
            (Some(left), Some(right)) => Some(left.max(right)),
            _ => None,
        };
        let mut made = Select { worthwhile: true, ..left };
        let word = match join.join_type {
            JoinType::Inner => "join",
            JoinType::Left => "left join",
            JoinType::Right => "right join",
            JoinType::LeftSemi | JoinType::LeftAnti => {
                let not = if join.join_type == JoinType::LeftAnti { "not " } else { "" };
                let conditions: Vec<String> = std::iter::once(on).chain(right.conditions).collect();
                let conditions = conditions.join(" and ");
                made.add_condition(format!("{not}exists (select from {} where {conditions})", right.from));
                return Some(made);
            }
            _ => return None,
        };
        made.from = format!("{} {word} {from_right} on {on}", made.from);
        made.joined = true;
        made.rows = rows;
        made.columns.extend(right.columns);
        made.conditions.extend(right.conditions);
        Some(made)
    }

    /// One side of a join. That of an outer join is as it is before rows without a partner are filled up.
    fn side(&mut self, plan: &LogicalPlan, outer: bool) -> Option<Select> {
        let select = self.plan(plan)?;
        let computed = select.columns.iter().any(|column| !column.is_column);
        let apart = !select.is_plain() || outer && (computed || !select.conditions.is_empty());
        Some(if apart { self.wrapped(&select) } else { select })
    }
}

/// What rows of the two sides have to fulfil to be joined.
fn join_condition(join: &Join, left: &Select, right: &Select) -> Option<String> {
    let (left_place, right_place) = (place_in(join.left.schema()), place_in(join.right.schema()));
    let left_scope = Scope { columns: &left.columns, place: &left_place };
    let right_scope = Scope { columns: &right.columns, place: &right_place };
    let mut conditions = Vec::new();
    for (one, other) in &join.on {
        let (one, other) = (left_scope.write(one)?, right_scope.write(other)?);
        comparable(&one, &other, Compares::Equal).then_some(())?;
        conditions.push(format!("{} = {}", one.part(), other.part()));
    }
    if let Some(filter) = &join.filter {
        let schema = join.left.schema().join(join.right.schema()).ok()?;
        let place = place_in(&schema);
        let columns: Vec<Output> = left.columns.iter().chain(&right.columns).cloned().collect();
        conditions.push(Scope { columns: &columns, place: &place }.condition(filter)?.part());
    }
    Some(conditions.join(" and "))
}

/// An aggregate for the database, which gives a value of the type; none if it means something else there.
fn aggregated(scope: &Scope<'_>, function: &AggregateFunction, data_type: &DataType) -> Option<String> {
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &function.params;
    let [arg] = args.as_slice() else { return None };
    (order_by.is_empty() && null_treatment.is_none()).then_some(())?;
    let counts_rows = matches!(arg, Expr::Literal(value, _) if !value.is_null());
    let only = if *distinct { "distinct " } else { "" };
    let name = function.func.name();
    let (call, as_is) = match name {
        "count" if counts_rows && !distinct => ("count(*)".to_owned(), true),
        "count" => {
            let value = scope.write(arg).filter(|value| !distinct || value.compares >= Compares::Equal)?;
            (format!("count({only}{})", value.sql), true)
        }
        "sum" => {
            let summed = |kind| matches!(kind, Kind::Int(_) | Kind::Decimal(_) | Kind::Float(64));
            let value = scope.write(arg).filter(|value| summed(value.kind))?;
            (format!("sum({only}{})", value.sql), value.kind == Kind::Float(64))
        }
        "avg" if !distinct => {
            let value = scope.write(arg)?;
            match (value.kind, data_type) {
                (Kind::Float(64), _) => (format!("avg({})", value.sql), true),
                (Kind::Decimal(_), DataType::Decimal128(_, scale)) if filter.is_none() => {
                    // That of the database has fewer digits: a zero with many of them makes the quotient have them.
                    let (zero, value) = (format!("0.{}", "0".repeat(DIVISION_DIGITS)), &value.sql);
                    (format!("round((sum({value}) + {zero}) / nullif(count({value}), 0), {scale})"), false)
                }
                _ => return None,
            }
        }
        "min" | "max" => {
            let ordered = |value: &Written| value.compares == Compares::Ordered && value.kind != Kind::Bool;
            (format!("{name}({})", scope.write(arg).filter(ordered)?.sql), matches!(arg, Expr::Column(_)))
        }
        _ => return None,
    };
    let call = match filter {
        Some(filter) => format!("{call} filter (where {})", scope.condition(filter)?.sql),
        None => call,
    };
    Some(if as_is { call } else { format!("({call})::{}", sql_type(data_type)?) })
}

/// Whether `sql` may be a number or a text, which a list of keys takes for the place or the name of a column.
fn is_constant(sql: &str) -> bool {
    let sql = sql.trim_start_matches(['(', '-', ' ']);
    sql.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '\'' | '.')) || matches!(sql, "true" | "false")
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        expr => expr,
    }
}

/// Where a column of `schema` is.
fn place_in(schema: &DFSchema) -> impl Fn(&Column) -> Option<usize> {
    move |column| schema.maybe_index_of_column(column)
}
