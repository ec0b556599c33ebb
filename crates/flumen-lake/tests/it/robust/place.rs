//! Where the lake of a test lies: in a folder, or in a bucket that other processes reach, too.

use std::path::PathBuf;
use std::sync::Arc;

use flumen_lake::lake::Lake;
use flumen_testkit::bucket::{KEY, NAME};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// A place for a lake, as one line of text when it is told to another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A prefix in the bucket at an endpoint.
    Bucket(String, String),
}

impl Place {
    /// As text.
    pub fn text(&self) -> String {
        match self {
            Place::Folder(folder) => format!("folder {}", folder.display()),
            Place::Bucket(endpoint, prefix) => format!("bucket {endpoint} {prefix}"),
        }
    }

    /// From text.
    pub fn parse(text: &str) -> Self {
        match text.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            ["bucket", endpoint, prefix] => Place::Bucket((*endpoint).to_owned(), (*prefix).to_owned()),
            _ => Place::Folder(text.strip_prefix("folder ").unwrap().into()),
        }
    }

    /// A place beside this one.
    pub fn beside(&self, name: &str) -> Self {
        match self {
            Place::Folder(folder) => Place::Folder(folder.with_file_name(name)),
            Place::Bucket(endpoint, _) => Place::Bucket(endpoint.clone(), name.to_owned()),
        }
    }

    /// The lake here.
    pub fn lake(&self) -> Lake {
        match self {
            Place::Folder(folder) => Lake::local(folder).unwrap(),
            Place::Bucket(endpoint, prefix) => {
                Lake::at(format!("s3://{NAME}/{prefix}").parse().unwrap(), store(endpoint)).unwrap()
            }
        }
    }

    /// Copies the lake to another place, which is empty.
    pub async fn copy(&self, to: &Self) {
        match (self, to) {
            (Place::Folder(from), Place::Folder(to)) => super::copy(from, to),
            (Place::Bucket(endpoint, from), Place::Bucket(_, to)) => {
                let store = store(endpoint);
                let objects: Vec<_> = store.list(Some(&Path::from(from.as_str()))).try_collect().await.unwrap();
                for object in objects {
                    let target = object.location.as_ref().replacen(from.as_str(), to, 1);
                    store.copy(&object.location, &Path::from(target)).await.unwrap();
                }
            }
            _ => panic!("two kinds of places"),
        }
    }
}

fn store(endpoint: &str) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new()
        .with_bucket_name(NAME)
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id(KEY)
        .with_secret_access_key("abc")
        .build();
    Arc::new(store.unwrap())
}
