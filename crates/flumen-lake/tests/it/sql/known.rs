//! Tables that an engine has read before: what it sees is the newest all the same.

use std::sync::{Arc, Mutex};

use flumen_lake::lake::Lake;
use flumen_testkit::bucket::{Bucket, Dialect};

use super::files::MemoryFiles;
use super::{check, done, engine};

/// The reads of logs, but for the listings that look for newer commits and the hint which says where to begin.
fn of_logs(requests: &Mutex<Vec<String>>) -> Vec<String> {
    let taken = std::mem::take(&mut *requests.lock().unwrap());
    taken.into_iter().filter(|request| request.contains("_delta_log/0") && request.starts_with("GET")).collect()
}

#[tokio::test]
async fn a_log_is_read_again_only_when_something_was_committed() {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&requests);
    let bucket = Bucket::with_faults(Dialect::S3, move |request| {
        noted.lock().unwrap().push(format!("{} {}", request.method, request.key));
        None
    });
    let lake = || Some(Lake::at(format!("{}/lake", bucket.url()).parse().unwrap(), bucket.store()).unwrap());
    let (writer, reader) = (engine(lake(), MemoryFiles::default()), engine(lake(), MemoryFiles::default()));
    assert_eq!(done(&writer, "create table raw.t as select 1 as n").await, "CREATE TABLE AS 1");
    check(&reader, "select n from raw.t", "1").await;
    check(&reader, "select sum(n) from raw.t", "1").await;
    assert_ne!(of_logs(&requests), [""; 0]);
    for _ in 0..3 {
        check(&reader, "select n from raw.t", "1").await;
        check(&reader, "select count(*) from t as a join raw.t as b using (n)", "1").await;
    }
    assert_eq!(of_logs(&requests), [""; 0]);
    for n in 2..5 {
        assert_eq!(done(&writer, &format!("insert into raw.t values ({n})")).await, "INSERT 1");
        check(&reader, "select max(n), count(*) from raw.t", &format!("{n}|{n}")).await;
        check(&reader, "select max(n), count(*) from raw.t", &format!("{n}|{n}")).await;
    }
    of_logs(&requests);
    check(&reader, "select max(n) from raw.t", "4").await;
    assert_eq!(of_logs(&requests), [""; 0]);
    // What was asked for is what is given: another version.
    check(&reader, "select max(n) from raw.t version as of 1", "2").await;
    check(&reader, "select max(n) from raw.t", "4").await;
}

#[tokio::test]
async fn a_table_that_was_made_anew_with_as_many_versions_is_another_one() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lake = |folder: &tempfile::TempDir| engine(Some(Lake::local(folder.path()).unwrap()), MemoryFiles::default());
    let (reader, other) = (lake(&here), lake(&there));
    assert_eq!(done(&reader, "create table raw.t as select 1 as n").await, "CREATE TABLE AS 1");
    assert_eq!(done(&other, "create table raw.t as select 2 as n").await, "CREATE TABLE AS 1");
    for _ in 0..3 {
        check(&reader, "select n from raw.t", "1").await;
    }
    std::fs::remove_dir_all(here.path().join("raw/t")).unwrap();
    std::fs::rename(there.path().join("raw/t"), here.path().join("raw/t")).unwrap();
    for _ in 0..3 {
        check(&reader, "select n from raw.t", "2").await;
    }
    std::fs::remove_dir_all(here.path().join("raw/t")).unwrap();
    let gone = done(&reader, "select n from raw.t").await;
    assert!(gone.contains("no table"), "{gone}");
}
