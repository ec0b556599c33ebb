//! Maintenance: retention by a column, compaction when it pays and nobody writes.

use flumen_core::limits::MAINTAIN_SMALL_FILES;
use flumen_lake::catalog::{Entry, PROD, Retention};
use flumen_lake::ops::maintain::maintain;

use crate::catalog::names::name;
use crate::support::{Load, TestLake};

#[tokio::test(flavor = "multi_thread")]
async fn rows_past_their_retention_go() {
    for lake in [TestLake::local(), TestLake::memory()] {
        lake.load(&Load::new("a", &["n", "day:date"], &["1|2013-01-01", "2|2023-11-01", "3|"])).await.unwrap();
        lake.load(&Load::new("b", &["n", "day:date"], &["4|2023-11-10"])).await.unwrap();
        lake.catalog()
            .edit(PROD, &name("raw.t"), "retention", |entry| {
                if let Entry::Table(table) = entry {
                    table.retention = Some(Retention { keep_s: 365 * 86_400, column: Some("day".to_owned()) });
                }
                Ok(())
            })
            .await
            .unwrap();
        let done = maintain(&lake.catalog(), u64::MAX).await.unwrap();
        assert_eq!((done.len(), done[0].expired_files, &done[0].problem), (1, 1, &None));
        assert_eq!(lake.rows().await, ["2|2023-11-01", "3|", "4|2023-11-10"]);
        assert!(maintain(&lake.catalog(), u64::MAX).await.unwrap().is_empty(), "nothing is left to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_compacted_when_they_are_many_and_nobody_writes() {
    let lake = TestLake::memory();
    let load = async |number: usize| {
        lake.load(&Load::new(&format!("l{number}"), &["n"], &["1"])).await.unwrap();
    };
    for number in 1..MAINTAIN_SMALL_FILES {
        load(number).await;
    }
    let later = |days| TestLake::on(lake.lake.clone(), (days + 1) << 40, days).catalog();
    assert!(maintain(&later(1), u64::MAX).await.unwrap().is_empty(), "too few");
    load(0).await;
    assert!(maintain(&lake.catalog(), u64::MAX).await.unwrap().is_empty(), "somebody has just written");
    assert!(maintain(&later(1), 10).await.unwrap().iter().all(|done| done.optimized.files_before == 0), "no budget");
    let done = maintain(&later(1), u64::MAX).await.unwrap();
    assert_eq!(done[0].optimized.files_before, MAINTAIN_SMALL_FILES as u64);
    assert_eq!(lake.rows().await.len(), MAINTAIN_SMALL_FILES);
}
