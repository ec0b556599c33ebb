//! Eight processes at once.

use flumen_testkit::bucket::Bucket;

use super::place::Place;
use super::work::{ROUNDS, run, wait};
use crate::support::TestLake;

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_append_and_change_the_catalog_and_nothing_is_lost() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::s3());
    many_at(&Place::Folder(folder.path().join("lake"))).await;
    many_at(&Place::Bucket(bucket.endpoint.clone(), "lake".to_owned())).await;
}

async fn many_at(place: &Place) {
    let children: Vec<_> = (0..8).map(|writer| run(&format!("many {writer}"), place, u64::MAX)).collect();
    for child in children {
        let (status, said) = wait(child);
        assert!(status.success(), "{said}");
    }
    let lake = TestLake::on(place.lake(), 1, 0);
    let mut rows: Vec<u64> = lake.rows().await.iter().map(|row| row.parse().unwrap()).collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..8 * ROUNDS).collect::<Vec<_>>(), "every row is there once");
    let snapshot = lake.table().snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot.version() + 1, 8 * ROUNDS, "every load is a version");
    let state = lake.catalog().read().await.unwrap();
    assert_eq!((state.version, state.namespaces.len() as u64), (8 * ROUNDS, 8 * ROUNDS));
}
