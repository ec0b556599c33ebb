//! YAML as a tree in which everything knows its line and column, and the list of what is wrong with it.
//!
//! Scalars stay the text that the file has (`0123` is not 123): whoever knows the meaning of a key decides what its text
//! means. A reader goes on after a mistake, and notes it in [`Problems`], so that people see all of them at once.
//! Anchors, aliases and tags are refused: a settings file that needs them is hard to read.

use flumen_core::error::nearest;
use flumen_core::{Error, Result};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

/// How deep values may be nested.
const DEPTH: usize = 32;

/// A place in a file. Line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// Text, without its quotes.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file. No key is there twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it begins.
    pub position: Position,
    /// Its text.
    pub name: String,
}

/// What is wrong with a file, in order of its lines.
#[derive(Debug)]
pub struct Problems {
    file: String,
    list: Vec<(Position, String, Option<String>)>,
}

impl Problems {
    /// No problems with `file` so far.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), list: Vec::new() }
    }

    /// Notes a problem.
    pub fn add(&mut self, position: Position, message: impl Into<String>) {
        self.list.push((position, message.into(), None));
    }

    /// Notes a problem with a remedy.
    pub fn add_with_hint(&mut self, position: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.list.push((position, message.into(), Some(hint.into())));
    }

    /// Notes each key of `map` that is not in `known`, with the nearest that is. `what` has the keys: `'lake'`.
    pub fn check_keys<'a>(
        &mut self,
        map: &[(Key, Node)],
        what: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) {
        for (key, _) in map {
            if known.clone().into_iter().any(|name| name == key.name) {
                continue;
            }
            let hint = match nearest(&key.name, known.clone()) {
                Some(right) => format!("did you mean '{right}'?"),
                None => format!("{what} takes: {}", known.clone().into_iter().collect::<Vec<_>>().join(", ")),
            };
            self.add_with_hint(key.position, format!("unknown key '{}' in {what}", key.name), hint);
        }
    }

    /// `Ok` if there are none; else one error of kind `Invalid` that tells them all.
    pub fn finish(mut self) -> Result<()> {
        self.list.sort_by_key(|(position, ..)| *position);
        let place = |position: &Position| format!("{}:{}:{}", self.file, position.line, position.column);
        match self.list.as_slice() {
            [] => Ok(()),
            [(position, message, hint)] => {
                let error = Error::invalid(format!("{}: {message}", place(position)));
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
            many => {
                let mut text = format!("{} has {} mistakes", self.file, many.len());
                for (position, message, hint) in many {
                    text.push_str(&format!("\n  {}: {message}", place(position)));
                    if let Some(hint) = hint {
                        text.push_str(&format!(" ({hint})"));
                    }
                }
                Err(Error::invalid(text))
            }
        }
    }
}

impl Node {
    /// Reads the one document in `text`. An empty document is [`Value::Null`].
    ///
    /// Errors: `Invalid`, with `file`, line and column, when it is not YAML or uses what is refused here.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let mut reader = Reader { events: Parser::new_from_str(text), file, last: Position { line: 1, column: 1 } };
        let mut root = None;
        loop {
            let (event, span) = reader.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => return Err(reader.refuse("a second document in one file")),
                event => root = Some(reader.node(event, span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node { position: Position { line: 1, column: 1 }, value: Value::Null }))
    }

    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The entries of a map; none for null. Anything else is noted: "'lake' must have keys".
    pub fn entries(&self, what: &str, problems: &mut Problems) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                problems.add(self.position, format!("{what} must have keys and values, such as 'name: value'"));
                &[]
            }
        }
    }

    /// The text of a scalar. Anything else is noted, and gives `None`.
    pub fn text(&self, what: &str, problems: &mut Problems) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null => {
                problems.add(self.position, format!("{what} has no value"));
                None
            }
            _ => {
                problems.add(self.position, format!("{what} must be one value, not a list or a map"));
                None
            }
        }
    }

    /// A scalar that means yes or no. Anything else is noted, and gives `None`.
    pub fn flag(&self, what: &str, problems: &mut Problems) -> Option<bool> {
        let text = self.text(what, problems)?;
        let flag = flag(text);
        if flag.is_none() {
            problems.add(self.position, format!("{what} must be true or false, not '{text}'"));
        }
        flag
    }
}

/// What a text says about yes and no.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

