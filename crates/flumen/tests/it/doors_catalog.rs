//! The catalog behind the door: lists that one odd table does not break, and the catalog's tables together with the lake's.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::doors::{project, server};
use crate::postgres::good;
use crate::server::Server;

/// The rows of `sql`, a line each, values separated by `|`; or the message and the code of the error.
pub async fn rows(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => {
            let row = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    let cells: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect();
                    Some(cells.join("|"))
                }
                _ => None,
            };
            messages.iter().filter_map(row).collect::<Vec<_>>().join("\n")
        }
        Err(error) => {
            let error = error.as_db_error().unwrap();
            format!("{}: {}", error.code().code(), error.message())
        }
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_listed_and_hides_no_other() {
    let sandbox = project();
    sandbox.write("gone.csv", "a\n1\n");
    good(&sandbox, "flumen sql \"create external table ext.gone stored as csv location 'gone.csv'\" && rm gone.csv");
    sandbox.write("lake/raw/broken/_delta_log/00000000000000000000.json", "nothing");
    let newer = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["telepathy"],"writerFeatures":["telepathy"]}}
{"metaData":{"configuration":{},"format":{"options":{},"provider":"parquet"},"id":"1","partitionColumns":[],"schemaString":"{\"type\":\"struct\",\"fields\":[]}"}}
"#;
    sandbox.write("lake/raw/newer/_delta_log/00000000000000000000.json", newer);
    let columns = "select count(*) as n from information_schema.columns where table_name = 'people'";
    let loads = "select count(*) as n from flumen.loads where dataset = 'lake.raw.people'";
    let said = good(&sandbox, &format!("flumen sql --format csv \"{columns}\" && flumen sql --format csv \"{loads}\""));
    assert!(said.starts_with("n\n6\nn\n1\n"), "{said}");
    for table in ["raw.broken", "raw.newer"] {
        assert!(said.contains(&format!("{table} is left out, since it cannot be read")), "{said}");
    }
    let server = Server::start(sandbox, &[]);
    let said = server.psql("me", "\\d\n\\dt+ *.*\n\\df+ abs\n\\d raw.people\n\\d ext.gone\n\\d raw.broken\n");
    assert!(!said.contains("ERROR"), "{said}");
    for table in ["gone", "broken", "newer", "people", "others"] {
        assert!(said.contains(&format!(" {table} ")), "{table} is not in {said}");
    }
    let said = server.psql("me", &format!("{loads};"));
    assert!(said.contains("WARNING:  raw.broken is left out, since it cannot be read"), "{said}");
    let client = server.connect("me").await.unwrap();
    // A block goes on, too.
    client.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&client, columns).await, "6");
    let mixed =
        "select count(*) from information_schema.columns c, raw.people p where p.id = 1 and c.table_name = 'people'";
    assert_eq!(rows(&client, mixed).await, "6");
    assert_eq!(rows(&client, loads).await, "1");
    client.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn tables_of_the_catalog_go_together_with_those_of_the_lake() {
    let server = server();
    let client = server.connect("me").await.unwrap();
    for (sql, expect) in [
        (
            "select c.relname, p.name from pg_class c, raw.people p where c.relname = 'people' and p.id = 1",
            "people|ann",
        ),
        (
            "select relname from pg_catalog.pg_class where relname = 'people' union all \
             select name from raw.people where id = 2 order by 1",
            "bob\npeople",
        ),
        (
            "select n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner) from pg_catalog.pg_class c \
             join pg_namespace n on n.oid = c.relnamespace join raw.people p on p.id = 1 where c.relname = 'others'",
            "mart|others|me",
        ),
        (
            "select tables.table_name, \"name\" from information_schema.tables, raw.people \
             where table_schema = 'mart' and id = 2",
            "others|bob",
        ),
        // What only the engine has, and the catalog's own language lacks.
        ("select md5(relname) from pg_class where relname = 'people'", "12a032ce9179c32a6c7ab397b9d871fa"),
        (
            "select relname, count(*) over () from pg_class where relname in ('people', 'others') order by 1",
            "others|2\npeople|2",
        ),
        ("explain select relname from pg_class", "logical_plan"),
    ] {
        let said = rows(&client, sql).await;
        assert!(said.starts_with(expect), "{sql}: {said}");
    }
    let sql = "select c.relname from pg_class c, raw.people p where p.id = $1 and c.relname = $2";
    let found = client.query(sql, &[&1_i64, &"people"]).await.unwrap();
    assert_eq!(found[0].get::<_, String>(0), "people");
    client
        .batch_execute("create table public.seen as select relname, relkind from pg_class where relname = 'people'")
        .await
        .unwrap();
    client
        .batch_execute(
            "insert into public.seen select table_name, 'x' from information_schema.tables where table_schema = 'mart'",
        )
        .await
        .unwrap();
    assert_eq!(rows(&client, "select * from public.seen order by 1").await, "others|x\npeople|r");
    // Others read a view without the door, which could not.
    let said = rows(&client, "create view public.v as select relname from pg_class").await;
    assert!(said.starts_with("42P01: "), "{said}");
    assert!(rows(&client, "select nothing(relname) from pg_class").await.starts_with("42883: "));
}

#[tokio::test]
async fn a_star_leaves_the_columns_of_every_table_out() {
    let server = server();
    let client = server.connect("me").await.unwrap();
    for sql in
        ["select * from pg_am", "select a.* from pg_am a", "select * from pg_am natural join (select oid from pg_am) b"]
    {
        let statement = client.prepare(sql).await.unwrap();
        let names: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        assert_eq!(names, ["oid", "amname", "amhandler", "amtype"], "{sql}");
    }
    assert_eq!(rows(&client, "select distinct tableoid, xmin from pg_am").await, "2601|1");
}
