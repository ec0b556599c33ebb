//! Files of the server behind the door: what an administrator registered, and a folder that the project allows.

use flumen_testkit::bucket::Bucket;

use crate::doors::project;
use crate::doors_catalog::rows;
use crate::postgres::good;
use crate::server::Server;

#[tokio::test]
async fn external_tables_that_were_registered_are_read_and_what_they_read_cannot_be_named() {
    let bucket = Bucket::s3();
    bucket.put("in/x.csv", "id,name\n1,one\n2,two\n");
    let sandbox = project();
    sandbox.write("flumen.yml", format!("name: p\nconnections: {{ store: {} }}\n", bucket.connection()));
    sandbox.write("elsewhere/x.csv", "a\n7\n");
    good(
        &sandbox,
        "flumen sql \"create external table ext.local stored as csv location 'elsewhere/x.csv'\" && \
         flumen sql \"create external table ext.far stored as csv location 'store://in/x.csv'\"",
    );
    let server = Server::start(sandbox, &[]);
    let client = server.connect("me").await.unwrap();
    assert_eq!(rows(&client, "select a from ext.local").await, "7");
    assert_eq!(rows(&client, "select max(name) from ext.far where id = 2").await, "two");
    let columns = "select column_name from information_schema.columns where table_schema = 'ext' order by 1";
    assert_eq!(rows(&client, columns).await, "a\nid\nname");
    let path = server.sandbox.path().join("elsewhere/x.csv");
    for sql in [
        format!("select * from '{}'", path.display()),
        "select * from 'store://in/x.csv'".to_owned(),
        format!("select * from read_csv('{}')", path.display()),
        format!("select * from read_csv(['{}'], header => true)", path.display()),
        format!("create view public.peek as select * from read_csv('{}')", path.display()),
        format!("copy raw.people to '{}'", path.display()),
        format!("copy raw.people from '{}'", path.display()),
        format!("create external table ext.other stored as csv location '{}'", path.display()),
        "copy raw.people to program 'cat'".to_owned(),
    ] {
        let said = rows(&client, &sql).await;
        assert!(said.starts_with("42501: "), "{sql}: {said}");
    }
}

#[tokio::test]
async fn within_a_folder_that_is_allowed_files_are_read_written_and_made_tables() {
    let sandbox = project();
    sandbox.write("open/in.csv", "a\n1\n");
    sandbox.write("outside/x.csv", "a\n1\n");
    sandbox.write("flumen.yml", "name: p\nserve: { files: open }\n");
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(sandbox.path().join(to), sandbox.path().join("open").join(name)).unwrap();
    };
    link("outside", "out");
    link("outside/x.csv", "linked.csv");
    link("outside/new.csv", "dangling.csv");
    good(&sandbox, "echo s3cret | flumen user add ann && echo p4ss | flumen user add reader --read-only");
    let server = Server::start(sandbox, &[]);
    let client = server.connect("ann:s3cret").await.unwrap();
    client.batch_execute("copy (select id, name from raw.people) to 'made/people.parquet'").await.unwrap();
    client.batch_execute("copy raw.people (id) to 'made/ids.csv'").await.unwrap();
    client.batch_execute("create external table ext.made stored as parquet location 'made/*.parquet'").await.unwrap();
    client.batch_execute("create external table ext.given stored as csv location 'in.csv'").await.unwrap();
    assert_eq!(rows(&client, "select count(*), max(name) from ext.made").await, "3|bob");
    assert_eq!(rows(&client, "select a from ext.given").await, "1");
    assert_eq!(rows(&client, "select a from read_csv('in.csv', header => true)").await, "1");
    client.batch_execute("create table public.t (a bigint); copy public.t from 'in.csv'").await.unwrap();
    assert_eq!(rows(&client, "select a from public.t").await, "1");
    let outside = server.sandbox.path().join("outside");
    let names = ["../outside/x.csv", "out/x.csv", "linked.csv", "made/../../outside/x.csv", "file:///etc/passwd"];
    let names = names.map(str::to_owned).into_iter().chain([outside.join("x.csv").display().to_string()]);
    for name in names {
        for sql in [
            format!("select * from '{name}'"),
            format!("select * from read_csv('{name}')"),
            format!("copy public.t to '{name}'"),
            format!("copy public.t from '{name}'"),
            format!("create external table ext.bad stored as csv location '{name}'"),
        ] {
            let said = rows(&client, &sql).await;
            assert!(said.starts_with("42501: "), "{sql}: {said}");
        }
    }
    for name in ["out/new.csv", "out/deep/new.csv", "dangling.csv"] {
        let said = rows(&client, &format!("copy public.t to '{name}'")).await;
        assert!(said.starts_with("42501: "), "{name}: {said}");
    }
    let said = rows(&client, "create external table ext.bad stored as csv location 'o*/x.csv'").await;
    assert!(said.starts_with("42501: "), "{said}");
    let said = rows(&client, "create external table ext.bad stored as delta location 'made'").await;
    assert!(said.starts_with("42501: "), "{said}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(outside.join("x.csv")).unwrap(), "a\n1\n");
    let reader = server.connect("reader:p4ss").await.unwrap();
    assert_eq!(rows(&reader, "select a from ext.given").await, "1");
    for sql in ["copy public.t to 'x.csv'", "create external table ext.bad stored as csv location 'in.csv'"] {
        let said = rows(&reader, sql).await;
        assert!(said.starts_with("42501: ") || said.starts_with("25006: "), "{sql}: {said}");
    }
}
