//! Each rule fires where it should, and the answers are those of DataFusion without it: with nulls, equal values, nothing at
//! all, and rows spread over several partitions.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::engine::session;

/// A table in memory that knows its statistics.
#[derive(Debug)]
struct Counted {
    table: MemTable,
    statistics: Statistics,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.table.scan(session, projection, filters, limit).await
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }
}

/// `count` numbers below `below` that look random, every tenth or so missing.
fn numbers(seed: u64, count: usize, below: u64) -> Vec<Option<i64>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count).map(|_| if next() % 10 == 0 { None } else { i64::try_from(next() % below).ok() }).collect()
}

/// A table with `rows` rows: keys below `keys`, values with many equal ones, and everything in several types.
fn table(seed: u64, rows: usize, keys: u64) -> Counted {
    let key = numbers(seed, rows, keys);
    let value = numbers(seed + 1, rows, 50);
    let text = |value: &Option<i64>| value.map(|value| format!("text number {value}"));
    let money = value.iter().map(|value| value.map(|value| i128::from(value * 37 - 900)));
    let large = key.iter().map(|value| value.map(|value| i128::from(value % 1000) * 10_i128.pow(30)));
    let decimal =
        |values: Decimal128Array, precision, scale| values.with_precision_and_scale(precision, scale).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("k", Arc::new(Int64Array::from(key.clone()))),
        ("v", Arc::new(Int64Array::from(value.clone()))),
        ("f", Arc::new(Float64Array::from_iter(value.iter().map(|value| value.map(|value| value as f64 / 4.0 - 5.0))))),
        ("t", Arc::new(StringArray::from_iter(key.iter().map(text)))),
        ("tv", Arc::new(StringViewArray::from_iter(value.iter().map(text)))),
        ("money", Arc::new(decimal(money.collect(), 15, 2))),
        ("large", Arc::new(decimal(large.collect(), 38, 3))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    // Three partitions, of several batches each, one of them without rows.
    let mut partitions = vec![Vec::new(), vec![RecordBatch::new_empty(Arc::clone(&schema))], Vec::new()];
    for start in (0..rows).step_by(300) {
        partitions[start / 300 % 3].push(batch.slice(start, 300.min(rows - start)));
    }
    let mut statistics = Statistics::new_unknown(&schema);
    statistics.num_rows = Precision::Exact(rows);
    let whole = |below: u64| ColumnStatistics {
        min_value: Precision::Exact(ScalarValue::Int64(Some(0))),
        max_value: Precision::Exact(ScalarValue::Int64(i64::try_from(below).ok())),
        ..ColumnStatistics::new_unknown()
    };
    statistics.column_statistics[0] = whole(rows as u64);
    statistics.column_statistics[1] = whole(keys);
    statistics.column_statistics[2] = whole(50);
    Counted { table: MemTable::try_new(schema, partitions).unwrap(), statistics }
}

/// DataFusion as it is, and as Flumen sets it up, over the same tables.
struct Both {
    plain: SessionContext,
    ours: SessionContext,
}

impl Both {
    fn new() -> Self {
        let ours = SessionContext::new_with_state(
            SessionStateBuilder::new_from_existing(session::state(256 << 20, Some(3)).unwrap())
                .with_config(SessionConfig::new().with_target_partitions(3))
                .build(),
        );
        let both =
            Self { plain: SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3)), ours };
        for (name, seed, rows, keys) in [
            ("big", 1, 5000, 400),
            ("middle", 20, 900, 300),
            ("small", 30, 40, 30),
            ("few", 40, 3000, 7),
            ("empty", 50, 0, 9),
        ] {
            both.plain.register_table(name, Arc::new(table(seed, rows, keys))).unwrap();
            both.ours.register_table(name, Arc::new(table(seed, rows, keys))).unwrap();
        }
        both
    }

    async fn rows(context: &SessionContext, sql: &str) -> Vec<String> {
        let batches = context.sql(sql).await.expect(sql).collect().await.expect(sql);
        let mut rows = text(&batches);
        rows.sort();
        rows
    }

    async fn plan(&self, sql: &str) -> String {
        let plan = self.ours.sql(sql).await.expect(sql).create_physical_plan().await.expect(sql);
        displayable(plan.as_ref()).indent(false).to_string()
    }

    /// The answers are the same; the plan has `mark` in it.
    async fn check(&self, sql: &str, mark: &str) {
        let plan = self.plan(sql).await;
        assert!(plan.contains(mark), "{sql}\nhas no {mark}:\n{plan}");
        assert_eq!(Self::rows(&self.ours, sql).await, Self::rows(&self.plain, sql).await, "{sql}\n{plan}");
    }
}

