//! What the columns of answers are called, and that their names change nothing else.

use flumen_core::sql::SqlEngine;

use super::files::MemoryFiles;
use super::{check, engine, text};

#[tokio::test]
async fn columns_are_called_as_they_were_written() {
    let engine = engine(None, MemoryFiles::trips());
    for (sql, expect) in [
        ("select round(avg(fare), 2), count(*), 1 from 'trips.csv'", "round(avg(fare), 2)|count(*)|1"),
        ("select zone, sum(Fare) as s from 'trips.csv' group by zone", "zone|s"),
        ("select ZONE, t.fare, t.fare*2 from 'trips.csv' t", "zone|fare|t.fare * 2"),
        ("select sum(fare) from 'trips.csv' union all select 1", "sum(fare)"),
        ("with c as (select max(fare) from 'trips.csv') select *, 1 from c", "max(trips.csv.fare)|1"),
        ("select a.zone, b.zone from 'trips.csv' a, 'trips.csv' b", "zone|zone_2"),
        ("select 1, 1", "1|1_2"),
        ("select *, fare * 2 as fare from 'trips.csv'", "zone|fare|fare_2"),
        ("select 1 as fare, *, fare * 2 as Zone, 'x' as \"X\" from 'trips.csv'", "fare|zone|fare_2|zone_2|X"),
        ("values (1, 2)", "column1|column2"),
        (
            "select 'x'::text, date_trunc('month', date '2019-01-02')",
            "'x'::TEXT|date_trunc('month', DATE '2019-01-02')",
        ),
    ] {
        let schema = engine.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).schema;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names.join("|"), expect, "{sql}");
    }
}

#[tokio::test]
async fn names_change_nothing_else() {
    let engine = engine(None, MemoryFiles::trips());
    for (sql, expect) in [
        ("select zone, sum(fare) from 'trips.csv' group by zone order by sum(fare) desc", "a|4\nb|2"),
        ("select distinct fare + 1 from 'trips.csv' order by 1", "2\n3\n4"),
        ("select upper(zone) from 'trips.csv' group by upper(zone) having count(*) > 1", "A"),
        ("select fare, 1, 1 from 'trips.csv' where fare > 2 order by 1", "3|1|1"),
        ("create table t as select zone, count(*), sum(fare) from 'trips.csv' group by 1", ""),
        ("select \"count(*)\", \"sum(fare)\" from t order by 1", "1|2\n2|4"),
        ("create view v as select max(fare) from 'trips.csv'", ""),
        ("select \"max(fare)\" from v", "3"),
    ] {
        check(&engine, sql, expect).await;
    }
    assert!(text(&engine, "select \"count(*)\" from 'trips.csv'").await.starts_with("not_found: "));
}
