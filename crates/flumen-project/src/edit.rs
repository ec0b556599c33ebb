//! Changing `flumen.yml` and `.env` by program: what people wrote, comments and all, stays byte for byte.

use std::io::Write as _;
use std::path::Path;

use flumen_core::{Error, Result};

use crate::connections::{Kind, Takes, looks_secret};
use crate::environment::{ENV_FILE, Environment};
use crate::project::{PROJECT_FILE, Project};
use crate::settings::{Settings, check_name};
use crate::template::is_template;
use crate::yaml::{Node, Value};

/// What [`add_connection`] is going to write, or has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The lines for `flumen.yml`. They hold no secrets.
    pub lines: String,
    /// The variables that go to `.env`.
    pub variables: Vec<String>,
}

/// Adds a connection to the project's `flumen.yml`. Secrets among `values` go to `.env`, and by name into the file.
///
/// Errors: `Conflict` when there is a connection of this name; `Invalid` for a name, a key or a value that cannot be, and
/// when `connections` is written in a form that cannot be added to.
pub fn add_connection(project: &Project, name: &str, kind: &Kind, values: &[(String, String)]) -> Result<Addition> {
    check_name(name)?;
    if project.connections().any(|connection| connection.name() == name) {
        return Err(Error::conflict(format!("there is a connection '{name}' in {PROJECT_FILE} already"))
            .hint("choose another name, or change it in the file"));
    }
    check_values(kind, values)?;
    let (fields, secrets) = without_secrets(name, kind, values, project.environment());
    let path = project.dir().join(PROJECT_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(path.display(), error))?;
    let (edited, lines) = with_connection(&text, name, kind, &fields)?;
    if !secrets.is_empty() {
        append_variables(project.dir(), &secrets)?;
    }
    replace_file(&path, edited.as_bytes())?;
    Ok(Addition { lines, variables: secrets.into_iter().map(|(variable, _)| variable).collect() })
}

/// Splits `headers.X-Key` into field and key.
fn split(key: &str) -> (&str, Option<&str>) {
    key.split_once('.').map_or((key, None), |(field, key)| (field, Some(key)))
}