fn text(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap());
        let columns: Vec<ArrayFormatter<'_>> = columns.collect();
        let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

#[tokio::test]
async fn the_first_rows_of_each_group_are_those_of_a_window() {
    let both = Both::new();
    let numbered = |key: &str, order: &str, table: &str, shown: &str, condition: &str| {
        format!(
            "select {shown} from (select *, row_number() over (partition by {key} order by {order}) as rn from {table}) \
             where {condition}"
        )
    };
    for table in ["big", "middle", "few", "empty"] {
        for order in
            ["v", "v desc", "v desc nulls last", "v nulls first", "f", "f desc", "tv, v", "money desc", "t desc, v"]
        {
            // What is asked for is the same whichever of equal rows comes first.
            let shown = format!("k, {}, rn", order.split([' ', ',']).next().unwrap());
            for condition in ["rn = 1", "rn <= 3", "rn < 3", "3 >= rn and v > 10", "rn = 2"] {
                both.check(&numbered("k", order, table, &shown, condition), "FirstRowsExec").await;
            }
        }
        both.check(&numbered("k, tv", "id desc", table, "*", "rn = 1"), "FirstRowsExec").await;
        both.check(&numbered("t", "id", table, "*", "rn <= 5"), "FirstRowsExec").await;
        both.check(&numbered("v % 3", "id", table, "id, rn", "rn <= 2"), "FirstRowsExec").await;
    }
    let outer = "select k, count(*), sum(s) from (select k, v + 1 as s, n from (select k, v, row_number() over \
                 (partition by k, v order by id) as n from big) where n = 1) group by k";
    both.check(outer, "FirstRowsExec").await;
}

#[tokio::test]
async fn windows_that_number_more_stay() {
    let both = Both::new();
    for sql in [
        "select * from (select id, row_number() over (partition by k order by id) as rn from big) where rn > 3",
        "select * from (select id, row_number() over (partition by k order by id) as rn from big) where rn <= 101",
        "select * from (select id, rank() over (partition by k order by v) as rn from big) where rn <= 2",
        "select * from (select id, row_number() over (partition by f order by id) as rn from big) where rn = 1",
        "select * from (select id, row_number() over (partition by k order by id) as rn, \
         sum(v) over (partition by k order by id) as s from big) where rn = 1",
    ] {
        let plan = both.plan(sql).await;
        assert!(!plan.contains("FirstRowsExec"), "{sql}\n{plan}");
        assert_eq!(Both::rows(&both.ours, sql).await, Both::rows(&both.plain, sql).await, "{sql}");
    }
}

#[tokio::test]
async fn more_groups_than_memory_are_sorted_on_disk() {
    let sql = "select k, v, rn from (select k, v, row_number() over (partition by k order by v desc) as rn from many) \
               where rn <= 2";
    let mut states = Vec::new();
    for memory in [8 << 20, 1 << 30] {
        let mut state = session::state(memory, Some(1)).unwrap();
        state.config_mut().options_mut().catalog.create_default_catalog_and_schema = true;
        let mut config = state.config().clone().with_target_partitions(1).with_sort_spill_reservation_bytes(64 << 10);
        config.options_mut().catalog = SessionConfig::new().options().catalog.clone();
        let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        let context = SessionContext::new_with_state(state);
        context.register_table("many", Arc::new(table(7, 150_000, 1 << 40))).unwrap();
        states.push(context);
    }
    let (little, much) = (Both::rows(&states[0], sql).await, Both::rows(&states[1], sql).await);
    assert!(little.len() > 100_000);
    assert_eq!(little, much);
    for (context, sorted) in states.iter().zip([1, 0]) {
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
        assert_eq!(counted(plan.as_ref(), "sorted"), sorted);
    }
}