struct Reader<'a> {
    events: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    file: &'a str,
    last: Position,
}

impl<'a> Reader<'a> {
    /// The next event. (Comments are none: the feature of the parser is off.)
    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.events.next() {
            Some(Ok((event, span))) => {
                self.last = position(&span);
                Ok((event, span))
            }
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                Err(Error::invalid(format!("{}:{line}:{column}: {}", self.file, error.info()))
                    .hint("check the indentation and the quotes in this line and the one above"))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn refuse(&self, what: &str) -> Error {
        Error::invalid(format!("{}:{}:{}: {what} is not supported", self.file, self.last.line, self.last.column))
            .hint("write plain keys and values")
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node> {
        if depth > DEPTH {
            return Err(self.refuse("nesting as deep as this"));
        }
        let position = position(&span);
        let value = match event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                return Err(self.refuse("an anchor (&name)"));
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                return Err(self.refuse("a tag (!name)"));
            }
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(self.refuse("an alias (*name)")),
        };
        Ok(Node { position, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Map(entries)),
                (Event::Scalar(text, ..), span) => Key { position: position(&span), name: text.into_owned() },
                _ => return Err(self.refuse("a key that is not plain text")),
            };
            if let Some((first, _)) = entries.iter().find(|(other, _)| other.name == key.name) {
                return Err(Error::invalid(format!(
                    "{}:{}:{}: the key '{}' is here a second time; the first is in line {}",
                    self.file, key.position.line, key.position.column, key.name, first.position.line
                ))
                .hint("keep one of them"));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            entries.push((key, value));
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    if style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Text(text)
    }
}

fn position(span: &Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        let place = format!("{}:{} ", node.position.line, node.position.column);
        place
            + &match &node.value {
                Value::Null => "null".to_owned(),
                Value::Text(text) => format!("{text:?}"),
                Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
                Value::Map(entries) => {
                    let entry = |(key, node): &(Key, Node)| {
                        format!("{}@{}:{} {}", key.name, key.position.line, key.position.column, show(node))
                    };
                    format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
                }
            }
    }

    fn check(text: &str, expect: &str) {
        let got = match Node::parse("f.yml", text) {
            Ok(node) => show(&node),
            Err(error) => format!("error {error}"),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn everything_knows_its_place() {
        check("", "1:1 null");
        check("# only a comment\n", "1:1 null");
        check(
            "a: 1 # one\nb:\n  c: \"x y\"\n  d: [0123, ~]\n",
            "1:1 {a@1:1 1:4 \"1\", b@2:1 3:3 {c@3:3 3:6 \"x y\", d@4:3 4:6 [4:7 \"0123\", 4:13 null]}}",
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_place() {
        check("a: &x 1\nb: *x\n", "error f.yml:1:7: an anchor (&name) is not supported");
        check("a: !!str 1\n", "error f.yml:1:10: a tag (!name) is not supported");
        check("a: 1\n---\nb: 2\n", "error f.yml:3:1: a second document in one file is not supported");
        check("a: 1\na: 2\n", "error f.yml:2:1: the key 'a' is here a second time; the first is in line 1");
        check("? [x]\n: 1\n", "error f.yml:1:3: a key that is not plain text is not supported");
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        check(&deep, "error f.yml:1:34: nesting as deep as this is not supported");
    }

    #[test]
    fn broken_yaml_has_a_place() {
        let error = Node::parse("f.yml", "a: \"x\nb: 1\n").expect_err("an open quote");
        assert!(error.to_string().starts_with("f.yml:"), "{error}");
    }

    #[test]
    fn all_mistakes_are_told() {
        let node = Node::parse("f.yml", "nmae: x\nname: [1]\nzzz: 3\n").expect("YAML");
        let mut problems = Problems::new("f.yml");
        let entries = node.entries("the file", &mut problems);
        problems.check_keys(entries, "the file", ["name", "vars"]);
        node.get("name").expect("name").text("'name'", &mut problems);
        let error = problems.finish().expect_err("three mistakes");
        assert_eq!(
            error.to_string(),
            "f.yml has 3 mistakes\n  \
             f.yml:1:1: unknown key 'nmae' in the file (did you mean 'name'?)\n  \
             f.yml:2:7: 'name' must be one value, not a list or a map\n  \
             f.yml:3:1: unknown key 'zzz' in the file (the file takes: name, vars)"
        );
    }
}
