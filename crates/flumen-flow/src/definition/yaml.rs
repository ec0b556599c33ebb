//! YAML as a tree in which everything knows its place.
//!
//! Scalars stay the text that the file has: whoever knows what a value must be decides what its text means (see
//! [`Node::json`]), so that `007` is a text where a text is wanted. Anchors, aliases and merge keys (`<<`) are resolved
//! here, and what came through an alias has the place where it is written. Tags are refused.
//!
//! A template needs no quotes, also where YAML would see its braces as its own: `{ table: lake.raw.{{ params.color }} }`.

use std::borrow::Cow;
use std::collections::HashMap;

use flumen_core::task_kind::shape::{Shape, type_name};
use flumen_core::task_kind::{Path, is_template};
use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::mistake::Place;

/// How deep values may be nested.
const DEPTH: usize = 48;
/// How many values a file may have once its aliases are resolved.
const VALUES: usize = 200_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// A scalar without quotes; empty if nothing is written.
    Plain(String),
    /// A scalar with quotes, or a block of text.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file. No key is there twice.
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub place: Place,
    pub key: String,
    pub value: Node,
}

/// A mistake in the YAML itself: where, what, and the remedy.
pub(super) type Broken = (Place, String, Option<String>);

impl Node {
    /// Reads the one document in `text`. Keys that are there twice are among `mistakes`, and reading goes on.
    ///
    /// Errors: the place where it stops being YAML.
    pub fn parse(text: &str, mistakes: &mut Vec<Broken>) -> Result<Self, Broken> {
        let shielded = shield(text);
        let mut reader = Reader {
            events: Parser::new_from_str(&shielded),
            last: Place::START,
            anchors: HashMap::new(),
            values: 0,
            mistakes,
        };
        let mut root = None;
        loop {
            let (event, span) = reader.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => return Err(reader.refuse("a second document in one file")),
                event => root = Some(reader.node(event, &span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node { place: Place::START, content: Content::Plain(String::new()) }))
    }

    /// The entries, if this is a map.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What `path` leads to.
    pub fn find(&self, path: &Path) -> Option<&Node> {
        path.keys().iter().try_fold(self, |node, key| match &node.content {
            Content::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => node.get(key),
        })
    }

    /// The place of what `path` leads to, or of the last on the way to it that is there: of the key if `at_key`, else of the
    /// value.
    pub fn place_of(&self, path: &Path, at_key: bool) -> Place {
        let mut node = self;
        let mut place = self.place;
        for (depth, key) in path.keys().iter().enumerate() {
            let last = depth + 1 == path.keys().len();
            match &node.content {
                Content::List(items) => {
                    let Some(item) = key.parse::<usize>().ok().and_then(|index| items.get(index)) else {
                        place = node.place;
                        break;
                    };
                    node = item;
                    place = item.place;
                }
                Content::Map(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    node = &entry.value;
                    place = if !last || at_key { entry.place } else { entry.value.place };
                }
                // A bare value stands for a field of its own, and one for a list of one.
                _ => {
                    place = node.place;
                    break;
                }
            }
        }
        place
    }

    /// The text of a scalar, as it is written.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(text) | Content::Quoted(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is written.
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Plain(text) if is_null(text))
    }

    /// The value in JSON. `shape` says what it must be, where that is known: it decides between texts and other scalars.
    pub fn json(&self, shape: Option<Shape<'_>>) -> Value {
        match &self.content {
            Content::Quoted(text) => Value::String(text.clone()),
            Content::Plain(text) => plain(text, shape),
            Content::List(items) => {
                let each = shape.and_then(Shape::items);
                Value::Array(items.iter().map(|item| item.json(each)).collect())
            }
            Content::Map(entries) => {
                let value = |entry: &Entry| {
                    let shape = shape.and_then(|shape| shape.property(&entry.key));
                    (entry.key.clone(), entry.value.json(shape))
                };
                Value::Object(entries.iter().map(value).collect::<Map<_, _>>())
            }
        }
    }
}

fn plain(text: &str, shape: Option<Shape<'_>>) -> Value {
    let value = core_schema(text);
    let Some(shape) = shape.filter(|shape| !shape.allows_everything()) else { return value };
    let name = type_name(&value);
    if shape.allows(name) || name == "integer" && shape.allows("number") {
        return value;
    }
    if shape.allows("boolean") {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "on" => return Value::Bool(true),
            "no" | "off" => return Value::Bool(false),
            _ => {}
        }
    }
    if !value.is_null() && shape.allows("string") { Value::String(text.to_owned()) } else { value }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// What a scalar without quotes means where nobody says what it must be: YAML 1.2's core schema, except that digits with a
