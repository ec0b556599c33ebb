//! The files of `tests/slt` through the Postgres door: the same statements and the same answers as those of the engine.

use std::path::Path;

use flumen_testkit::slt::{Connections, Database, Reply, run_file};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::sandbox::Sandbox;
use crate::server::Server;

/// A lake, seen through the door; each connection is a session.
struct Door {
    server: Server,
    connections: Connections<Client>,
}

impl Database for Door {
    async fn run(&mut self, connection: &str, sql: &str) -> Result<Reply, String> {
        let server = &self.server;
        let client = self.connections.get(connection, || async { server.connect("me").await.unwrap() }).await;
        let answer = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
            Some(error) => match error.hint() {
                Some(hint) => format!("{}\nhint: {hint}", error.message()),
                None => error.message().to_owned(),
            },
            None => panic!("{sql}: {error}"),
        })?;
        let mut reply = Reply::default();
        for message in answer {
            match message {
                SimpleQueryMessage::Row(row) => {
                    reply.rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => reply.count = Some(count),
                _ => {}
            }
        }
        Ok(reply)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_say_what_the_door_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failed = Vec::new();
    for file in files {
        let ran = tokio::spawn(async move {
            let sandbox = Sandbox::new();
            sandbox.write("flumen.yml", "name: p\n");
            let mut door = Door { server: Server::start(sandbox, &[]), connections: Connections::default() };
            run_file(&file, "door", &mut door).await;
        });
        // All files are told about, not only the first that is wrong.
        failed.extend(ran.await.err());
    }
    assert!(failed.is_empty(), "{} files say something else", failed.len());
}
