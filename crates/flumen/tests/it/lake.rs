//! `flumen lake` and `flumen env`, as typed.

use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};

/// A project with the table `lake.raw.trips` of two loads.
fn project() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("flumen.yml", "name: taxi\n");
    sandbox.write("a.csv", "id,zone\n1,North\n2,South\n");
    sandbox.write("b.csv", "id,zone\n3,North\n");
    ok(&sandbox, "flumen ingest a.csv --to lake.raw.trips");
    ok(&sandbox, "flumen ingest b.csv --to lake.raw.trips");
    sandbox
}

fn ok(sandbox: &Sandbox, line: &str) -> Ran {
    let ran = sandbox.sh(line);
    assert_eq!(ran.code, 0, "{line}\n{}\n{}", ran.stdout, ran.stderr);
    ran
}

fn json(sandbox: &Sandbox, line: &str) -> Value {
    let ran = ok(sandbox, &format!("{line} --json"));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{line}: {error}\n{}", ran.stdout))
}

fn names(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn a_table_is_looked_at_from_all_sides() {
    let sandbox = project();
    assert_eq!(names(&json(&sandbox, "flumen lake list")), ["lake.raw.trips"]);
    let told = json(&sandbox, "flumen lake describe raw.trips");
    assert_eq!((told["rows"].as_u64(), told["files"].as_u64(), told["version"].as_u64()), (Some(3), Some(2), Some(1)));
    assert_eq!(told["columns"][0]["min"], 1);
    assert_eq!(told["loads"].as_array().unwrap().len(), 2);
    let history = json(&sandbox, "flumen lake history lake.raw.trips");
    assert_eq!(history[0]["rows_added"], 1);
    let diff = json(&sandbox, "flumen lake diff lake.raw.trips@0 lake.raw.trips@1");
    assert_eq!((diff["only_right"]["rows"].as_u64(), diff["loads"].as_array().unwrap().len()), (Some(1), 1));

    ok(&sandbox, "flumen lake tag lake.raw.trips taxi --description 'one row a trip' --freshness 26h --owner ana");
    ok(&sandbox, "flumen lake tag lake.raw.trips --column zone place");
    assert_eq!(sandbox.sh("flumen lake tag lake.raw.trips --column zonne x").code, 3);
    assert_eq!(names(&json(&sandbox, "flumen lake list --tag taxi")), ["lake.raw.trips"]);
    assert!(json(&sandbox, "flumen lake list --tag other").as_array().unwrap().is_empty());
    json(&sandbox, "flumen lake stats lake.raw.trips");
    let shown = ok(&sandbox, "flumen lake describe lake.raw.trips").stdout;
    for expect in ["one row a trip", "ana", "fresh: a load every 26h", "#place", "~3", "b.csv"] {
        assert!(shown.contains(expect), "{expect}\n{shown}");
    }
    ok(&sandbox, "flumen lake export lake.raw.trips out.csv");
    assert_eq!(ok(&sandbox, "sort out.csv").stdout, "1,North\n2,South\n3,North\nid,zone\n");
}

#[test]
fn names_move_and_loads_follow() {
    let sandbox = project();
    ok(&sandbox, "flumen lake rename lake.raw.trips lake.clean.rides");
    sandbox.write("c.csv", "id,zone\n4,East\n");
    ok(&sandbox, "flumen ingest c.csv --to lake.clean.rides");
    assert_eq!(json(&sandbox, "flumen lake describe clean.rides")["rows"], 4);
    assert_eq!(json(&sandbox, "flumen lake describe clean.rides")["location"], "raw/trips");
    assert_eq!(json(&sandbox, "flumen load list").as_array().unwrap().len(), 3);
    ok(&sandbox, "flumen ingest a.csv --to lake.raw.trips");
    assert_eq!(names(&json(&sandbox, "flumen lake list")), ["lake.clean.rides", "lake.raw.trips"]);
    ok(&sandbox, "flumen lake drop raw.trips clean.rides");
    assert!(json(&sandbox, "flumen lake list").as_array().unwrap().is_empty());
    ok(&sandbox, "flumen lake undrop clean.rides --as raw.back");
    assert_eq!(json(&sandbox, "flumen lake describe raw.back")["rows"], 4);
    let missing = sandbox.sh("flumen lake describe raw.bak");
    assert_eq!(missing.code, 3, "{}", missing.stderr);
}

#[test]
fn an_environment_is_made_written_to_and_published() {
    let sandbox = project();
    sandbox.write("flumen.yml", "name: taxi\nconnections:\n  pg:\n    kind: postgres\n    host: localhost\n");
    assert_eq!(sandbox.sh("flumen env create pg").code, 4, "a connection has that name");
    ok(&sandbox, "flumen env create dev");
    sandbox.write("c.csv", "id,zone\n4,East\n");
    let said = ok(&sandbox, "flumen --env dev ingest c.csv --to lake.raw.trips").stderr;
    assert!(said.contains("lake.raw.trips has a copy of its own in 'dev' now: 2 files"), "{said}");
    assert_eq!(json(&sandbox, "flumen --env dev lake describe raw.trips")["rows"], 4);
    assert_eq!(json(&sandbox, "flumen lake describe raw.trips")["rows"], 3);
    let again = ok(&sandbox, "flumen --env dev ingest a.csv --to lake.raw.trips");
    assert_eq!(json(&sandbox, "flumen --env dev lake describe raw.trips")["rows"], 4, "{}", again.stderr);
    let diff = json(&sandbox, "flumen env diff dev");
    assert_eq!((diff[0]["change"].as_str(), diff[0]["version"].as_u64()), (Some("copy"), Some(2)));
    assert_eq!(json(&sandbox, "flumen env publish dev")[0]["what"], "replaced");
    assert_eq!(json(&sandbox, "flumen lake describe raw.trips")["rows"], 4);
    assert_eq!(json(&sandbox, "flumen env list")[1]["own"], 0);
    ok(&sandbox, "flumen env drop dev");
    assert_eq!(sandbox.sh("flumen --env dev lake list").code, 3);
}

#[test]
fn the_lake_is_tidied_up() {
    let sandbox = project();
    let done = json(&sandbox, "flumen lake optimize");
    assert_eq!((done[0]["done"]["files_before"].as_u64(), done[0]["done"]["files_after"].as_u64()), (Some(2), Some(1)));
    ok(&sandbox, "flumen lake check --deep");
    assert!(json(&sandbox, "flumen lake vacuum").as_array().unwrap().is_empty());
    assert_eq!(json(&sandbox, "flumen lake vacuum --retain 0s --dry-run")[0]["files"], 2);
    assert_eq!(json(&sandbox, "flumen lake vacuum --retain 0s")[0]["files"], 2);
    assert_eq!(json(&sandbox, "flumen lake describe raw.trips")["rows"], 3);
    assert_eq!(sandbox.sh("flumen lake restore raw.trips 0").code, 4, "its files are vacuumed");
    assert!(json(&sandbox, "flumen lake maintain").as_array().unwrap().is_empty(), "nothing pays");
    ok(&sandbox, "flumen lake check --deep");
    ok(&sandbox, "rm $(find . -name '*.parquet')");
    let broken = sandbox.sh("flumen lake check");
    assert_eq!(broken.code, 6);
    assert!(broken.stdout.contains("is missing"), "{}", broken.stdout);
}

#[test]
fn an_earlier_version_comes_back() {
    let sandbox = project();
    assert_eq!(json(&sandbox, "flumen lake restore raw.trips 0")["version"], 2);
    assert_eq!(json(&sandbox, "flumen lake describe raw.trips")["rows"], 2);
    ok(&sandbox, "flumen ingest b.csv --to lake.raw.trips");
    assert_eq!(json(&sandbox, "flumen lake describe raw.trips")["rows"], 3, "what was taken back is loaded again");
}

#[test]
fn files_are_kept_beside_the_tables() {
    let sandbox = project();
    sandbox.write("pictures/cat.png", "a cat");
    sandbox.write("pictures/more/dog.png", "a dog");
    ok(&sandbox, "flumen lake put pictures lake.files.images/2024/ --tag pets");
    let listed = json(&sandbox, "flumen lake ls lake.files.images");
    let paths: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["2024/cat.png", "2024/more/dog.png"]);
    assert_eq!((listed[0]["media_type"].as_str(), listed[0]["size"].as_u64()), (Some("image/png"), Some(5)));
    assert_eq!(ok(&sandbox, "flumen lake get lake.files.images/2024/more/dog.png -").stdout, "a dog");
    ok(&sandbox, "flumen lake get lake.files.images/2024/cat.png && test \"$(cat cat.png)\" = 'a cat'");
    let of = "select volume, path, size, media_type, tags from";
    let expected = "volume,path,size,media_type,tags\nlake.files.images,2024/cat.png,5,image/png,[pets]\n\
        lake.files.images,2024/more/dog.png,5,image/png,[pets]\n";
    for function in ["files('files.images')", "files('lake.files.images')", "files()"] {
        let listed = ok(&sandbox, &format!("flumen sql --format csv \"{of} {function} order by path\""));
        assert_eq!(listed.stdout, expected, "{function}");
    }
    let unknown = sandbox.sh("flumen sql \"select * from files('files.image')\"");
    assert!(unknown.code == 3 && unknown.stderr.contains("files.images"), "{}", unknown.stderr);
    let said = json(
        &sandbox,
        "flumen lake tag lake.files.images/2024/cat.png asleep --remove pets --description 'on the sofa'",
    );
    assert_eq!(
        (said[0]["about"]["tags"][0].as_str(), said[0]["about"]["tags"].get(1)),
        (Some("asleep"), None),
        "{said}"
    );
    assert!(
        ok(&sandbox, "flumen lake tag lake.files.images/2024/ old").stderr.contains("dog.png has the tags old pets")
    );
    let tags =
        ok(&sandbox, "flumen sql --format csv \"select path, tags, description from files() order by path\"").stdout;
    assert_eq!(
        tags,
        "path,tags,description\n2024/cat.png,\"[asleep, old]\",on the sofa\n2024/more/dog.png,\"[old, pets]\",\n"
    );
    ok(&sandbox, "flumen lake tag lake.files.images/ pictures");
    assert_eq!(sandbox.sh("flumen lake tag lake.files.images/2024/cow.png x").code, 3);
    assert_eq!(sandbox.sh("flumen lake tag lake.files.images/2024/cat.png --freshness 1h").code, 2);
    ok(&sandbox, "flumen lake get lake.files.images/2024/cat.png again.png && test \"$(cat again.png)\" = 'a cat'");
    ok(&sandbox, "flumen lake rm lake.files.images/2024/cat.png");
    assert_eq!(sandbox.sh("flumen lake get lake.files.images/2024/cat.png").code, 3);
    assert_eq!(sandbox.sh("flumen lake put pictures 'lake.files.images/../x/'").code, 2);
    ok(&sandbox, "flumen lake check --deep");
}