/// A metric of all operators, summed up.
fn counted(plan: &dyn ExecutionPlan, metric: &str) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(metric)).map_or(0, |value| value.as_usize());
    own + plan.children().iter().map(|child| counted(child.as_ref(), metric)).sum::<usize>()
}

#[tokio::test]
async fn joins_in_another_order_give_the_same_rows() {
    let both = Both::new();
    // In the order of the text, the two large tables would meet first.
    let sql = "select big.id, middle.id, small.id, big.t from big, middle, small \
               where big.k = middle.k and middle.v = small.id and small.v < 5";
    let plan = both.plan(sql).await;
    let (small, big) = (plan.rfind("v@").unwrap(), plan.find("k@").unwrap());
    assert!(small > 0 && big > 0, "{plan}");
    both.check(sql, "HashJoinExec").await;
    for sql in [
        "select count(*), sum(b.v) from big b, middle m, small s, few f \
         where b.k = m.k and m.v = s.v and s.k = f.k and f.id < 100 and b.id < m.id",
        "select b.*, s.t from big b, middle m, small s where b.k = m.k and m.k = s.k and (b.v = 3 or s.v = 4)",
        "select count(*) from big b join middle m on b.k = m.k join empty e on m.k = e.k",
        "select count(*) from big b join middle m on b.k = m.k left join small s on m.k = s.k join few f on f.v = b.v and f.id < 9",
        "select b.id from big b, middle m, small s where b.k = m.k and b.v + m.v = s.v",
        "select m.id, f.k from middle m, few f where m.k = f.id and m.id in (select k from small where v < 20)",
        "select m.id, f.k from middle m, few f where m.k = f.id and m.id not in (select k from small where k is not null)",
        "select b.id from big b, middle m, small s where b.k = m.k and m.v = s.v \
         and exists (select 1 from few f where f.v = b.v and f.id <> b.id and f.id < 50)",
    ] {
        both.check(sql, "Exec").await;
    }
}

#[tokio::test]
async fn the_side_above_a_join_without_an_equality_is_kept_if_it_is_the_smaller_one() {
    let both = Both::new();
    for sql in [
        // Two rows or so of `small`, which a condition alone joins; DataFusion knows nothing of them, and keeps `big`.
        "select count(*), sum(b.v) from big b join (select a.k as k from small a join small c on a.v * 2 < c.v and a.id = 3) s on s.k = b.k",
        "select count(*), sum(b.v) from (select a.k as k from small a join small c on a.v * 2 < c.v and a.id = 3) s join big b on s.k = b.k",
        "select count(*) from big b left join (select a.k as k from small a join small c on a.v * 2 < c.v and a.id = 3) s on s.k = b.k",
    ] {
        let plan = both.plan(sql).await;
        // The side that is kept comes first.
        let (kept, other) =
            (plan.find("NestedLoopJoinExec"), plan.find("[id, k, v, f").or(plan.rfind("DataSourceExec")));
        assert!(kept.is_some() && kept < other, "{sql}\n{plan}");
        both.check(sql, "HashJoinExec: mode=CollectLeft").await;
    }
}

#[tokio::test]
async fn cheap_conditions_come_first() {
    let both = Both::new();
    let sql =
        "select id from big where t like '%7%' and tv = 'text number 4' and v < k and k > 5 and 10 / (id + 1) < 3";
    let plan = both.plan(sql).await;
    let place = |part: &str| plan.find(part).unwrap_or_else(|| panic!("no {part} in {plan}"));
    let order = ["k@1 > 5", "v@2 < k@1", "text number 4"].map(place);
    assert!(order.is_sorted() && order[2] < place("LIKE %7%").min(place("10 / ")), "{plan}");
    both.check(sql, "FilterExec").await;
}