/// zero before them, and numbers that would lose digits, stay texts.
fn core_schema(text: &str) -> Value {
    if is_null(text) {
        return Value::Null;
    }
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let has_padding = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if has_padding || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().filter(|_| digits.len() == text.len()).map(Number::from);
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        return unsigned.parse::<i64>().map(Number::from).or_else(|_| unsigned.parse::<u64>().map(Number::from)).ok();
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+')) {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

/// What YAML takes for its own outside quotes. In templates each is replaced by a private character while YAML is read.
const OURS: [char; 7] = ['{', '}', '[', ']', ',', ':', '#'];
/// The first of the private characters.
const SHIELD: u32 = 0xF_0F00;

/// The text with the templates in it made harmless for YAML. No character moves.
fn shield(text: &str) -> Cow<'_, str> {
    if !is_template(text) {
        return Cow::Borrowed(text);
    }
    let mut shielded = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, template) = rest.split_at(start);
        shielded.push_str(before);
        let Some(end) = end_of_template(template) else {
            shielded.push('{');
            rest = &template[1..];
            continue;
        };
        let (template, after) = template.split_at(end + 2);
        shielded.extend(template.chars().map(|c| match (0..).zip(OURS).find(|(_, ours)| *ours == c) {
            Some((number, _)) => char::from_u32(SHIELD + number).unwrap_or(c),
            None => c,
        }));
        rest = after;
    }
    shielded.push_str(rest);
    Cow::Owned(shielded)
}

/// Where the closing braces of the template at the start of `text` are, if they are in the same line and before the next one.
fn end_of_template(text: &str) -> Option<usize> {
    let closing = match text.as_bytes().get(1)? {
        b'{' => "}}",
        b'%' => "%}",
        _ => return None,
    };
    let end = text.find(closing)?;
    let inside = &text[2..end.max(2)];
    (!inside.contains('\n') && !is_template(inside)).then_some(end)
}

fn unshield(text: Cow<'_, str>) -> String {
    let ours = |c: char| OURS.get((c as u32).checked_sub(SHIELD)? as usize).copied();
    if text.chars().any(|c| ours(c).is_some()) {
        text.chars().map(|c| ours(c).unwrap_or(c)).collect()
    } else {
        text.into_owned()
    }
}

struct Reader<'a, 'm> {
    events: Parser<'a, StrInput<'a>>,
    last: Place,
    anchors: HashMap<usize, Node>,
    values: usize,
    mistakes: &'m mut Vec<Broken>,
}

