//! Tables of a Postgres connection in SQL, through the program, with a real server: what the server is asked, and that the
//! answers are those of the same rows in the lake.

use crate::postgres::{bad, good, project, project_of};
use crate::sandbox::Sandbox;
use flumen_testkit::postgres::{Database, Server};

/// Two tables, with whatever makes a difference between Postgres and here: names with capitals, nulls, texts whose order
/// depends on the collation, numbers of every kind.
const TABLES: &str = r#"
    create table zones ("LocationID" int primary key, "Zone" text, borough varchar(20) not null);
    insert into zones values (1, 'Astoria', 'Queens'), (2, 'chelsea', 'Manhattan'), (3, 'Éclair', 'Queens'),
        (4, null, 'Bronx'), (5, 'it''s \ here', 'Bronx');
    create table trips (id bigint, zone int, fare numeric(10,2), dist double precision, picked timestamp,
        seen timestamptz, day date, ok boolean, note text, small smallint, ratio real, huge numeric, code char(5),
        who uuid, tags text[]);
    insert into trips
        select i, case when i % 7 = 0 then null else i % 5 + 1 end, (i * 37 % 1000) / 100.0 - 2,
            case when i % 11 = 0 then null else i / 8.0 end,
            timestamp '2019-01-01 00:00:00.123456' + i * interval '1 hour',
            timestamptz '2019-01-01 00:00:00+02' + i * interval '1 day', date '2019-01-01' + i,
            case i % 3 when 0 then true when 1 then false end,
            case i % 4 when 0 then null when 1 then 'a' when 2 then 'B' else 'ä%_' end, i % 100,
            i / 4.0::real, i * 1e30, 'x' || i % 3, md5(i::text)::uuid,
            case when i % 2 = 0 then array['a', null] end
        from generate_series(1, 500) i;
    analyze;
"#;

