//! `flumen.yml` as typed values, with every mistake in it told at once.
//!
//! Nothing is rendered here: a value that is a template stays one until it is used.

use std::collections::BTreeMap;
use std::time::Duration;

use flumen_core::Result;
use flumen_core::dataset::LAKE;
use flumen_core::task_kind::units::Period;

use crate::connections::{KINDS, Kind, kind_named};
use crate::yaml::{Key, Node, Position, Problems, Value};

/// The shortest time that runs are kept.
const LEAST_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The keys of `flumen.yml`.
const KEYS: [&str; 12] = [
    "name",
    "lake",
    "connections",
    "vars",
    "defaults",
    "serve",
    "pools",
    "store",
    "on_failure",
    "on_success",
    "on_retry",
    "on_late",
];

/// What a `flumen.yml` says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The project's name; by default that of its folder.
    pub name: Option<String>,
    /// Where the lake is: a folder or a URL, perhaps as a template. By default `lake`.
    pub lake_root: String,
    /// The connections, in the order of the file.
    pub connections: Vec<ConnectionSettings>,
    /// The values that templates get with `var('name')`, perhaps themselves templates.
    pub vars: BTreeMap<String, String>,
    /// What commands do unless they are told otherwise.
    pub defaults: Defaults,
    /// What servers may do for their clients.
    pub serve: Serve,
    /// Pools of slots that task runs share.
    pub pools: BTreeMap<String, PoolSettings>,
    /// Where flows, runs and users are kept; a file in the project by default.
    pub store: Option<StoreSettings>,
    /// How long runs are kept after their end, with their logs; for ever by default.
    pub keep_runs: Option<Duration>,
}

/// What limits the task runs of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolSettings {
    /// How many slots it has.
    pub slots: Option<u32>,
    /// How often task runs may begin, such as `10/min`.
    pub rate: Option<String>,
}

/// A database that keeps flows, runs and users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The Postgres connection.
    pub connection: String,
    /// The schema in its database.
    pub schema: String,
}

/// What servers may do for their clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serve {
    /// The folder whose files clients may read, perhaps as a template. None by default.
    pub files: Option<String>,
    /// Where `flumen up` listens for clients of Postgres: nowhere by default.
    pub pg: Option<String>,
    /// Where `flumen up` listens for clients of Arrow Flight SQL: nowhere by default.
    pub flight: Option<String>,
}

/// What commands do unless they are told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Whether rows get the columns `_flumen_load`, `_flumen_file` and `_flumen_row`. The destination decides by default.
    pub lineage: Option<bool>,
    /// The folder for temporary files, perhaps as a template. The system's temporary folder by default.
    pub spool: Option<String>,
}

/// A connection as it is written.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// Its fields in the order of the file, perhaps as templates.
    pub fields: Vec<(String, RawField)>,
    /// Where it begins.
    pub position: Position,
}

/// The value of a connection's field as it is written.
#[derive(Clone, PartialEq, Eq)]
pub enum RawField {
    /// One value.
    Text(String),
    /// Values by name, such as headers.
    Map(Vec<(String, String)>),
}

impl std::fmt::Debug for RawField {
    /// Shows nothing: passwords may stand in the file in clear.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawField(…)")
    }
}

impl Settings {
    /// What `text`, the contents of `file`, says.
    ///
    /// Errors: `Invalid`, with the line and column of every mistake.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let root = Node::parse(file, text)?;
        let mut problems = Problems::new(file);
        let entries = root.entries("the file", &mut problems);
        problems.check_keys(entries, "flumen.yml", KEYS);
        let settings = Self {
            name: root.get("name").and_then(|node| node.text("'name'", &mut problems)).map(str::to_owned),
            lake_root: root
                .get("lake")
                .and_then(|node| lake_root(node, &mut problems))
                .unwrap_or_else(|| LAKE.to_owned()),
            connections: root.get("connections").map(|node| connections(node, &mut problems)).unwrap_or_default(),
            vars: root.get("vars").map(|node| vars(node, &mut problems)).unwrap_or_default(),
            defaults: root.get("defaults").map(|node| defaults(node, &mut problems)).unwrap_or_default(),
            serve: root.get("serve").map(|node| serve(node, &mut problems)).unwrap_or_default(),
            pools: root.get("pools").map(|node| pools(node, &mut problems)).unwrap_or_default(),
            store: root.get("store").and_then(|node| store(node, &mut problems)),
            keep_runs: root.get("store").and_then(|node| keep_runs(node.get("keep")?, &mut problems)),
        };
        problems.finish()?;
        Ok(settings)
    }
}

