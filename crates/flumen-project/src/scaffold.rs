//! A new project: its files, as `flumen init` writes them.

use std::path::Path;

use flumen_core::{Error, Result};

use crate::environment::ENV_FILE;
use crate::project::PROJECT_FILE;

/// The files of a new project, and what is in them. `@NAME@` stands for the project's name.
const FILES: &[(&str, &str)] = &[
    (PROJECT_FILE, include_str!("scaffold/flumen.yml")),
    (".env.example", include_str!("scaffold/env.example")),
    (".gitignore", include_str!("scaffold/gitignore")),
    ("README.md", include_str!("scaffold/README.md")),
    ("contracts/.gitkeep", ""),
    ("flows/taxi.yml", include_str!("scaffold/taxi.yml")),
    ("sql/busiest_zones.sql", include_str!("scaffold/busiest_zones.sql")),
];

/// Makes a project in `dir`, which is made if it is not there. Files that are there are left as they are. Returns the
/// files that were written, or none at all if the folder holds a project.
///
/// Errors: `Invalid` for a folder in which nothing may be written.
pub fn create_project(dir: &Path) -> Result<Vec<&'static str>> {
    if dir.join(PROJECT_FILE).exists() {
        return Ok(Vec::new());
    }
    let dir = std::path::absolute(dir).map_err(|error| Error::io(dir.display(), error))?;
    let name = project_name(&dir);
    let mut written = Vec::new();
    // `flumen.yml` comes last: with it the folder is a project, and has everything else.
    for (file, text) in FILES.iter().rev() {
        let path = dir.join(file);
        if path.exists() {
            continue;
        }
        let parent = path.parent().unwrap_or(&dir);
        std::fs::create_dir_all(parent).map_err(|error| Error::io(parent.display(), error))?;
        std::fs::write(&path, text.replace("@NAME@", &name)).map_err(|error| Error::io(path.display(), error))?;
        written.push(*file);
    }
    written.reverse();
    Ok(written)
}

/// Whether git would leave `.env` out, as far as the `.gitignore` of `dir` says.
pub fn env_is_ignored(dir: &Path) -> bool {
    let ignored = std::fs::read_to_string(dir.join(".gitignore")).unwrap_or_default();
    ignored.lines().map(str::trim).any(|line| [ENV_FILE, "/.env", ".env*", "*.env"].contains(&line))
}

/// The folder's name, as far as it can stand in YAML without quotes.
fn project_name(dir: &Path) -> String {
    let folder = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        folder.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    let name = name.trim_matches(|c| c == '-' || c == '_').to_owned();
    if name.is_empty() { "project".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Project};

    #[test]
    fn a_new_project_loads_and_is_made_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("my taxi");
        let written = create_project(&dir).expect("made");
        assert_eq!(
            written,
            [
                "flumen.yml",
                ".env.example",
                ".gitignore",
                "README.md",
                "contracts/.gitkeep",
                "flows/taxi.yml",
                "sql/busiest_zones.sql"
            ]
        );
        let project = Project::load_with(&dir, Environment::default()).expect("valid");
        assert_eq!(project.name(), "my_taxi");
        assert!(env_is_ignored(&dir));
        assert!(create_project(&dir).expect("looked").is_empty());
    }

    #[test]
    fn files_that_are_there_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("README.md"), "mine").expect("written");
        assert!(!create_project(dir.path()).expect("made").contains(&"README.md"));
        assert_eq!(std::fs::read_to_string(dir.path().join("README.md")).expect("read"), "mine");
    }
}