#[tokio::test]
async fn arithmetic_on_decimals_is_the_same() {
    let both = Both::new();
    for sql in [
        "select id, money * (1 - money) * (1 + money) as a, money + 3 as b, 250 - money as c from big",
        "select k, sum(money * (1 - money)), sum(money - cast(1.25 as decimal(5, 2))), min(large + 1), max(large - money) from few group by k",
        "select id, large * cast(1.5 as decimal(3, 1)) as a, money * large / 1000 as b from few where k < 2",
        "select money * (case when v > 3 then cast(2 as decimal(10, 2)) end) as a from middle",
        "select money * 2, 3 * money * money from empty",
    ] {
        both.check(sql, "decimal_").await;
    }
    for context in [&both.plain, &both.ours] {
        let error = context.sql("select large * large as a from few").await.unwrap().collect().await.unwrap_err();
        assert!(error.to_string().contains("verflow"), "{error}");
    }
}

#[tokio::test]
async fn averages_of_decimals_have_all_their_digits() {
    let both = Both::new();
    let ours = async |sql: &str| Both::rows(&both.ours, sql).await.join(" ");
    let values = "(select cast(x as decimal(15, 2)) as x from (values (0.01), (0.02), (0.02), (null)) as t(x)) as t";
    assert_eq!(ours(&format!("select avg(x) from {values}")).await, "0.0166666666666667");
    assert_eq!(
        ours(&format!("select avg(-x), avg(distinct x) from {values}")).await,
        "-0.0166666666666667|0.0150000000000000"
    );
    assert_eq!(ours(&format!("select avg(x), count(*) from {values} where x > 5")).await, "NULL|0");
    assert_eq!(ours(&format!("select avg(x) filter (where x > 0.01) from {values}")).await, "0.0200000000000000");
    assert_eq!(
        ours(&format!("select avg(x) over (order by x rows between 1 preceding and current row) from {values}")).await,
        "0.0100000000000000 0.0150000000000000 0.0200000000000000 0.0200000000000000"
    );
    // As floating point has it, as far as that goes.
    for sql in [
        "select k, cast(avg(money) as double), count(*) from few group by k order by k",
        "select v, cast(avg(distinct money) as double), sum(money) from middle group by v",
    ] {
        let exact = Both::rows(&both.ours, sql).await;
        let float = Both::rows(&both.plain, &sql.replace("money) as double", "cast(money as double)) as double")).await;
        assert_eq!(exact.len(), float.len());
        for (exact, float) in exact.iter().zip(&float) {
            for (exact, float) in exact.split('|').zip(float.split('|')) {
                match (exact.parse::<f64>(), float.parse::<f64>()) {
                    (Ok(exact), Ok(float)) => assert!((exact - float).abs() < 1e-9, "{exact} {float}"),
                    _ => assert_eq!(exact, float),
                }
            }
        }
    }
    let plan = both.plan("select sum(money), avg(money), count(money) from few").await;
    assert_eq!(
        plan.lines()
            .find(|line| line.contains("mode=Final") || line.contains("mode=Single"))
            .map(|line| line.matches("sum(").count()),
        Some(1),
        "{plan}"
    );
    assert_eq!(
        DataType::Decimal128(29, 16),
        both.ours.sql("select avg(money) as a from few").await.unwrap().schema().field(0).data_type().clone()
    );
}

/// The table `big` in Parquet files, of three row groups each.
fn parquet(folder: &std::path::Path) {
    let Counted { table, .. } = table(1, 5000, 400);
    for (number, partition) in table.batches.iter().enumerate() {
        let batches = partition.try_read().unwrap();
        let file = std::fs::File::create(folder.join(format!("{number}.parquet"))).unwrap();
        let properties = parquet::file::properties::WriterProperties::builder();
        let properties = properties.set_max_row_group_row_count(Some(600)).build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
    }
}

async fn with_files(both: &Both, folder: &std::path::Path) {
    parquet(folder);
    for context in [&both.plain, &both.ours] {
        let options = datafusion::prelude::ParquetReadOptions::default();
        context.register_parquet("files", folder.to_str().unwrap(), options).await.unwrap();
    }
}

