//! The users of a project, from its metadata database.

use std::path::PathBuf;
use std::sync::Arc;

use flumen_core::Result;
use flumen_core::user::UserStore;
use flumen_project::Project;
use flumen_store::sqlite::SqliteStore;

/// The metadata database of `project`.
pub fn database(project: &Project) -> PathBuf {
    project.dir().join(".flumen").join("flumen.db")
}

/// The users of `project`.
pub async fn open(project: &Project) -> Result<Arc<dyn UserStore>> {
    Ok(Arc::new(SqliteStore::open(&database(project)).await?))
}
