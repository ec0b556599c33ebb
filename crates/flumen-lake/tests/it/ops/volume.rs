//! Volumes: files in, files out.

use flumen_core::ErrorKind;
use flumen_lake::ops::check::{CheckOptions, check};
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};
use flumen_lake::ops::volume::PutOptions;
use futures::TryStreamExt;

use crate::catalog::names::{name, names};
use crate::support::TestLake;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_listed_got_replaced_and_removed() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let catalog = lake.catalog();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [(file("cat.PNG", "a cat"), "2024/cat.PNG".to_owned()), (file("empty", ""), "empty".to_owned())];
        let put = catalog.put_files(&name("files.images"), &files, &PutOptions::default()).await.unwrap();
        assert_eq!((put[0].media_type.as_str(), put[0].size, put[1].size), ("image/png", 5, 0));
        let get = async |path: &str| {
            let (_, stream) = catalog.get_file(&name("files.images"), path).await.unwrap();
            let bytes: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
            String::from_utf8(bytes.concat()).unwrap()
        };
        assert_eq!(get("2024/cat.PNG").await, "a cat");
        assert_eq!(get("empty").await, "");
        let again = [(file("cat.PNG", "another cat"), "2024/cat.PNG".to_owned())];
        catalog.put_files(&name("files.images"), &again, &PutOptions::default()).await.unwrap();
        assert_eq!(get("2024/cat.PNG").await, "another cat");
        assert!(names(&catalog, "prod").await.is_empty(), "a volume is no table");
        let report = check(&catalog, &CheckOptions { only: Vec::new(), deep: true }).await.unwrap();
        assert_eq!((report.findings.len(), report.files), (0, 2), "{report:?}");
        let later = TestLake::on(lake.lake.clone(), 1 << 40, 4_000);
        assert!(vacuum(&later.catalog(), &VacuumOptions::default()).await.unwrap().is_empty());

        let error = catalog.remove_files(&name("files.images"), "2024").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(catalog.remove_files(&name("files.images"), "2024/").await.unwrap(), ["2024/cat.PNG"]);
        assert_eq!(catalog.remove_files(&name("files.images"), "").await.unwrap(), ["empty"]);
        assert!(catalog.read().await.unwrap().volumes.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_stay_within_the_volume() {
    let lake = TestLake::memory();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("x");
    std::fs::write(&source, "x").unwrap();
    for bad in ["../x", "/x", "a/../../x", ""] {
        let files = [(source.clone(), bad.to_owned())];
        let put = lake.catalog().put_files(&name("files.images"), &files, &PutOptions::default()).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
    }
}