fn lake_root(node: &Node, problems: &mut Problems) -> Option<String> {
    if let Value::Text(_) = node.value {
        problems.add_with_hint(node.position, "'lake' must have keys", "write 'lake:' and below it '  root: FOLDER'");
        return None;
    }
    let entries = node.entries("'lake'", problems);
    problems.check_keys(entries, "'lake'", ["root"]);
    node.get("root")?.text("'lake.root'", problems).map(str::to_owned)
}

fn vars(node: &Node, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for (key, value) in node.entries("'vars'", problems) {
        if let Some(text) = value.text(&format!("'vars.{}'", key.name), problems) {
            vars.insert(key.name.clone(), text.to_owned());
        }
    }
    vars
}

fn pools(node: &Node, problems: &mut Problems) -> BTreeMap<String, PoolSettings> {
    let mut pools = BTreeMap::new();
    for (key, value) in node.entries("'pools'", problems) {
        let at = format!("'pools.{}'", key.name);
        let pool = match &value.value {
            Value::Text(_) => PoolSettings { slots: slots(value, &at, problems), rate: None },
            _ => {
                let entries = value.entries(&at, problems);
                problems.check_keys(entries, &at, ["slots", "rate"]);
                PoolSettings {
                    slots: value.get("slots").and_then(|node| slots(node, &at, problems)),
                    rate: value.get("rate").and_then(|node| node.text(&at, problems)).map(str::to_owned),
                }
            }
        };
        pools.insert(key.name.clone(), pool);
    }
    pools
}

fn slots(node: &Node, at: &str, problems: &mut Problems) -> Option<u32> {
    let text = node.text(at, problems)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.add_with_hint(
            node.position,
            format!("{at}: '{text}' is not a number of slots"),
            "write for example 4",
        );
    }
    parsed
}

fn store(node: &Node, problems: &mut Problems) -> Option<StoreSettings> {
    let entries = node.entries("'store'", problems);
    problems.check_keys(entries, "'store'", ["connection", "schema", "keep"]);
    let schema = node.get("schema").and_then(|node| node.text("'store.schema'", problems)).map(str::to_owned);
    let connection = node.get("connection").and_then(|node| node.text("'store.connection'", problems));
    if connection.is_none() && (schema.is_some() || node.get("keep").is_none()) {
        problems.add_with_hint(
            node.position,
            "'store' has no 'connection'",
            "name a Postgres connection of the project",
        );
    }
    Some(StoreSettings { connection: connection?.to_owned(), schema: schema.unwrap_or_else(|| "flumen".to_owned()) })
}

fn keep_runs(node: &Node, problems: &mut Problems) -> Option<Duration> {
    let text = node.text("'store.keep'", problems)?;
    let parsed = text.parse().ok().map(|Period(time)| time).filter(|time| *time >= LEAST_KEPT);
    if parsed.is_none() {
        problems.add_with_hint(
            node.position,
            format!("'store.keep': '{text}' is no time of a day or more"),
            "write for example 90d",
        );
    }
    parsed
}

fn defaults(node: &Node, problems: &mut Problems) -> Defaults {
    let entries = node.entries("'defaults'", problems);
    problems.check_keys(entries, "'defaults'", ["lineage", "spool"]);
    Defaults {
        lineage: node.get("lineage").and_then(|node| node.flag("'defaults.lineage'", problems)),
        spool: node.get("spool").and_then(|node| node.text("'defaults.spool'", problems)).map(str::to_owned),
    }
}

fn serve(node: &Node, problems: &mut Problems) -> Serve {
    let entries = node.entries("'serve'", problems);
    problems.check_keys(entries, "'serve'", ["files", "pg", "flight"]);
    let mut text = |key: &str| {
        let value = node.get(key).and_then(|node| node.text(&format!("'serve.{key}'"), problems));
        value.map(str::to_owned)
    };
    Serve { files: text("files"), pg: text("pg"), flight: text("flight") }
}

fn connections(node: &Node, problems: &mut Problems) -> Vec<ConnectionSettings> {
    let entries = node.entries("'connections'", problems);
    entries.iter().filter_map(|(key, value)| connection(key, value, problems)).collect()
}

fn connection(key: &Key, node: &Node, problems: &mut Problems) -> Option<ConnectionSettings> {
    let name = &key.name;
    if let Err(error) = check_name(name) {
        problems.add_with_hint(key.position, error.message(), error.remedy().unwrap_or_default());
    }
    let what = format!("connection '{name}'");
    let entries = node.entries(&what, problems);
    let Some(kind) = node.get("kind") else {
        problems.add_with_hint(key.position, format!("{what} has no 'kind'"), kinds());
        return None;
    };
    let text = kind.text(&format!("'kind' of {what}"), problems)?;
    let kind = match kind_named(text) {
        Ok(found) => found,
        Err(error) => {
            problems.add_with_hint(kind.position, format!("{what}: {error}"), error.remedy().unwrap_or_default());
            return None;
        }
    };
    problems.check_keys(entries, &what, std::iter::once("kind").chain(kind.fields.iter().map(|field| field.name)));
    let fields = entries.iter().filter(|(key, _)| key.name != "kind");
    let fields: Vec<_> = fields.filter_map(|(key, node)| field(key, node, kind, &what, problems)).collect();
    for required in kind.fields.iter().filter(|field| field.required) {
        if node.get(required.name).is_none() {
            problems.add_with_hint(key.position, format!("{what} lacks '{}'", required.name), required.about);
        }
    }
    Some(ConnectionSettings { name: name.clone(), kind, fields, position: key.position })
}

