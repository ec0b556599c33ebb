//! `docs/kinds.md`: it tells of every kind and every field, and its examples are checked and run.

use std::path::Path;

use flumen_core::flow::store::MetaStore as _;
use flumen_core::flow::{Outcome, TaskState};
use flumen_worker::kinds;
use serde_json::Value;

use crate::notify::MailServer;
use crate::support::{Answer, Fixture, WebServer};

/// Kinds that run without the binary; the examples of the others are run by its tests.
const RUN_HERE: [&str; 9] = ["approve", "docker", "empty", "flow", "http", "notify", "python", "sensor", "shell"];

const MONTHS: &str = "\
import sys
def months(year, first=1):
    return [f'{year}-{month:02}' for month in range(first, 13)]
if __name__ == '__main__':
    print(sys.argv[1])
";

fn page() -> String {
    std::fs::read_to_string(Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/kinds.md"))
        .unwrap()
}

/// The complete flows in a text, with their names.
fn examples(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let flows = blocks.filter(|block| block.starts_with("flow: "));
    flows.map(|block| (block["flow: ".len()..].lines().next().unwrap().to_owned(), block.to_owned())).collect()
}

#[test]
fn every_kind_and_every_field_has_its_place() {
    let page = page();
    for kind in kinds::all() {
        let title = format!("\n## {}\n", kind.name());
        let section = page.split(&title).nth(1).unwrap_or_else(|| panic!("no section '{}'", kind.name()));
        let section = section.split("\n## ").next().unwrap();
        assert!(!examples(section).is_empty(), "{} has no example", kind.name());
        let schema = kind.schema();
        for field in schema["properties"].as_object().unwrap().keys() {
            let name = format!("`{field}`");
            let first_cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
            let is_there = first_cells.into_iter().any(|cell| cell.contains(&name));
            assert!(is_there, "{}: '{field}' is not in the table", kind.name());
        }
    }
}

#[tokio::test]
async fn every_example_is_right_and_runs() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/jobs" => Answer::json(201, "{\"id\": 7}"),
        "/jobs/7" => Answer::json(200, "{\"state\": \"done\"}"),
        _ => Answer::text(200, "fine"),
    })
    .await;
    let mail = MailServer::start(None).await;
    let settings = format!(
        "connections:\n  api: {{ kind: http, url: \"{0}\" }}\n  alerts: {{ kind: http, url: \"{0}/hook\" }}\n  mail: {{ kind: smtp, host: 127.0.0.1, port: {1}, tls: none, from: flumen@example.org }}\n",
        server.url, mail.port
    );
    let flows: Vec<(String, String)> =
        examples(&page()).into_iter().map(|(name, text)| (format!("flows/{name}.yml"), text)).collect();
    let mut files: Vec<(&str, &str)> =
        vec![("flumen.yml", &settings), ("months.py", MONTHS), ("scripts/count.py", ""), ("in/2021-01-05/a.csv", "x")];
    files.extend(flows.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let _engine = WebServer::start_at(&socket, |request| match request.path.split('?').next().unwrap() {
        "/containers/json" => Answer::json(200, "[]"),
        "/containers/create" => Answer::json(201, "{\"Id\": \"c1\"}"),
        "/containers/c1/json" => Answer::json(200, "{\"State\": {\"ExitCode\": 0}}"),
        _ => Answer::json(200, ""),
    });
    let fixture = Fixture::new(&files, &[("DOCKER_HOST", &format!("unix://{}", socket.display()))]);
    for (file, _) in &flows {
        let name = file.trim_start_matches("flows/").trim_end_matches(".yml");
        run_example(&fixture, name).await;
    }
}

/// Runs the tasks of a flow, in the order in which they stand.
async fn run_example(fixture: &Fixture, name: &str) {
    let id = fixture.make_run(name, crate::support::start()).await;
    let run = fixture.store.run(id).await.unwrap();
    let version = fixture.host.library.version(&run.version, &*fixture.host.store).await.unwrap();
    let tasks = &version.compiled.flow.tasks;
    if tasks.iter().any(|task| !RUN_HERE.contains(&task.kind.as_str()) || !task.config["sql"].is_null()) {
        return;
    }
    for task in tasks {
        let is_mapped = task.for_each.is_some();
        let key = if is_mapped { format!("{}[0]", task.id) } else { task.id.clone() };
        let mut work = fixture.work(&run, &key, 1);
        if is_mapped {
            work.queued.item = Some(Value::from("2021-02"));
        }
        let outcome = fixture.execute(&work).await;
        let output = match outcome {
            Outcome::Success { output, .. } => output,
            // Somebody approves, and what is waited for comes.
            Outcome::Deferred { .. } => serde_json::json!({ "by": "ann" }),
            other => panic!("{name}: {}: {other:?}\n{}", task.id, fixture.lines().join("\n")),
        };
        let mut done = fixture.begun(&work);
        done.state = TaskState::Success;
        done.output = Some(output);
        fixture.commit(id, |_| {}, vec![done]).await;
    }
}
