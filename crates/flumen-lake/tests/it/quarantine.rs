//! Refused rows, and files that are taken over.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use flumen_core::write::{RefusedRows, Sink, quarantine_schema};
use parquet::arrow::ArrowWriter;

use crate::support::{Load, TestLake};

fn refused(reason: &str) -> RecordBatch {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let number = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let at = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"));
    let columns = vec![
        text("load"),
        text("a.csv"),
        number(1),
        number(2),
        text("n"),
        text("x"),
        text(reason),
        text("failed"),
        text("x,y"),
        at,
    ];
    RecordBatch::try_new(quarantine_schema(), columns).unwrap()
}

fn rows(reasons: &[&str]) -> RefusedRows {
    let batches: Vec<_> = reasons.iter().map(|reason| Ok(refused(reason))).collect();
    Box::new(batches.into_iter())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_kept_once_also_when_the_load_fails() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let load = Load::new("a", &["n"], &["1"]);
        let (session, _) = lake.write(&load).await.unwrap();
        session.quarantine(rows(&["first try"])).await.unwrap();
        session.abort().await.unwrap();
        let (session, record) = lake.write(&load).await.unwrap();
        session.quarantine(rows(&["second try", "second try"])).await.unwrap();
        session.commit(&record).await.unwrap();
        let (session, _) = lake.write(&Load::new("b", &["n"], &["1"])).await.unwrap();
        session.quarantine(rows(&["b"])).await.unwrap();
        drop(session);
        let table = lake.table().quarantine().unwrap();
        let files = table.snapshot().await.unwrap().unwrap().files().unwrap();
        let mut rows: Vec<_> = files.iter().map(|file| file.stats.as_ref().unwrap().num_records.unwrap()).collect();
        rows.sort();
        assert_eq!(rows, [1, 2]);
        assert_eq!(lake.rows().await, ["1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fits_is_taken_over_as_it_is() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.parquet");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("s", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
            ("n", Arc::new(Int64Array::from(vec![3, 1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let load = Load::new("a", &["n", "s:text"], &[]);
        let request = load.request(Default::default());
        let record = load.record(&request);
        let session = lake.sink().begin(request).await.unwrap();
        assert!(session.takes_over(&batch.schema()));
        let from = path.clone();
        let session = tokio::task::spawn_blocking(move || {
            assert_eq!(session.take_over(&from).unwrap(), 3);
            let broken = from.with_file_name("broken.parquet");
            std::fs::write(&broken, "PAR1 no footer").unwrap();
            assert!(
                session
                    .take_over(&broken)
                    .unwrap_err()
                    .to_string()
                    .contains("broken.parquet: the Parquet file is broken")
            );
            session
        });
        session.await.unwrap().commit(&record).await.unwrap();
        assert!(path.exists());
        assert_eq!(lake.rows().await, ["1|b", "2|c", "3|a"]);
        let file = lake.table().snapshot().await.unwrap().unwrap().files().unwrap().remove(0);
        assert_eq!(file.size, std::fs::metadata(&path).unwrap().len());
        assert_eq!(file.stats.unwrap().max_values.get("n").unwrap(), 3);
        lake.undo("a").await.unwrap();
        assert!(lake.rows().await.is_empty());
    }
}