fn check_values(kind: &Kind, values: &[(String, String)]) -> Result<()> {
    for (index, (key, _)) in values.iter().enumerate() {
        let (name, inner) = split(key);
        let Some(field) = kind.fields.iter().find(|field| field.name == name) else {
            let names: Vec<&str> = kind.fields.iter().map(|field| field.name).collect();
            return Err(Error::invalid(format!("a connection of kind {} has no '{name}'", kind.name))
                .hint(format!("it takes {}", names.join(", ")))
                .did_you_mean(name, names));
        };
        match (field.takes_map(), inner) {
            (true, None) => {
                return Err(Error::invalid(format!("'{name}' takes values by name"))
                    .hint(format!("write --set {name}.NAME=VALUE")));
            }
            (false, Some(_)) => return Err(Error::invalid(format!("'{name}' takes one value, not values by name"))),
            _ => {}
        }
        if values[..index].iter().any(|(other, _)| other == key) {
            return Err(Error::invalid(format!("'{key}' is set twice")));
        }
    }
    let missing: Vec<&str> = kind
        .fields
        .iter()
        .filter(|field| field.required && !values.iter().any(|(key, _)| key == field.name))
        .map(|field| field.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let wanted: Vec<String> = missing.iter().map(|name| format!("--set {name}=…")).collect();
    Err(Error::invalid(format!("a connection of kind {} needs {}", kind.name, missing.join(" and ")))
        .hint(format!("add {}", wanted.join(" "))))
}

type Pairs = Vec<(String, String)>;

/// The values as they go into the file, and the secrets as they go to `.env`.
fn without_secrets(name: &str, kind: &Kind, values: &[(String, String)], environment: &Environment) -> (Pairs, Pairs) {
    let mut fields = Vec::new();
    let mut secrets: Pairs = Vec::new();
    for (key, value) in values {
        if is_template(value) || !is_secret(kind, key, value) {
            fields.push((key.clone(), value.clone()));
            continue;
        }
        let wanted: String = format!("{name}_{key}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        let free = |candidate: &String| {
            environment.get(candidate).is_none() && !secrets.iter().any(|(taken, _)| taken == candidate)
        };
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let variable = std::iter::once(wanted.clone()).chain(numbered).find(free).unwrap_or_default();
        fields.push((key.clone(), format!("{{{{ secret_env('{variable}') }}}}")));
        secrets.push((variable, value.clone()));
    }
    (fields, secrets)
}

fn is_secret(kind: &Kind, key: &str, value: &str) -> bool {
    let (name, inner) = split(key);
    let takes = kind.fields.iter().find(|field| field.name == name).map(|field| field.takes);
    match takes {
        Some(Takes::Secret) => true,
        Some(Takes::Map) => inner.is_some_and(looks_secret),
        Some(Takes::Url) => url::Url::parse(value).is_ok_and(|url| crate::connections::masked_url(&url).is_some()),
        _ => false,
    }
}

/// The text of `flumen.yml` with one more connection, and the lines that were added. Checked: what it says otherwise is
/// what it said before.
fn with_connection(text: &str, name: &str, kind: &Kind, fields: &[(String, String)]) -> Result<(String, String)> {
    let root = Node::parse(PROJECT_FILE, text)?;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let place = Place::find(&root, text)?;
    let lines = lines(name, kind, fields, place.indent);
    let mut edited = String::with_capacity(text.len() + lines.len() + 32);
    edited.push_str(&text[..place.offset]);
    if !edited.is_empty() && !edited.ends_with('\n') {
        edited.push_str(newline);
    }
    if let Some(heading) = &place.heading {
        edited.push_str(heading);
        edited.push_str(newline);
    }
    for line in lines.lines() {
        edited.push_str(line);
        edited.push_str(newline);
    }
    edited.push_str(&text[place.resume..]);
    check_edit(&root, &edited, name)?;
    Ok((edited, lines))
}

/// Where the new lines go.
struct Place {
    /// They come after this byte …
    offset: usize,
    /// … and the rest of the old text, from this byte, after them.
    resume: usize,
    /// How far connections' names are indented.
    indent: usize,
    /// The line before them, where there is no `connections:` that could be added to.
    heading: Option<String>,
}

impl Place {
    fn find(root: &Node, text: &str) -> Result<Self> {
        let Value::Map(entries) = &root.value else {
            // An empty file, or one of comments alone.
            return Ok(Self {
                offset: text.len(),
                resume: text.len(),
                indent: 2,
                heading: Some("connections:".to_owned()),
            });
        };
        let base = entries.first().map_or(0, |(key, _)| key.position.column - 1);
        let by_hand = || {
            Error::invalid(format!(
                "'connections' in {PROJECT_FILE} is written in braces, where nothing can be added by program"
            ))
            .hint("write it in lines, or add the connection by hand")
        };
        let line_of = |offset: usize| text[..offset].rfind('\n').map_or(0, |at| at + 1);
        if line_offset(text, root.position.line) + base < text.len()
            && text[line_offset(text, root.position.line)..].trim_start().starts_with('{')
        {
            return Err(by_hand());
        }
        let Some((key, node)) = entries.iter().find(|(key, _)| key.name == "connections") else {
            let heading = format!("{}{}connections:", if text.trim().is_empty() { "" } else { "\n" }, " ".repeat(base));
            return Ok(Self { offset: text.len(), resume: text.len(), indent: base + 2, heading: Some(heading) });
        };
        let begin = line_offset(text, key.position.line);
        let end_of_key_line = text[begin..].find('\n').map_or(text.len(), |at| begin + at + 1);
        match &node.value {
            Value::Map(connections)
                if text[begin..end_of_key_line].contains('{') && node.position.line == key.position.line =>
            {
                let braces = text[begin..end_of_key_line].trim_end();
                if !connections.is_empty() || !braces.ends_with("{}") {
                    return Err(by_hand());
                }
                let heading = format!("{}connections:", " ".repeat(base));
                Ok(Self { offset: line_of(begin), resume: end_of_key_line, indent: base + 2, heading: Some(heading) })
            }
            Value::Map(connections) => {
                let indent = connections.first().map_or(base + 2, |(key, _)| key.position.column - 1);
                let end = end_of_block(text, end_of_key_line, base);
                Ok(Self { offset: end, resume: end, indent, heading: None })
            }
            _ => {
                let end = end_of_block(text, end_of_key_line, base);
                Ok(Self { offset: end, resume: end, indent: base + 2, heading: None })
            }
        }
    }
}

/// The byte at which a line, counted from 1, begins.
fn line_offset(text: &str, line: usize) -> usize {
    text.split_inclusive('\n').take(line - 1).map(str::len).sum()
}

/// The byte after the last line that belongs to the block which begins at `start`: lines indented deeper than `base`,
/// comments among them, and the blank lines between those.
fn end_of_block(text: &str, start: usize, base: usize) -> usize {
    let mut end = start;
    let mut offset = start;
    for line in text[start..].split_inclusive('\n') {
        offset += line.len();
        if line.trim().is_empty() {
            continue;
        }
        if line.len() - line.trim_start_matches(' ').len() <= base {
            break;
        }
        end = offset;
    }
    end
}

fn lines(name: &str, kind: &Kind, fields: &[(String, String)], indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut lines = format!("{pad}{name}:\n{pad}  kind: {}\n", kind.name);
    for field in kind.fields {
        if field.takes_map() {
            let entries: Vec<_> = fields
                .iter()
                .filter_map(|(key, value)| Some((split(key).1?, value, split(key).0 == field.name)))
                .collect();
            if entries.iter().any(|(.., mine)| *mine) {
                lines.push_str(&format!("{pad}  {}:\n", field.name));
            }
            for (key, value, _) in entries.iter().filter(|(.., mine)| *mine) {
                lines.push_str(&format!("{pad}    {}: {}\n", quoted(key), quoted(value)));
            }
        } else if let Some((_, value)) = fields.iter().find(|(key, _)| key == field.name) {
            lines.push_str(&format!("{pad}  {}: {}\n", field.name, quoted(value)));
        }
    }
    lines
}

/// A text as YAML: plain where nobody could misunderstand it, in double quotes elsewhere.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '+'))
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off");
    if plain || crate::yaml::flag(text).is_some() {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Holds that an edit added a connection and changed nothing else.
fn check_edit(before: &Node, edited: &str, name: &str) -> Result<()> {
    let broken = || {
        Error::invalid(format!("{PROJECT_FILE} is written in a way that nothing can be added to by program"))
            .hint("add the connection by hand; nothing was changed")
    };
    let after = Node::parse(PROJECT_FILE, edited).map_err(|error| broken().caused_by(error))?;
    Settings::parse(PROJECT_FILE, edited).map_err(|error| broken().caused_by(error))?;
    let (before, after) = (flat(before, &[]), flat(&after, &["connections", name]));
    if before == after { Ok(()) } else { Err(broken()) }
}

/// Everything that a tree says but its places, without what is at the path `left_out`.
fn flat(node: &Node, left_out: &[&str]) -> Vec<String> {
    fn walk(node: &Node, path: &mut Vec<String>, left_out: &[&str], found: &mut Vec<String>) {
        if !left_out.is_empty() && path.iter().map(String::as_str).eq(left_out.iter().copied()) {
            return;
        }
        match &node.value {
            Value::Null => {}
            Value::Text(text) => found.push(format!("{path:?} {text:?}")),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    walk(item, path, left_out, found);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                for (key, item) in entries {
                    path.push(key.name.clone());
                    walk(item, path, left_out, found);
                    path.pop();
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(node, &mut Vec::new(), left_out, &mut found);
    found
}

/// Appends variables to the `.env` in `dir`, which only its owner may read if it is new.
fn append_variables(dir: &Path, variables: &[(String, String)]) -> Result<()> {
    let path = dir.join(ENV_FILE);
    let old = match std::fs::read(&path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io(path.display(), error)),
    };
    let mut text = String::new();
    if !old.is_empty() && !old.ends_with(b"\n") {
        text.push('\n');
    }
    for (name, value) in variables {
        text.push_str(&format!("{name}={}\n", env_quoted(value)));
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Error::io(path.display(), error))
}

/// A value as `.env` takes it.
fn env_quoted(value: &str) -> String {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:@+=,%".contains(c)) {
        value.to_owned()
    } else if !value.contains(['\'', '\n', '\r']) {
        format!("'{value}'")
    } else {
        let mut quoted = String::from("\"");
        for c in value.chars() {
            match c {
                '"' | '\\' | '$' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        quoted
    }
}

/// Replaces a file by a temporary one beside it, so that it is never half written.
fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io(path.display(), error);
    // A link stays a link.
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let temporary = path.with_extension("yml.new");
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.set_permissions(std::fs::metadata(&path)?.permissions())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    });
    written.map_err(|error| {
        // It may not be there; then there is nothing to remove.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::kind_named;

    fn check(text: &str, expect: &str) {
        let fields = [("host".to_owned(), "db.example.org".to_owned()), ("port".to_owned(), "5433".to_owned())];
        let kind = kind_named("postgres").expect("a kind");
        let got = match with_connection(text, "new", kind, &fields) {
            Ok((edited, _)) => edited,
            Err(error) => format!("error {error}"),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn a_connection_is_added_and_the_rest_stays_as_it_was() {
        let new = "  new:\n    kind: postgres\n    host: db.example.org\n    port: 5433\n";
        check("", &format!("connections:\n{new}"));
        check("name:   x # my project", &format!("name:   x # my project\n\nconnections:\n{new}"));
        check(
            "connections:\n  # none yet\n\n# vars\nvars:\n  a: 1\n",
            &format!("connections:\n  # none yet\n{new}\n# vars\nvars:\n  a: 1\n"),
        );
        check(
            "connections:\n  a:\n    kind: local # here\n    root: \"x\"\n  # end\nvars: {b: 1}\n",
            &format!("connections:\n  a:\n    kind: local # here\n    root: \"x\"\n  # end\n{new}vars: {{b: 1}}\n"),
        );
        check("connections: {}\nname: x\n", &format!("connections:\n{new}name: x\n"));
        check(
            "connections:\n  a: {kind: local, root: .}",
            &format!("connections:\n  a: {{kind: local, root: .}}\n{new}"),
        );
    }

    #[test]
    fn the_indentation_and_the_line_ends_of_the_file_are_kept() {
        check(
            "connections:\r\n    a:\r\n        kind: local\r\n        root: .\r\n",
            "connections:\r\n    a:\r\n        kind: local\r\n        root: .\r\n    new:\r\n      kind: postgres\r\n      \
             host: db.example.org\r\n      port: 5433\r\n",
        );
    }

    #[test]
    fn what_cannot_be_added_to_is_refused() {
        let error = "error 'connections' in flumen.yml is written in braces, where nothing can be added by program";
        check("connections: {a: {kind: local, root: .}}\n", error);
        check("{connections: {}}\n", error);
        check("{name: x}\n", error);
    }

    #[test]
    fn secrets_go_to_the_other_file() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(PROJECT_FILE), "# mine\n").expect("written");
        std::fs::write(dir.path().join(ENV_FILE), "PG_PASSWORD=taken").expect("written");
        let project = Project::load_with(dir.path(), Environment::default()).expect("a project");
        let values = [("user", "me"), ("password", "it's $x \"y\"\\")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let added = add_connection(&project, "pg", kind_named("postgres").expect("a kind"), &values).expect("added");
        assert_eq!(added.variables, ["PG_PASSWORD_2"]);
        let text = std::fs::read_to_string(dir.path().join(PROJECT_FILE)).expect("read");
        assert_eq!(
            text,
            "# mine\nconnections:\n  pg:\n    kind: postgres\n    user: me\n    password: \"{{ secret_env('PG_PASSWORD_2') }}\"\n"
        );
        let project = Project::load_with(dir.path(), Environment::default()).expect("still a project");
        assert_eq!(project.environment().get("PG_PASSWORD"), Some("taken"));
        assert_eq!(project.environment().get("PG_PASSWORD_2"), Some("it's $x \"y\"\\"));
        let again = add_connection(&project, "pg", kind_named("postgres").expect("a kind"), &[]).expect_err("there");
        assert_eq!(again.kind(), flumen_core::ErrorKind::Conflict);
    }

    #[test]
    fn values_are_checked_before_anything_is_written() {
        let s3 = kind_named("s3").expect("a kind");
        let told = |values: &[(&str, &str)]| {
            let values: Vec<_> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let error = check_values(s3, &values).expect_err("wrong");
            format!("{error}; {}", error.remedy().unwrap_or("-"))
        };
        assert_eq!(told(&[]), "a connection of kind s3 needs bucket; add --set bucket=…");
        assert_eq!(told(&[("buckt", "x")]), "a connection of kind s3 has no 'buckt'; did you mean 'bucket'?");
        assert_eq!(told(&[("bucket", "x"), ("bucket", "y")]), "'bucket' is set twice; -");
    }
}
