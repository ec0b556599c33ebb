//! The real files of NYC TLC, dirt included.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::Sandbox;

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap()
}

/// Runs flumen with `--json`, and gives what it printed.
fn json(sandbox: &Sandbox, arguments: &str) -> Value {
    let ran = sandbox.sh(&format!("flumen --json {arguments}"));
    assert_eq!(ran.code, 0, "{arguments}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}: {}", ran.stdout))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

#[test]
fn all_heads_load_into_one_table_a_kind() {
    let sandbox = Sandbox::new();
    let (data, contracts) = (root().join("tests/data/tlc_heads.zip"), root().join("examples/tlc"));
    assert_eq!(
        sandbox
            .sh(&format!("flumen init p && mkdir heads && cd heads && python3 -m zipfile -e {} .", data.display()))
            .code,
        0
    );
    let (mut files, mut short, mut quarantined, mut surplus) = (0, 0, 0, 0);
    for kind in ["yellow", "green", "fhv", "fhvhv"] {
        let receipt = json(
            &sandbox,
            &format!(
                "--project p ingest 'heads/**/{kind}_tripdata_*.csv' --to lake.raw.{kind} --contract {}/{kind}.yml",
                contracts.display()
            ),
        );
        files += receipt["files"].as_array().unwrap().len();
        quarantined += number(&receipt, "rows_quarantined");
        surplus += receipt["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w.as_str().unwrap().contains("more fields"))
            .count();
        let sum =
            number(&receipt, "rows_written") + number(&receipt, "rows_quarantined") + number(&receipt, "rows_skipped");
        assert_eq!(number(&receipt, "rows_read"), sum, "{kind}");
        let count = json(&sandbox, &format!("--project p sql 'select count(*) as n from lake.raw.{kind}'"));
        assert_eq!(number(&count[0], "n"), number(&receipt, "rows_written"), "{kind}");
        let fields =
            "select count(*) as n from lake.raw.{}__quarantine where reason like '%field%'".replace("{}", kind);
        short += number(&json(&sandbox, &format!("--project p sql \"{fields}\""))[0], "n");
    }
    assert_eq!((files, short, surplus), (152, 137, 18));
    // Of the other last rows, those that end inside a value cannot be told from good ones, or do not read as their type.
    assert!(quarantined >= 137, "{quarantined}");
    let vendors = json(&sandbox, "--project p sql 'select distinct vendor_id as v from lake.raw.yellow order by v'");
    let vendors: Vec<u64> = vendors.as_array().unwrap().iter().map(|row| number(row, "v")).collect();
    assert_eq!(vendors, [1, 2, 3]);
}

#[test]
fn six_real_months_become_one_table() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.sh("flumen init p").code, 0);
    let load = format!("--project p ingest '{}/tests/data/yellow/*.csv.xz' --to lake.raw.yellow", root().display());
    let receipt = json(&sandbox, &load);
    assert_eq!((number(&receipt, "rows_written"), number(&receipt, "rows_quarantined")), (60_000, 0));
    // The numbers were got from the files with Python's csv and decimal modules.
    let sums = json(
        &sandbox,
        "--project p sql \"select count(*) as n, round(sum(total_amount), 2) as total, round(sum(fare_amount), 2) as fare,
         round(sum(tip_amount), 2) as tip, round(sum(trip_distance), 2) as miles,
         count(*) - count(congestion_surcharge) as empty from lake.raw.yellow\"",
    );
    let row = &sums[0];
    let float = |key: &str| row[key].as_f64().unwrap();
    assert_eq!((number(row, "n"), number(row, "empty")), (60_000, 6_327));
    assert_eq!(
        (float("total"), float("fare"), float("tip"), float("miles")),
        (1_115_783.24, 782_385.63, 129_981.42, 176_353.95)
    );
    // Again: nothing is loaded twice, and one new file is loaded alone.
    assert_eq!(number(&json(&sandbox, &load), "rows_written"), 0);
    sandbox.write("p/zones/more.csv", "vendor_id,total_amount\n1,1.5\n");
    let more = json(
        &sandbox,
        &format!("{load} && true").replace("ingest ", "ingest p/zones/more.csv ").replace(" && true", ""),
    );
    assert_eq!((number(&more, "rows_written"), more["files"].as_array().unwrap().len()), (1, 1));
}
