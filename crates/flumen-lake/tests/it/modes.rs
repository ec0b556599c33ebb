//! Merge, scd2, replace-where and replace by load; and that each can be taken back.

use flumen_core::load::Mode;
use flumen_core::write::Sink;

use crate::support::{Load, TestLake, load_id, told};

fn merge(name: &str, columns: &[&str], rows: &[&str], delete_flag: Option<&str>) -> Load {
    let delete_flag = delete_flag.map(str::to_owned);
    Load::new(name, columns, rows).mode(Mode::Merge { keys: vec!["ID".to_owned()], delete_flag })
}

async fn error(lake: &TestLake, load: &Load) -> String {
    told(&lake.load(load).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_replaces_by_key_and_adds_the_rest() {
    for lake in [TestLake::local(), TestLake::memory()] {
        lake.load(&merge("a", &["id", "v:text"], &["1|a", "2|b"], None)).await.unwrap();
        lake.load(&Load::new("b", &["id", "v:text"], &["3|c", "4|d"])).await.unwrap();
        lake.load(&merge("c", &["id", "v:text", "w"], &["2|B|1", "5|e|2"], None)).await.unwrap();
        assert_eq!(lake.rows().await, ["1|a|", "2|B|1", "3|c|", "4|d|", "5|e|2"]);
        assert_eq!(lake.loads_of_rows(&["a", "b", "c"]).await, ["a", "b", "b", "c", "c"]);
        // The file of b was not touched, that of a was.
        assert_eq!(lake.table().snapshot().await.unwrap().unwrap().files().unwrap().len(), 3);

        lake.undo("c").await.unwrap();
        assert_eq!(lake.rows().await, ["1|a|", "2|b|", "3|c|", "4|d|"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_deletes() {
    let lake = TestLake::local();
    lake.load(&merge("a", &["id", "v:text", "gone:bool"], &["1|a|", "2|b|false", "3|c|"], Some("gone"))).await.unwrap();
    lake.load(&merge("b", &["id", "v:text", "gone:bool"], &["2||true", "3|C|false", "9||true"], Some("gone")))
        .await
        .unwrap();
    assert_eq!(lake.rows().await, ["1|a|", "3|C|false"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_must_be_whole_and_single() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["id", "v:text"], &["1|a"])).await.unwrap();
    assert_eq!(
        error(&lake, &merge("b", &["id", "v:text"], &["2|x", "2|y"], None)).await,
        "data: lake.raw.t: two rows of the load have the same key: id = 2 (leave one of them out, or add a column to the keys)"
    );
    let null = error(&lake, &merge("c", &["id", "v:text"], &["|x"], None)).await;
    assert!(null.contains("the key column 'id' is null in a row of the load: id = , v = x"), "{null}");
    let missing = error(&lake, &merge("d", &["idd", "v:text"], &["1|x"], None)).await;
    assert!(missing.contains("idd") || missing.contains("'id'"), "{missing}");
    assert_eq!(lake.rows().await, ["1|a"]);
    assert_eq!(lake.data_files().await.len(), 1, "the failed loads left nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn scd2_closes_what_changed_and_opens_what_is_new() {
    let lake = TestLake::local();
    let scd2 = |name: &str, rows: &[&str]| {
        let mode = Mode::Scd2 { keys: vec!["id".into()], valid_from: "since".into(), valid_to: "until".into() };
        Load::new(name, &["id", "v:text"], rows).mode(mode)
    };
    lake.load(&scd2("a", &["1|a", "2|b"])).await.unwrap();
    let first = lake.rows().await;
    assert!(first.iter().all(|row| row.ends_with('|')), "{first:?}");
    lake.load(&scd2("b", &["1|a", "2|B", "3|c"])).await.unwrap();
    let rows = lake.rows().await;
    let shape: Vec<String> = rows
        .iter()
        .map(|row| {
            let parts: Vec<&str> = row.split('|').collect();
            format!("{}|{}|{}", parts[0], parts[1], if parts[3].is_empty() { "now" } else { "past" })
        })
        .collect();
    assert_eq!(shape, ["1|a|now", "2|B|now", "2|b|past", "3|c|now"]);
    // The old row ends when the new one begins.
    let (new, old) = (rows[1].split('|').nth(2).unwrap(), rows[2].split('|').nth(3).unwrap());
    assert_eq!(new, old);
    lake.undo("b").await.unwrap();
    assert_eq!(lake.rows().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_where_replaces_what_meets_the_condition() {
    let lake = TestLake::local();
    let mode = |text: &str| Mode::ReplaceWhere { predicate: text.to_owned() };
    lake.load(&Load::new("a", &["Day:date", "n"], &["2019-01-01|1", "2019-01-02|2", "|3"])).await.unwrap();
    let load = Load::new("b", &["Day:date", "n"], &["2019-01-02|7", "2019-01-03|8"]);
    lake.load(&load.clone().mode(mode("Day >= '2019-01-02'"))).await.unwrap();
    assert_eq!(lake.rows().await, ["2019-01-01|1", "2019-01-02|7", "2019-01-03|8", "|3"]);
    let outside =
        error(&lake, &Load::new("c", &["Day:date", "n"], &["2019-01-01|9"]).mode(mode("Day >= '2019-01-02'"))).await;
    assert!(
        outside
            .contains("a row of the load does not meet the condition 'Day >= '2019-01-02'': Day = 2019-01-01, n = 9"),
        "{outside}"
    );
    let wrong = error(&lake, &load.mode(mode("dya = 1"))).await;
    assert!(wrong.starts_with("invalid: lake.raw.t: the condition 'dya = 1' cannot be understood"), "{wrong}");
    lake.undo("b").await.unwrap();
    assert_eq!(lake.rows().await, ["2019-01-01|1", "2019-01-02|2", "|3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_by_load_replaces_what_the_same_slot_wrote() {
    let lake = TestLake::local();
    let slot = |slot: &str| Mode::ReplaceLoad { slot: slot.to_owned() };
    lake.load(&Load::new("jan", &["id"], &["1"]).mode(slot("jan"))).await.unwrap();
    lake.load(&Load::new("feb", &["id"], &["2"]).mode(slot("feb"))).await.unwrap();
    lake.load(&Load::new("jan2", &["id"], &["10", "11"]).mode(slot("jan"))).await.unwrap();
    assert_eq!(lake.rows().await, ["10", "11", "2"]);
    // Also where a merge has put the rows into files with others.
    lake.load(&merge("m", &["id"], &["11"], None)).await.unwrap();
    lake.load(&Load::new("jan3", &["id"], &["12"]).mode(slot("jan"))).await.unwrap();
    assert_eq!(lake.rows().await, ["11", "12", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_taken_back_wherever_its_rows_have_got_to() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["id", "v:text"], &["1|a", "2|b"])).await.unwrap();
    lake.load(&Load::new("b", &["id", "v:text"], &["3|c"])).await.unwrap();
    lake.load(&merge("m", &["id", "v:text"], &["1|A"], None)).await.unwrap();
    lake.undo("a").await.unwrap();
    assert_eq!(lake.rows().await, ["1|A", "3|c"]);
    let ids = [flumen_core::load::LoadId::derive(["file", "a"])];
    assert_eq!(lake.sink().known(&ids).await.unwrap(), [false], "the file may be loaded again");
    let again = lake.undo("a").await.unwrap_err();
    assert!(again.to_string().ends_with("was taken back already"), "{again}");
    assert!(lake.sink().loads(10).await.unwrap().iter().any(|entry| entry.undone && entry.record.load == load_id("a")));
    lake.load(&Load::new("a", &["id", "v:text"], &["1|a", "2|b"])).await.unwrap();
    assert_eq!(lake.rows().await, ["1|A", "1|a", "2|b", "3|c"]);
    lake.undo("b").await.unwrap();
    assert_eq!(lake.rows().await, ["1|A", "1|a", "2|b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replace_is_taken_back_with_its_types() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["n"], &["1", "2"])).await.unwrap();
    lake.load(&Load::new("b", &["n:text"], &["x"]).mode(Mode::Replace)).await.unwrap();
    lake.undo("b").await.unwrap();
    assert_eq!(lake.rows().await, ["1", "2"]);
    lake.undo("a").await.unwrap();
    assert!(lake.rows().await.is_empty());
    let unknown = lake.undo("zzz").await.unwrap_err();
    assert!(unknown.to_string().contains("the ledger has no load"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_built_upon_is_not_taken_back() {
    let lake = TestLake::local();
    lake.load(&merge("a", &["id", "v:text"], &["1|a"], None)).await.unwrap();
    lake.load(&merge("b", &["id", "v:text"], &["1|b"], None)).await.unwrap();
    lake.load(&merge("c", &["id", "v:text"], &["1|c"], None)).await.unwrap();
    let refused = lake.undo("b").await.unwrap_err();
    assert_eq!(
        told(&refused),
        format!(
            "conflict: lake.raw.t: the load {} was built upon the load {} \
             (take the later one back first, with `flumen load undo`)",
            load_id("c"),
            load_id("b")
        )
    );
    lake.undo("c").await.unwrap();
    lake.undo("b").await.unwrap();
    assert_eq!(lake.rows().await, ["1|a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_sees_what_was_appended_while_it_ran() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["id", "v:text"], &["1|a"])).await.unwrap();
    let (session, record) = lake.write(&merge("m", &["id", "v:text"], &["1|A", "2|B"], None)).await.unwrap();
    lake.load(&Load::new("b", &["id", "v:text"], &["2|b"])).await.unwrap();
    session.commit(&record).await.unwrap();
    assert_eq!(lake.rows().await, ["1|A", "2|B"]);
}