fn field(key: &Key, node: &Node, kind: &Kind, what: &str, problems: &mut Problems) -> Option<(String, RawField)> {
    let name = format!("'{}' of {what}", key.name);
    let takes_map = kind.fields.iter().any(|field| field.name == key.name && field.takes_map());
    let raw = if takes_map {
        let mut values = Vec::new();
        for (key, node) in node.entries(&name, problems) {
            if let Some(text) = node.text(&format!("'{}' in {name}", key.name), problems) {
                values.push((key.name.clone(), text.to_owned()));
            }
        }
        RawField::Map(values)
    } else {
        // An empty value is one that is not given.
        if node.value == Value::Null {
            return None;
        }
        RawField::Text(node.text(&name, problems)?.to_owned())
    };
    Some((key.name.clone(), raw))
}

/// Whether a connection may have this name: it stands before a dot in addresses, and `lake` is taken.
///
/// Errors: `Invalid`.
pub fn check_name(name: &str) -> Result<()> {
    use flumen_core::Error;
    if name == LAKE {
        return Err(Error::invalid("no connection can be called 'lake': that name stands for the project's lake")
            .hint("choose another name"));
    }
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && name.len() <= 64;
    if good {
        Ok(())
    } else {
        Err(Error::invalid(format!("'{name}' cannot be the name of a connection"))
            .hint("use a letter, then letters, digits, '_' and '-', 64 at most"))
    }
}

/// A remedy that lists the kinds.
pub(crate) fn kinds() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    format!("the kinds are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file() {
        let text = "\
name: taxi
lake: { root: s3://trips/lake }
connections:
  pg:
    kind: postgres
    host: \"{{ env_var('PG_HOST') }}\"
    password: \"{{ secret_env('PG_PASSWORD') }}\"
    port: 5433
  tlc:
    kind: http
    url: https://example.org/
    headers:
      X-Key: 007
vars:
  month: 2019-01
defaults:
  lineage: no
";
        let settings = Settings::parse("flumen.yml", text).expect("valid");
        assert_eq!(settings.name.as_deref(), Some("taxi"));
        assert_eq!(settings.lake_root, "s3://trips/lake");
        assert_eq!(settings.vars["month"], "2019-01");
        assert_eq!(settings.defaults.lineage, Some(false));
        let names: Vec<_> = settings.connections.iter().map(|c| (c.name.as_str(), c.kind.name)).collect();
        assert_eq!(names, [("pg", "postgres"), ("tlc", "http")]);
        let headers = RawField::Map(vec![("X-Key".to_owned(), "007".to_owned())]);
        assert!(settings.connections[1].fields[1] == ("headers".to_owned(), headers));
    }

    #[test]
    fn an_empty_file_is_a_project_with_defaults() {
        let settings = Settings::parse("flumen.yml", "").expect("valid");
        assert_eq!((settings.name, settings.lake_root.as_str()), (None, "lake"));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "\
nmae: taxi
lake: here
connections:
  lake: { kind: local, root: . }
  pg:
    kind: postgre
  b:
    kind: s3
    buckets: x
  c:
    root: [1]
";
        let error = Settings::parse("flumen.yml", text).expect_err("mistakes");
        assert_eq!(
            error.to_string(),
            "flumen.yml has 7 mistakes\n  \
             flumen.yml:1:1: unknown key 'nmae' in flumen.yml (did you mean 'name'?)\n  \
             flumen.yml:2:7: 'lake' must have keys (write 'lake:' and below it '  root: FOLDER')\n  \
             flumen.yml:4:3: no connection can be called 'lake': that name stands for the project's lake (choose another name)\n  \
             flumen.yml:6:11: connection 'pg': there is no kind 'postgre' of connection (did you mean 'postgres'?)\n  \
             flumen.yml:7:3: connection 'b' lacks 'bucket' (the name of the bucket)\n  \
             flumen.yml:9:5: unknown key 'buckets' in connection 'b' (did you mean 'bucket'?)\n  \
             flumen.yml:10:3: connection 'c' has no 'kind' (the kinds are local, http, s3, gcs, azure, postgres, smtp)"
        );
    }
}
