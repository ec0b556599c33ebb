//! The metadata database of a project: its users, flows and runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flumen_core::flow::store::MetaStore;
use flumen_core::user::UserStore;
use flumen_core::{Error, Result};
use flumen_project::Project;
use flumen_project::settings::StoreSettings;
use flumen_store::memory::MemoryStore;
use flumen_store::postgres::{Address, PostgresStore};
use flumen_store::sqlite::SqliteStore;

/// The folder in a project for what Flumen keeps there.
pub const FOLDER: &str = ".flumen";

/// The metadata database of `project`, where it is a file.
pub fn file(project: &Project) -> PathBuf {
    project.dir().join(FOLDER).join("flumen.db")
}

/// The users of `project`.
///
/// Errors: those of the database.
pub async fn users(project: &Project) -> Result<Arc<dyn UserStore>> {
    Ok(match shared(project)? {
        Some((address, schema)) => Arc::new(PostgresStore::connect(&address, &schema).await?),
        None => Arc::new(SqliteStore::open(&file(project)).await?),
    })
}

/// The flows and runs of `project`.
///
/// Errors: those of the database.
pub async fn runs(project: &Project) -> Result<Arc<dyn MetaStore>> {
    Ok(match shared(project)? {
        Some((address, schema)) => Arc::new(PostgresStore::connect(&address, &schema).await?),
        None => Arc::new(SqliteStore::open(&file(project)).await?),
    })
}

/// The flows and runs of `project` for whoever only looks at its files: none, where there is no database yet or it cannot be used here,
/// as in a checkout that can only be read.
pub async fn runs_if_any(project: &Project) -> Arc<dyn MetaStore> {
    let is_missing = project.settings().store.is_none() && !file(project).exists();
    let opened = if is_missing { None } else { runs(project).await.ok() };
    opened.unwrap_or_else(|| Arc::new(MemoryStore::new()))
}

/// The Postgres database that `flumen.yml` names for metadata, and the schema in it.
fn shared(project: &Project) -> Result<Option<(Address, String)>> {
    let Some(StoreSettings { connection, schema }) = &project.settings().store else { return Ok(None) };
    let config = project.connection(connection)?.postgres().map_err(|error| error.within("store"))?;
    let address = Address {
        host: config.host,
        port: config.port,
        user: config.user,
        password: config.password,
        database: config.database,
        sslmode: config.sslmode.name().to_owned(),
        sslrootcert: config.sslrootcert,
        options: config.options,
        application_name: config.application_name,
    };
    Ok(Some((address, schema.clone())))
}

/// Errors: `Invalid`, where the database is not a file of the project.
fn only_a_file(project: &Project) -> Result<()> {
    match &project.settings().store {
        Some(store) => {
            Err(Error::invalid(format!("the metadata is in the database of connection '{}'", store.connection))
                .hint(format!("copy its schema with Postgres' own tools: pg_dump --schema {}", store.schema)))
        }
        None => Ok(()),
    }
}

/// Copies the database of `project` to `to`, as it is at one moment.
///
/// Errors: `NotFound` where there is none; `Conflict` where the file is there; those of the disk.
pub async fn backup(project: &Project, to: &Path) -> Result<()> {
    only_a_file(project)?;
    let from = file(project);
    if !from.exists() {
        return Err(Error::not_found("the project has no database yet").hint("it is made when the first flow runs"));
    }
    if to.exists() {
        return Err(Error::conflict(format!("{} is there already", to.display())).hint("name another file"));
    }
    SqliteStore::open(&from).await?.backup(to).await
}

/// Puts the backup `from` in the place of the database of `project`; where the one that was there is kept.
///
/// Errors: `Conflict` where there is one and it is not `force`; `Invalid` for a file that is no backup; those of the disk.
pub async fn restore(project: &Project, from: &Path, force: bool) -> Result<Option<PathBuf>> {
    only_a_file(project)?;
    let to = file(project);
    if !from.is_file() {
        return Err(Error::not_found(format!("{}: no such file", from.display())).hint("check the path"));
    }
    if to.exists() && !force {
        return Err(Error::conflict("the project has a database already")
            .hint("add --force: what is there now is kept beside the new one"));
    }
    let new = to.with_extension("db.new");
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| Error::io(path, error)
    };
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    std::fs::copy(from, &new).map_err(failed(&new))?;
    // A file that is no database fails here, and nothing was changed.
    let upgraded = SqliteStore::upgrade(&new).await;
    let _ = std::fs::remove_file(with_ending(&new, "-opening"));
    if let Err(error) = upgraded {
        let _ = std::fs::remove_file(&new);
        return Err(Error::invalid(format!("{} is no backup of a metadata database", from.display())).caused_by(error));
    }
    let kept = to.exists().then(|| to.with_extension("db.before"));
    if let Some(kept) = &kept {
        // What was not yet moved into the database itself belongs to it.
        for ending in ["", "-wal", "-shm"] {
            let (old, name) = (with_ending(&to, ending), with_ending(kept, ending));
            if old.exists() {
                std::fs::rename(&old, &name).map_err(failed(&old))?;
            }
        }
    }
    std::fs::rename(&new, &to).map_err(failed(&new))?;
    Ok(kept)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
