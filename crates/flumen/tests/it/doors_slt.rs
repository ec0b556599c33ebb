//! The files of `tests/slt` through the Postgres door: the same statements and the same answers as those of the engine.

use std::path::Path;

use flumen_testkit::slt::{Connections, Database, Reply, run_folder};
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
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/slt");
    run_folder(&folder, "door", || {
        let sandbox = Sandbox::new();
        sandbox.write("flumen.yml", "name: p\n");
        Door { server: Server::start(sandbox, &[]), connections: Connections::default() }
    })
    .await;
}