/// Runs `sql` as Flumen does; gives a metric of its operators.
async fn measured(context: &SessionContext, sql: &str, metric: &str) -> usize {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    counted(plan.as_ref(), metric)
}

#[tokio::test]
async fn what_is_grouped_twice_is_grouped_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut both = Both::new();
    with_files(&both, folder.path()).await;
    let groups = "with g as (select k, sum(v) as s, avg(money) as m from files where f < 6 group by k) ";
    let queries = [
        "select k, s from g where s >= (select avg(s) from g)",
        "select a.k, a.s + b.s from g a join g b on a.k = b.k",
        "select a.k, a.s + b.s + c.s from g a join g b on a.k = b.s join g c on b.k = c.s",
        "select k, s from g where k in (select s from g)",
        "select sum(k), sum(s) from (select k, s from g union all select k, s from g)",
    ];
    let same = |row: &str| row.split('|').take(2).map(str::to_owned).collect::<Vec<_>>();
    for sql in queries {
        let sql = format!("{groups}{sql}");
        let plan = both.plan(&sql).await;
        assert!(plan.contains("SharedExec"), "{sql}\n{plan}");
        let (ours, plain) = (Both::rows(&both.ours, &sql).await, Both::rows(&both.plain, &sql).await);
        let key = |rows: &[String]| rows.iter().map(|row| same(row)).collect::<Vec<_>>();
        assert_eq!(key(&ours), key(&plain), "{sql}\n{plan}");
        assert!(measured(&both.ours, &sql, "taken_over").await > 0, "{sql}\n{plan}");
        // A plan may run again.
        let mut plan = both.ours.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        for _ in 0..2 {
            let run = datafusion::physical_plan::collect(Arc::clone(&plan), both.ours.task_ctx());
            let mut rows = text(&run.await.unwrap());
            rows.sort();
            assert_eq!(rows, ours, "{sql}");
            plan = datafusion::physical_plan::execution_plan::reset_plan_states(plan).unwrap();
        }
    }
    for sql in [
        "select * from (select k, sum(v) as s from files where v < 5 group by k) a \
         join (select k, sum(v) as s from files where v < 6 group by k) b on a.k = b.k",
        "select * from (select k, sum(v) as s from files where random() < 5 group by k) a \
         join (select k, sum(v) as s from files where random() < 5 group by k) b on a.k = b.k",
        "select a.k, b.s from (select k, sum(v) as s from big group by k) a join (select k, sum(v) as s from big group by k) b \
         on a.k = b.k",
    ] {
        let plan = both.plan(sql).await;
        assert!(!plan.contains("SharedExec"), "{sql}\n{plan}");
    }
    // Where they are not kept for want of memory, they are made again.
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(Unkept)).build_arc().unwrap();
    let state = SessionStateBuilder::new_from_existing(both.ours.state()).with_runtime_env(runtime).build();
    let expected = Both::rows(&both.ours, &format!("{groups}{}", queries[1])).await;
    both.ours = SessionContext::new_with_state(state);
    assert_eq!(Both::rows(&both.ours, &format!("{groups}{}", queries[1])).await, expected);
}

/// Memory for everything but what is kept for others.
#[derive(Debug)]
struct Unkept;

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unkept")
    }
}

impl MemoryPool for Unkept {
    fn name(&self) -> &str {
        "Unkept"
    }

    fn grow(&self, _: &MemoryReservation, _: usize) {}

    fn shrink(&self, _: &MemoryReservation, _: usize) {}

    fn try_grow(&self, reservation: &MemoryReservation, _: usize) -> Result<()> {
        match reservation.consumer().name() {
            "SharedExec" => Err(DataFusionError::ResourcesExhausted("nothing is kept".into())),
            _ => Ok(()),
        }
    }

    fn reserved(&self) -> usize {
        0
    }
}