#[test]
fn a_table_that_records_changes_is_looked_after_like_others() {
    let sandbox = project();
    ok(&sandbox, "flumen sql \"alter table raw.trips set tblproperties ('change_feed' = 'true')\"");
    ok(&sandbox, "flumen lake optimize lake.raw.trips");
    ok(&sandbox, "flumen ingest b.csv --to lake.raw.trips --mode replace");
    ok(&sandbox, "flumen lake restore lake.raw.trips 3");
    let changes = |from: u64| {
        let query = format!(
            "select _change_type, count(*) as n from changes('raw.trips', {from}, {from}) group by 1 order by 1"
        );
        ok(&sandbox, &format!("flumen sql --format csv \"{query}\"")).stdout
    };
    // Rows that an optimization moves to another file have not changed.
    assert_eq!(changes(3), "_change_type,n\n");
    assert_eq!(changes(4), "_change_type,n\ndelete,3\ninsert,1\n");
    assert_eq!(changes(5), "_change_type,n\ndelete,1\ninsert,3\n");
}

#[test]
fn tables_of_two_environments_meet_in_a_query() {
    let sandbox = project();
    ok(&sandbox, "flumen env create dev");
    ok(&sandbox, "flumen --env dev sql \"delete from dev.raw.trips where dev.raw.trips.id = 2\"");
    let missing = "select p.id from prod.raw.trips as p left join dev.raw.trips as d on p.id = d.id where d.id is null";
    for environment in ["prod", "dev"] {
        let ran = ok(&sandbox, &format!("flumen --env {environment} sql --format csv \"{missing}\""));
        assert_eq!(ran.stdout, "id\n2\n");
    }
    ok(&sandbox, "flumen --env dev sql 'create view raw.north as select * from raw.trips'");
    let refused = sandbox.sh("flumen sql 'select * from dev.raw.north'");
    assert!(refused.stderr.contains("which is not seen here"), "{}", refused.stderr);
    let refused = sandbox.sh("flumen sql 'select * from dev.raw.nothing'");
    assert!(refused.stderr.contains("there is no table 'raw.nothing' in the environment 'dev'"), "{}", refused.stderr);
}

#[test]
fn statements_keep_a_table_fresh() {
    let sandbox = project();
    ok(&sandbox, "flumen sql \"create table mart.zones as select zone, count(*) as n from raw.trips group by zone\"");
    ok(&sandbox, "flumen lake tag lake.mart.zones --freshness 1h");
    let told = json(&sandbox, "flumen lake describe mart.zones");
    assert_eq!((told["is_stale"].as_bool(), told["loaded"].as_str()), (Some(false), None), "{told}");
}
