//! Holds the shape of the system: who may use whom, and one version of everything that must agree.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The law: for each crate, the crates of ours it may use, and those outside that it must not know. It is the table in
/// `ARCHITECTURE.md`.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    (
        "flumen-core",
        &[],
        &[
            "tokio",
            "datafusion",
            "deltalake-core",
            "object_store",
            "reqwest",
            "axum",
            "tokio-postgres",
            "sqlx",
            "parquet",
        ],
    ),
    ("flumen-project", &["flumen-core"], &["datafusion", "deltalake-core", "axum", "sqlx"]),
    ("flumen-connect", &["flumen-core", "flumen-project"], &["datafusion", "deltalake-core", "sqlx"]),
    ("flumen-lake", &["flumen-core", "flumen-project"], &["reqwest", "axum", "sqlx", "tokio-postgres"]),
    ("flumen-store", &["flumen-core"], &["datafusion", "deltalake-core", "axum", "reqwest"]),
    (
        "flumen-flow",
        &["flumen-core"],
        &["tokio", "datafusion", "deltalake-core", "object_store", "reqwest", "axum", "sqlx"],
    ),
    ("flumen-wire", &["flumen-core", "flumen-lake"], &["reqwest", "axum", "sqlx", "deltalake-core"]),
    ("flumen-scheduler", &["flumen-core", "flumen-flow"], &["sqlx", "axum", "datafusion", "deltalake-core"]),
    ("flumen-worker", &["flumen-core", "flumen-project", "flumen-flow"], &["axum", "sqlx", "deltalake-core"]),
    (
        "flumen",
        &[
            "flumen-core",
            "flumen-project",
            "flumen-connect",
            "flumen-lake",
            "flumen-store",
            "flumen-wire",
            "flumen-flow",
            "flumen-scheduler",
            "flumen-worker",
        ],
        &["sqlx"],
    ),
    // For the tests of all others, and part of nothing else.
    ("flumen-testkit", &[], &["datafusion", "deltalake-core", "sqlx"]),
];

/// Two of these in one binary would be two incompatible worlds, or minutes of build time.
const ONE_VERSION: &[&str] = &[
    "arrow",
    "arrow-array",
    "arrow-schema",
    "parquet",
    "datafusion",
    "deltalake-core",
    "object_store",
    "tokio",
    "rustls",
    "serde",
    "chrono",
    "zstd",
];

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn crates_know_whom_they_may_know() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        let Some((_, may_use, must_not_know)) = LAYERS.iter().find(|(of, ..)| *of == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            // What tests use is theirs to choose.
            if dependency["kind"] == "dev" {
                continue;
            }
            let other = dependency["name"].as_str().unwrap();
            if other.starts_with("flumen") && !may_use.contains(&other) {
                wrong.push(format!("{name} may not use {other}"));
            }
            if must_not_know.contains(&other) {
                wrong.push(format!("{name} must not know {other}"));
            }
        }
    }
    for (name, ..) in LAYERS {
        assert!(seen.contains(*name), "{name} is in the table, but there is no such crate");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_is_one_version_of_what_must_agree() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lock.lines() {
        if let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) {
            *versions.entry(name).or_default() += 1;
        }
    }
    for name in ONE_VERSION {
        assert_eq!(versions.get(name), Some(&1), "versions of {name} in Cargo.lock");
    }
}

#[test]
fn versions_are_pinned_in_one_table() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let mut section = String::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if section.contains("dependencies") && line.contains('=') && !line.trim_start().starts_with('#') {
                assert!(line.contains("workspace = true"), "{}: {line}", package["name"]);
            }
        }
    }
}

#[test]
fn the_lock_file_names_no_mirror() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources: BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(sources.iter().all(|source| source.contains("registry+https://github.com/rust-lang/")), "{sources:?}");
}
