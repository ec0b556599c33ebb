//! Every object store here does what a lake asks of one.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use crate::azurite::Container;
use crate::{bucket, moto};

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..Default::default() }
}

async fn text(store: &dyn ObjectStore, path: &Path) -> String {
    let bytes = store.get_opts(path, GetOptions::default()).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    use futures::TryStreamExt;
    let found: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    let mut keys: Vec<String> = found.into_iter().map(|object| object.location.to_string()).collect();
    keys.sort();
    keys
}

/// Of many who create the same object at once, one wins.
async fn creation(store: &Arc<dyn ObjectStore>) {
    let path = Path::from("log/0.json");
    let racers = (0..8).map(|racer| {
        let (store, path) = (Arc::clone(store), path.clone());
        tokio::spawn(async move { store.put_opts(&path, format!("{racer}").into(), create()).await })
    });
    let mut won = Vec::new();
    for (number, racer) in racers.collect::<Vec<_>>().into_iter().enumerate() {
        match racer.await.unwrap() {
            Ok(_) => won.push(number.to_string()),
            Err(Error::AlreadyExists { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, [text(store.as_ref(), &path).await]);
}

/// Of two who create the same object one after the other, the first wins.
async fn creation_in_turn(store: &dyn ObjectStore) {
    let path = Path::from("log/0.json");
    store.put_opts(&path, "first".into(), create()).await.unwrap();
    let second = store.put_opts(&path, "second".into(), create()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(text(store, &path).await, "first");
}

/// A write on the condition that the object is still the one that was seen.
async fn update(store: &dyn ObjectStore) {
    let path = Path::from("pointer");
    let first = UpdateVersion::from(store.put(&path, "1".into()).await.unwrap());
    let change = |to: &'static str, seen: UpdateVersion| {
        let options = PutOptions { mode: PutMode::Update(seen), ..Default::default() };
        store.put_opts(&path, to.into(), options)
    };
    change("2", first.clone()).await.unwrap();
    assert!(matches!(change("3", first).await, Err(Error::Precondition { .. })));
    assert_eq!(text(store, &path).await, "2");
}

async fn reading(store: &dyn ObjectStore) {
    for name in ["a/1", "a/2", "a/b/3", "a/c d/4", "a/e/5", "z"] {
        store.put(&Path::from(name), format!("content of {name}").into()).await.unwrap();
    }
    assert_eq!(keys(store, "a").await, ["a/1", "a/2", "a/b/3", "a/c d/4", "a/e/5"]);
    let listed = store.list_with_delimiter(Some(&Path::from("a"))).await.unwrap();
    let folders: Vec<&str> = listed.common_prefixes.iter().map(Path::as_ref).collect();
    assert_eq!((listed.objects.len(), folders.as_slice()), (2, ["a/b", "a/c d", "a/e"].as_slice()));
    let path = Path::from("a/1");
    assert_eq!(store.get_range(&path, 0..7).await.unwrap(), "content");
    assert_eq!(store.get_range(&path, 11..99).await.unwrap(), "a/1");
    assert_eq!(store.head(&path).await.unwrap().size, 14);
    assert!(matches!(store.get(&Path::from("nothing")).await, Err(Error::NotFound { .. })));
    store.copy(&path, &Path::from("copies/of 1")).await.unwrap();
    assert_eq!(text(store, &Path::from("copies/of 1")).await, "content of a/1");
    store.delete(&path).await.unwrap();
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
}

async fn parts(store: &dyn ObjectStore) {
    let path = Path::from("large");
    // No smaller one may be part of an upload to S3, but for the last.
    let part = || PutPayload::from(vec![7; 5 << 20]);
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(part()).await.unwrap();
    upload.put_part("end".into()).await.unwrap();
    assert!(store.head(&path).await.is_err(), "nothing is seen before the end");
    upload.complete().await.unwrap();
    let size = store.head(&path).await.unwrap().size;
    assert_eq!(size, (5 << 20) + 3);
    assert_eq!(store.get_range(&path, size - 4..size).await.unwrap(), &b"\x07end"[..]);
    let mut given_up = store.put_multipart(&Path::from("given up")).await.unwrap();
    given_up.put_part(part()).await.unwrap();
    given_up.abort().await.unwrap();
    assert!(store.head(&Path::from("given up")).await.is_err());
}

async fn check(store: Arc<dyn ObjectStore>) {
    creation(&store).await;
    update(store.as_ref()).await;
    reading(store.as_ref()).await;
    parts(store.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_s3() {
    let bucket = bucket::Bucket::s3();
    check(bucket.store()).await;
    assert_eq!(bucket.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_gcs() {
    let bucket = bucket::Bucket::gcs();
    check(bucket.store()).await;
    assert_eq!(bucket.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite() {
    check(Container::new().store()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let bucket = moto::Bucket::new();
    let store = bucket.store();
    // Moto looks and writes in two steps: of several who create an object at once, more than one may win. It is a second
    // opinion about the protocol, not about races.
    creation_in_turn(store.as_ref()).await;
    update(store.as_ref()).await;
    reading(store.as_ref()).await;
    parts(store.as_ref()).await;
}