/// Rows as CSV.
fn rows(sandbox: &Sandbox, query: &str) -> String {
    let mut command = sandbox.command("flumen");
    let output = command.args(["sql", "--format", "csv", query]).output().unwrap();
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The queries that the server is sent for `query`, a line each.
fn sent(sandbox: &Sandbox, query: &str) -> String {
    let plan = rows(sandbox, &format!("explain format indent {query}"));
    let sent = plan.lines().filter_map(|line| line.split_once("DatabaseExec: connection=pg, sql="));
    // Quotes are doubled, and the last one ends the value.
    sent.map(|(_, sql)| sql.replace("\"\"", "\0").replace('"', "").replace('\0', "\"") + "\n").collect()
}

async fn with_tables() -> (Sandbox, Database) {
    let (sandbox, database) = project().await;
    database.run(TABLES).await;
    (sandbox, database)
}

#[tokio::test]
async fn what_the_server_can_do_is_left_to_it() {
    let (sandbox, _database) = with_tables().await;
    let check = |query: &str, expect: &str| assert_eq!(sent(&sandbox, query), expect, "{query}");
    // Columns and conditions of a scan.
    check(
        "select zone from pg.public.zones where borough = 'Queens' and locationid in (1, 3, 5, 7)",
        "select t1.\"Zone\" from \"public\".\"zones\" as t1 \
         where (t1.\"borough\" = 'Queens') and (t1.\"LocationID\" in (1, 3, 5, 7))\n",
    );
    check(
        "select id from pg.public.trips where picked >= timestamp '2019-01-03 00:00:00' and fare > 1.5 and ok limit 7",
        "select t1.\"id\" from \"public\".\"trips\" as t1 where (t1.\"picked\" >= timestamp '2019-01-03 00:00:00') and \
         (t1.\"fare\" > 1.50) and t1.\"ok\" limit 7\n",
    );
    check("select count(*) from pg.public.trips", "select count(*) from \"public\".\"trips\" as t1\n");
    check(
        "select zone, count(*) as n, sum(fare) from pg.public.trips where note like 'a%' group by zone",
        "select t1.\"zone\", count(*), (sum(t1.\"fare\"))::numeric(20,2) from \"public\".\"trips\" as t1 \
         where (t1.\"note\" like 'a%') group by t1.\"zone\"\n",
    );
    // The first rows of an order.
    check(
        "select id, dist from pg.public.trips order by dist desc, id limit 3",
        "select t1.\"id\", t1.\"dist\" from \"public\".\"trips\" as t1 \
         order by t1.\"dist\" desc nulls first, t1.\"id\" nulls last limit 3\n",
    );
    // A join of two tables of the same database, and what is done with it.
    let joined = sent(
        &sandbox,
        "select z.borough, count(*) from pg.public.trips t join pg.public.zones z on t.zone = z.locationid \
         where t.ok group by z.borough having count(*) > 3",
    );
    assert_eq!(joined.lines().count(), 1, "{joined}");
    for part in [" join ", " group by t", "\"zone\" = t", ".\"ok\"", "count(*)", " > 3"] {
        assert!(joined.contains(part), "{part}: {joined}");
    }
    // With a table of the lake, each side gets its own.
    good(&sandbox, "flumen sql 'create table raw.visits as select 1 as zone_id, 5 as n'");
    check(
        "select sum(n) from raw.visits v join pg.public.zones z on v.zone_id = z.locationid where z.borough = 'Queens'",
        "select t1.\"LocationID\" from \"public\".\"zones\" as t1 where (t1.\"borough\" = 'Queens')\n",
    );
}

#[tokio::test]
async fn what_the_server_means_otherwise_is_done_here() {
    let (sandbox, _database) = with_tables().await;
    for (query, not_sent) in [
        // Order and case of texts depend on the collation.
        ("select id from pg.public.trips where note > 'a'", "where"),
        ("select id from pg.public.trips where note between 'a' and 'b'", "where"),
        ("select id from pg.public.trips where lower(note) = 'a'", "where"),
        ("select id from pg.public.trips where note ilike 'A'", "where"),
        ("select note from pg.public.trips order by note limit 3", "order"),
        ("select max(note) from pg.public.trips", "max"),
        // Blanks at the end do not count for the server; a number of any length is text here.
        ("select id from pg.public.trips where code = 'x1'", "where"),
        ("select id from pg.public.trips where cast(huge as double) > 1e31", "where"),
        // It knows them, but may do them otherwise.
        ("select id from pg.public.trips where dist / 3 > 1", "where"),
        ("select stddev(dist) from pg.public.trips", "stddev"),
        ("select zone, row_number() over (order by id) from pg.public.trips", "row_number"),
    ] {
        let sent = sent(&sandbox, query);
        assert_eq!(sent.lines().count(), 1, "{query}: {sent}");
        assert!(!sent.contains(not_sent), "{query}: {sent}");
    }
}

#[tokio::test]
async fn answers_are_those_of_the_same_rows_in_the_lake() {
    let (sandbox, _database) = with_tables().await;
    good(
        &sandbox,
        "flumen sql 'create table raw.trips as select * from pg.public.trips; \
         create table raw.zones as select * from pg.public.zones'",
    );
    for query in [
        "select * from TRIPS order by id",
        "select * from ZONES order by locationid",
        "select id from TRIPS where fare > 1.5 and (ok or dist is null) order by id",
        "select id from TRIPS where not ok order by id",
        "select id from TRIPS where ok is not true order by id",
        "select id from TRIPS where note = 'ä%_' or note in ('B') order by id",
        "select id from TRIPS where note <> 'a' order by id",
        "select id from TRIPS where note like '%\\%' order by id",
        "select id from TRIPS where note like 'ä%' order by id",
        "select id from TRIPS where note > 'B' order by id",
        "select id from TRIPS where note is distinct from 'a' order by id",
        "select id from TRIPS where code = 'x1' order by id",
        "select locationid from ZONES where zone = 'it''s \\ here'",
        "select id from TRIPS where picked > timestamp '2019-01-05 10:00:00.123456' order by id",
        "select id from TRIPS where seen = timestamptz '2019-01-05 22:00:00+00'",
        "select id from TRIPS where day between date '2019-02-01' and date '2019-02-05' order by id",
        "select id from TRIPS where zone + id * 2 - small > 300 and id % 3 = 1 and id / 7 = 40 order by id",
        "select id from TRIPS where dist > 20.5 and ratio < 50 order by id",
        "select id from TRIPS where -fare > 0.5 and abs(fare) < 1 order by id",
        "select id from TRIPS where coalesce(zone, 9) = 9 order by id",
        "select id from TRIPS where case when ok then fare else dist end > 7 order by id",
        "select id from TRIPS where length(note) = 3 order by id",
        "select id from TRIPS where huge = '1000000000000000000000000000000' order by id",
        "select id from TRIPS order by fare desc, id limit 5",
        "select id from TRIPS order by dist, id limit 5",
        "select id from TRIPS order by dist desc nulls last, id limit 5 offset 3",
        "select note from TRIPS order by note limit 200",
        "select count(*), count(note), count(distinct note), count(distinct zone) from TRIPS",
        "select sum(id), sum(zone), sum(small), sum(fare), min(fare), max(picked), min(day), max(seen) from TRIPS",
        "select avg(fare), avg(dist), avg(id), round(sum(dist), 6), max(note) from TRIPS",
        "select zone, count(*), avg(fare), sum(fare * fare) from TRIPS group by zone order by zone",
        "select note, sum(fare) filter (where ok) from TRIPS group by note order by note",
        "select date_trunc('month', picked) as m, date_part('day', day) as d, count(*) from TRIPS group by 1, 2 order by 1, 2",
        "select extract(year from seen), count(*) from TRIPS group by 1 order by 1",
        "select distinct zone, ok from TRIPS order by zone, ok",
        "select ok, count(*) as n from TRIPS group by ok having count(*) > 10 order by n, ok",
        "select 1 as one, count(*) from TRIPS where id < 0",
        "select sum(fare) from TRIPS where id < 0",
        "select z.borough, z.\"Zone\", count(t.id), sum(t.fare) from ZONES z left join TRIPS t on t.zone = z.locationid \
         and t.ok group by z.borough, z.\"Zone\", z.locationid order by z.locationid",
        "select t.id, z.\"Zone\" from TRIPS t join ZONES z on t.zone = z.locationid where z.borough = 'Queens' \
         order by t.id limit 9",
        "select a.id, b.id from TRIPS a join TRIPS b on a.id = b.id + 1 where a.fare < b.fare order by a.id",
        "select locationid from ZONES where locationid in (select zone from TRIPS where id < 9) order by 1",
        "select locationid from ZONES z where not exists (select 1 from TRIPS t where t.zone = z.locationid and t.id < 3) \
         order by 1",
        "select borough, n from (select borough, count(*) as n from ZONES group by borough) where n = 2 order by borough",
        "select max(n) from (select zone, sum(id) / 2 as n from TRIPS group by zone)",
        "select count(*) from (select id from TRIPS order by id limit 10) where id > 5",
        "select (select max(fare) from TRIPS) - fare as less from TRIPS where id < 4 order by id",
        "select borough from ZONES union all select note from TRIPS where id = 1 order by 1",
        "select id, tags from TRIPS where tags is not null order by id limit 3",
    ] {
        let of = |catalog: &str| {
            query.replace("TRIPS", &format!("{catalog}.trips")).replace("ZONES", &format!("{catalog}.zones"))
        };
        assert_eq!(rows(&sandbox, &of("pg.public")), rows(&sandbox, &of("lake.raw")), "{query}");
        // Half and half.
        let mixed = query.replace("TRIPS", "pg.public.trips").replace("ZONES", "lake.raw.zones");
        assert_eq!(rows(&sandbox, &mixed), rows(&sandbox, &of("lake.raw")), "{query}");
    }
}

#[tokio::test]
async fn names_types_and_lists_are_those_of_the_database() {
    let (sandbox, database) = with_tables().await;
    database
        .run(
            "create schema \"Odd Name\"; create table \"Odd Name\".\"T 1\" (\"a b\" int, \"select\" text, j jsonb); \
             insert into \"Odd Name\".\"T 1\" values (1, 'x', '{\"k\": 1}'); \
             create view busy as select zone, count(*) as n from trips group by zone; \
             create type mood as enum ('happy', 'sad'); create table moods (m mood, t time, b bytea); \
             insert into moods values ('sad', '10:00:00.5', '\\x00ff')",
        )
        .await;
    assert_eq!(
        rows(&sandbox, "select \"a b\", \"select\", j from pg.\"Odd Name\".\"T 1\" where \"select\" = 'x'"),
        "a b,select,j\n1,x,\"{\"\"k\"\": 1}\"\n"
    );
    assert_eq!(rows(&sandbox, "select n from pg.public.busy where zone = 3"), "n\n85\n");
    assert_eq!(rows(&sandbox, "select * from pg.public.moods where m = 'sad'").lines().count(), 2);
    let listed = good(&sandbox, "echo '\\dt pg' | flumen sql");
    assert!(listed.contains("Odd Name  T 1\n") && listed.contains("public    busy\n"), "{listed}");
    assert_eq!(
        rows(
            &sandbox,
            "select table_schema, table_name from pg.information_schema.tables \
             where table_catalog = 'pg' and table_schema <> 'information_schema' order by 1, 2"
        ),
        "table_schema,table_name\nOdd Name,T 1\npublic,busy\npublic,moods\npublic,trips\npublic,zones\n"
    );
    assert_eq!(
        rows(
            &sandbox,
            "select column_name, is_nullable from pg.information_schema.columns \
             where table_catalog = 'pg' and table_name = 'zones' order by 1"
        ),
        "column_name,is_nullable\nLocationID,NO\nZone,YES\nborough,NO\n"
    );
    let described = good(&sandbox, "echo '\\d pg.public.trips' | flumen sql");
    assert!(
        described.contains("fare    decimal(10,2)\n") && described.contains("seen    timestamptz\n"),
        "{described}"
    );
    // A view of the lake over a table of the database, and rows that are brought in.
    good(&sandbox, "flumen sql 'create view raw.queens as select * from pg.public.zones where borough = $$Queens$$'");
    assert_eq!(rows(&sandbox, "select count(*) from raw.queens"), "count(*)\n2\n");
}

#[tokio::test]
async fn the_database_is_read_and_never_changed() {
    let (sandbox, database) = with_tables().await;
    for statement in [
        "insert into pg.public.zones values (9, null, null)",
        "delete from pg.public.zones",
        "update pg.public.zones set borough = null",
        "create table pg.public.new as select 1",
        "drop table pg.public.zones",
        "truncate table pg.public.zones",
    ] {
        let said = bad(&sandbox, &format!("flumen sql \"{statement}\""), 2, "which SQL only reads");
        assert!(said.contains("copy (select …) to 'pg.public."), "{said}");
    }
    database.run("create sequence s; create view writes as select nextval('s') as n").await;
    bad(
        &sandbox,
        "flumen sql 'select * from pg.public.writes'",
        2,
        "cannot execute nextval() in a read-only transaction",
    );
    // What has no counterpart is no null.
    database.run("create table odd (d date); insert into odd values ('infinity')").await;
    bad(&sandbox, "flumen sql 'select * from pg.public.odd'", 6, "the value 'infinity' of column 'd'");
    assert_eq!(database.show("select count(*) from zones").await, "5");
    // One connection a session, and none that stays behind.
    let others =
        "select count(*) from pg_stat_activity where application_name = 'flumen' and datname = current_database()";
    let query = "select count(*) from pg.public.zones;".repeat(3);
    assert_eq!(good(&sandbox, &format!("flumen sql --format csv '{query}'")).matches("\n5\n").count(), 3);
    while database.show(others).await != "0" {}
}

#[tokio::test]
async fn errors_name_what_is_wrong() {
    let (sandbox, _database) = with_tables().await;
    let said = bad(&sandbox, "flumen sql 'select * from pg.public.zoness'", 3, "there is no table public.zoness");
    assert!(said.contains("did you mean 'public.zones'?"), "{said}");
    let said = bad(&sandbox, "flumen sql 'select zoone from pg.public.zones'", 3, "there is no column 'zoone'");
    assert!(said.contains("did you mean 'Zone'?"), "{said}");
    let said = bad(&sandbox, "flumen sql 'select * from pq.public.zones'", 3, "'pq' is no catalog");
    assert!(said.contains("did you mean 'pg'?"), "{said}");
    good(&sandbox, "flumen connection add files --kind local --set root=.");
    bad(&sandbox, "flumen sql 'select * from files.a.b'", 2, "connection 'files' is of kind local");
    good(&sandbox, "flumen connection add off --kind postgres --set host=127.0.0.1 --set port=1 --set user=me");
    bad(&sandbox, "flumen sql 'select * from off.public.t'", 5, "nothing listens on 127.0.0.1, port 1");
    // Whoever names no connection opens none.
    assert_eq!(
        rows(&sandbox, "select count(*) from information_schema.tables where table_catalog <> 'lake'"),
        "count(*)\n0\n"
    );
}

#[tokio::test]
async fn a_server_that_goes_away_is_named() {
    let server = Server::start().unwrap();
    let database = server.database().await;
    database.run("create table t (n int); insert into t select generate_series(1, 10)").await;
    let sandbox = project_of(&database);
    assert_eq!(rows(&sandbox, "select sum(n) from pg.public.t"), "sum(n)\n55\n");
    server.stop();
    bad(&sandbox, "flumen sql 'select sum(n) from pg.public.t'", 5, "nothing listens on 127.0.0.1");
}