impl<'a> Reader<'a, '_> {
    /// The next event. (Comments are none: the feature of the parser is off.)
    fn next(&mut self) -> Result<(Event<'a>, Span), Broken> {
        match self.events.next() {
            Some(Ok((event, span))) => {
                self.last = place(&span);
                Ok((event, span))
            }
            Some(Err(error)) => {
                let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                let hint = "check the indentation and the quotes in this line and the one above";
                Err((place, format!("this is not YAML: {}", error.info()), Some(hint.to_owned())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn refuse(&self, what: &str) -> Broken {
        (self.last, format!("{what} is not supported"), None)
    }

    fn count(&mut self, values: usize) -> Result<(), Broken> {
        self.values += values;
        if self.values > VALUES { Err(self.refuse(&format!("a file of more than {VALUES} values"))) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Broken> {
        if depth > DEPTH {
            return Err(self.refuse("nesting as deep as this"));
        }
        self.count(1)?;
        let place = place(span);
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        if tag {
            return Err(self.refuse("a tag (!name)"));
        }
        let content = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Content::Plain(unshield(text)),
            Event::Scalar(text, ..) => Content::Quoted(unshield(text)),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(self.refuse("an alias (*name) of something that it is in"));
                };
                self.count(size(&node))?;
                return Ok(node);
            }
            _ => return Err(self.refuse("this")),
        };
        let node = Node { place, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Content, Broken> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, Broken> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (place, key, is_plain) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, style, ..), span) => (place(&span), unshield(text), style == ScalarStyle::Plain),
                _ => return Err(self.refuse("a key that is not plain text")),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            if is_plain && key == "<<" {
                match value.content {
                    Content::List(several) => merged.extend(several),
                    _ => merged.push(value),
                }
            } else if let Some(line) = lines.get(&key) {
                let message = format!("the key '{key}' is here a second time; the first is in line {line}");
                self.mistakes.push((place, message, Some("keep one of them".to_owned())));
            } else {
                lines.insert(key.clone(), place.line);
                entries.push(Entry { place, key, value });
            }
        }
        for node in merged {
            let Content::Map(others) = node.content else {
                let hint = Some("write '<<: *name', where &name stands before keys and values".to_owned());
                self.mistakes.push((node.place, "'<<' takes keys and values".to_owned(), hint));
                continue;
            };
            for other in others {
                if lines.insert(other.key.clone(), other.place.line).is_none() {
                    entries.push(other);
                }
            }
        }
        Ok(Content::Map(entries))
    }
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Plain(_) | Content::Quoted(_) => 1,
        Content::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Content::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let mut mistakes = Vec::new();
        let got = match Node::parse(text, &mut mistakes) {
            Ok(node) => node.json(None).to_string(),
            Err((place, message, _)) => format!("{}:{}: {message}", place.line, place.column),
        };
        let more = mistakes.iter().map(|(place, message, _)| format!("\n{}:{}: {message}", place.line, place.column));
        assert_eq!(got + &more.collect::<String>(), expect, "{text}");
    }

    #[test]
    fn scalars_mean_what_loses_nothing() {
        check("[1, -2, +3, 1.5, 1e3, 0x1f, 0, 0.5, .5]", "[1,-2,3,1.5,1000.0,31,0,0.5,0.5]");
        check(
            "[007, 1_000, 12e4567, 1-2, 2019-01-01, ., 1.2.3, 99999999999999999999]",
            r#"["007","1_000","12e4567","1-2","2019-01-01",".","1.2.3","99999999999999999999"]"#,
        );
        check("[true, False, yes, \"true\", ~, null, '~', ]", r#"[true,false,"yes","true",null,null,"~"]"#);
        check("", "null");
        check("# a comment\na: 1 # one\n\n# more\nb: [1, # two\n 2]\n", "{\"a\":1,\"b\":[1,2]}");
    }

    #[test]
    fn templates_need_no_quotes() {
        check("{ a: x.{{ y['k'] }}_z, b: {{ p }} }", r#"{"a":"x.{{ y['k'] }}_z","b":"{{ p }}"}"#);
        check(
            "a: {{ [1, 2] | map('#') }} # no\nb: {% if x: %}y{% endif %}\n",
            r#"{"a":"{{ [1, 2] | map('#') }}","b":"{% if x: %}y{% endif %}"}"#,
        );
        check(
            "a: \"{{ var(\\\"x\\\") }}\"\nb: |\n  {{ x }}\n  {% y %}\n",
            r#"{"a":"{{ var(\"x\") }}","b":"{{ x }}\n{% y %}\n"}"#,
        );
        check("{ a: '{{ x', b: 1, c: '{{ y }}' }", r#"{"a":"{{ x","b":1,"c":"{{ y }}"}"#);
        check("{ a: {b: {c: 1}}, d: '{{' }", r#"{"a":{"b":{"c":1}},"d":"{{"}"#);
        let node = Node::parse("{ a: {{ x }}, b: 1 }", &mut Vec::new()).unwrap();
        assert_eq!(node.place_of(&Path::of(["b"]), true), Place { line: 1, column: 15 });
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        check(
            "a: &x { k: 1, l: 2 }\nb: { <<: *x, k: 3 }\nc: *x\n",
            r#"{"a":{"k":1,"l":2},"b":{"k":3,"l":2},"c":{"k":1,"l":2}}"#,
        );
        check(
            "a: &x { k: 1 }\nb: &y { k: 2, l: 3 }\nc: { <<: [*x, *y] }\n",
            r#"{"a":{"k":1},"b":{"k":2,"l":3},"c":{"k":1,"l":3}}"#,
        );
        check("a: { <<: 3 }\n", "{\"a\":{}}\n1:10: '<<' takes keys and values");
    }

    #[test]
    fn what_came_by_an_alias_has_the_place_where_it_is_written() {
        let node = Node::parse("a: &x\n  k: 1\nb:\n  <<: *x\n", &mut Vec::new()).unwrap();
        assert_eq!(node.place_of(&Path::of(["b", "k"]), false), Place { line: 2, column: 6 });
        assert_eq!(node.place_of(&Path::of(["b", "k"]), true), Place { line: 2, column: 3 });
        assert_eq!(node.place_of(&Path::of(["b", "nix"]), true), Place { line: 3, column: 1 });
    }

    #[test]
    fn what_is_wrong_is_told() {
        check(
            "a: 1\nb: 2\na: 3\na: 4\n",
            "{\"a\":1,\"b\":2}\n3:1: the key 'a' is here a second time; the first is in line 1\n4:1: the key 'a' is here a second time; the first is in line 1",
        );
        check("a: !x 1\n", "1:7: a tag (!name) is not supported");
        check("a: 1\n---\nb: 1\n", "3:1: a second document in one file is not supported");
        check("? [x]\n: 1\n", "1:3: a key that is not plain text is not supported");
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        check(&deep, "1:50: nesting as deep as this is not supported");
        let laughs: String =
            (1..10).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))).collect();
        let mut mistakes = Vec::new();
        let broken = Node::parse(&format!("a0: &a0 x\n{laughs}"), &mut mistakes).unwrap_err();
        assert!(broken.1.contains("more than 200000 values"), "{broken:?}");
    }
}