#[tokio::test]
async fn rows_that_a_join_does_not_want_are_not_grouped() {
    let folder = tempfile::tempdir().unwrap();
    let both = Both::new();
    with_files(&both, folder.path()).await;
    let sql = "select m.id, g.c from middle m join (select k, count(*) as c, sum(v) as s from files group by k) g on m.k = g.k \
               where m.id < 5";
    both.check(sql, "DynamicFilter").await;
    let left_out = measured(&both.ours, sql, "pushdown_rows_pruned").await;
    assert!(left_out > 2000, "{left_out}");
    both.check(&sql.replace("m.id < 5", "m.id < 0"), "DynamicFilter").await;
    both.check(&sql.replace("group by k) g", "group by k having count(*) > 5) g"), "DynamicFilter").await;
}

#[tokio::test]
async fn rows_that_a_join_does_not_want_are_not_grouped_where_conditions_stand_between() {
    let folder = tempfile::tempdir().unwrap();
    let both = Both::new();
    with_files(&both, folder.path()).await;
    let grouped = "select m.id, g.c from middle m join (select k, count(*) as c from files where v < 40 group by k) g on m.k = g.k";
    let few = format!("{grouped} where m.id < 5");
    both.check(&few, "WantedRowsExec").await;
    let left_out = measured(&both.ours, &few, "left_out").await;
    assert!(left_out > 1000, "{left_out}");
    for sql in [
        format!("{grouped} where m.id < 0"),
        format!("{grouped} where m.id < 5 and g.c > 1"),
        format!("{grouped} where m.id > 5 order by 1, 2 limit 7"),
        format!("select x.id, y.c from ({grouped}) y join small x on x.k = y.id"),
    ] {
        both.check(&sql, "WantedRowsExec").await;
    }
    // The join right above a scan looks its rows up itself.
    for sql in
        ["select f.k from files f join middle m on f.k = m.k where m.id < 5", "select v from files order by v limit 3"]
    {
        let plan = both.plan(sql).await;
        assert!(!plan.contains("WantedRowsExec"), "{plan}");
    }
}

/// `rows` rows in two partitions whose keys lie together: four of each, and those that are null; or apart.
fn keyed(rows: usize, together: bool) -> MemTable {
    let key = |row: usize| {
        let group = if together { row / 4 } else { row * 7919 % (rows / 4) };
        (group >= 50).then_some(group as i64)
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new((0..rows).map(key).collect::<Int64Array>())),
        (
            "t",
            Arc::new(
                (0..rows)
                    .map(|row| key(row).map(|key| format!("a key of some length {key}")))
                    .collect::<StringViewArray>(),
            ),
        ),
        ("v", Arc::new(Int64Array::from(numbers(5, rows, 90)))),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.unwrap();
    let batch = &batch;
    let half = |start: usize| {
        (start..start + rows / 2).step_by(5000).map(move |at| batch.slice(at, 5000.min(start + rows / 2 - at)))
    };
    let partitions = [0, rows / 2].map(|start| half(start).collect());
    MemTable::try_new(batch.schema(), partitions.to_vec()).unwrap()
}

#[tokio::test]
async fn groups_that_lie_together_need_no_table() {
    let both = Both::new();
    for (name, together) in [("together", true), ("apart", false)] {
        for context in [&both.plain, &both.ours] {
            context.register_table(name, Arc::new(keyed(160_000, together))).unwrap();
        }
    }
    let queries = [
        "select k, sum(v), count(*), min(v), max(t), count(v) filter (where v > 40) from T group by k",
        "select k, median(v), stddev(v), bool_or(v > 80), bit_xor(v), approx_distinct(v), string_agg(t, ','), min(t) from T group by k",
        "select t, k + 1 as next, avg(v), count(distinct v) from T where v <> 3 group by t, k + 1",
        "select sum(s), count(*) from (select k, sum(v) as s from T group by k having count(*) > 1)",
        "select k from T group by k order by k limit 7",
        "select distinct t from T",
    ];
    for sql in queries {
        for (name, adjacent) in [("together", true), ("apart", false)] {
            let sql = sql.replace('T', name);
            both.check(&sql, "AggregateExec").await;
            let found = measured(&both.ours, &sql, "adjacent_groups").await;
            assert!(found > 0 || !adjacent || sql.contains("limit"), "{sql}: {found}");
            assert!(found == 0 || adjacent, "{sql}: {found}");
        }
    }
}
