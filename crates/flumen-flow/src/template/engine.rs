//! Compiling and running templates, and saying in our words what is wrong with them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, OnceLock};

use flumen_core::Error;
use flumen_core::secret::MASK;
use minijinja::machinery::{self, CodeGenerator, Instruction, Instructions, ast};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Expression, UndefinedBehavior};

use super::check;
use super::dates;
use super::follow;
use super::names::{Names, Walk};
use super::place::Place;
use super::scope::{Node, Scope, Thing};

/// How much work one template may be, in instructions: far more than any needs, and an end for one that has none.
const FUEL: u64 = 5_000_000;

/// The longest text that a template may give.
const LONGEST_TEXT_BYTES: usize = 16 << 20;

/// No filter of a template: what stands for the operators.
const OPERATORS: &[&str] = &["+", "-", "*", "<", "<=", ">", ">="];

const NO_LOCAL: u8 = !0;

/// What is wrong with a template, before it is known where the template stands.
#[derive(Debug)]
pub(super) struct Broken {
    pub message: String,
    pub hint: Option<String>,
    pub place: Option<Place>,
    /// Whether all names are known, and only the value at hand lacks a part.
    pub is_missing: bool,
}

impl Broken {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, place: None, is_missing: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn of(error: &Error) -> Self {
        let hint = error.remedy().map(str::to_owned);
        Self { hint, ..Self::new(error.message()) }
    }

    /// It without the secrets that the template used.
    pub(super) fn masked(mut self, secrets: &[String]) -> Self {
        for secret in secrets {
            self.message = self.message.replace(secret.as_str(), MASK);
            self.hint = self.hint.map(|hint| hint.replace(secret.as_str(), MASK));
        }
        self
    }

    pub(super) fn error(self) -> Error {
        let message = match self.place {
            // Most templates are one line, in which the name says enough.
            Some(place) if place.line > 1 => format!("{} (line {})", self.message, place.line),
            _ => self.message,
        };
        let error = Error::invalid(message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// What all templates share: filters, tests, and functions that need no context.
pub(super) fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut jinja = Environment::new();
        jinja.set_undefined_behavior(UndefinedBehavior::Strict);
        jinja.set_fuel(Some(FUEL));
        jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // It would show secrets.
        jinja.remove_global("debug");
        for (name, format) in check::DATE_FILTERS {
            jinja.add_filter(*name, move |value: Value| date_filter(format, &value));
        }
        for operator in OPERATORS {
            jinja.add_filter(*operator, move |left: Value, right: Value| operate(operator, &left, &right));
        }
        jinja
    })
}

/// `ds`, `ts` and the like as filters of a date.
fn date_filter(format: &str, value: &Value) -> Result<Value, minijinja::Error> {
    let moment = dates::moment_or_text(value, chrono_tz::Tz::UTC)?;
    Ok(Value::from(match format {
        "" => moment.isoformat('T'),
        "tz" => format!("{}{}", moment.text("%Y%m%dT%H%M%S"), dates::offset_of(&moment)),
        format => moment.text(format),
    }))
}

fn operate(operator: &'static str, left: &Value, right: &Value) -> Result<Value, minijinja::Error> {
    if left.is_undefined() || right.is_undefined() {
        return Err(minijinja::Error::from(ErrorKind::UndefinedError));
    }
    match (dates::operate(operator, left, right), operator) {
        (Some(result), _) => result,
        (None, "<") => Ok(Value::from(left < right)),
        (None, "<=") => Ok(Value::from(left <= right)),
        (None, ">") => Ok(Value::from(left > right)),
        (None, ">=") => Ok(Value::from(left >= right)),
        (None, _) => native(operator)?.eval(Value::from_pairs([("a", left.clone()), ("b", right.clone())])),
    }
}

/// What an operator means to minijinja.
fn native(operator: &'static str) -> Result<&'static Expression<'static, 'static>, minijinja::Error> {
    type Natives = BTreeMap<&'static str, Expression<'static, 'static>>;
    static PLAIN: OnceLock<Environment<'static>> = OnceLock::new();
    static NATIVES: OnceLock<Natives> = OnceLock::new();
    let plain = PLAIN.get_or_init(Environment::new);
    let natives = NATIVES.get_or_init(|| {
        let compiled = [("+", "a + b"), ("-", "a - b"), ("*", "a * b")];
        let compiled = compiled.into_iter().map(|(operator, text)| Ok((operator, plain.compile_expression(text)?)));
        compiled.collect::<Result<_, minijinja::Error>>().unwrap_or_default()
    });
    natives.get(operator).ok_or_else(|| dates::wrong(format!("there is no operator '{operator}'")))
}

fn syntax() -> Result<SyntaxConfig, minijinja::Error> {
    // What is no template stays as it is, to the last line break.
    SyntaxConfig::builder().keep_trailing_newline(true).build()
}

const FIELD: &str = "<field>";

fn parse(source: &str) -> Result<ast::Stmt<'_>, Broken> {
    let parsed = syntax().and_then(|syntax| machinery::parse(source, FIELD, syntax));
    parsed.map_err(|error| unreadable(source, &error))
}

fn parse_expression(source: &str) -> Result<ast::Expr<'_>, Broken> {
    machinery::parse_expr(source).map_err(|error| unreadable(source, &error))
}

fn unreadable(source: &str, error: &minijinja::Error) -> Broken {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let offset = error.range().map(|range| range.start);
    let line = || error.line().map(|line| Place { line, column: 1 });
    let place = offset.map(|offset| Place::of(source, offset)).or_else(line);
    let broken = Broken::new(match place {
        Some(place) => format!("the template is not well formed at {place}: {detail}"),
        None => format!("the template is not well formed: {detail}"),
    });
    Broken { place, ..broken }
}

pub(super) fn names_of(source: &str) -> Result<Names, Broken> {
    let mut walk = Walk::new(source);
    walk.statement(&parse(source)?);
    Ok(walk.finish())
}

pub(super) fn names_of_expression(source: &str) -> Result<Names, Broken> {
    let mut walk = Walk::new(source);
    walk.expression(&parse_expression(source)?);
    Ok(walk.finish())
}

/// Whether a text is nothing but one `{{ … }}`.
pub(super) fn is_single_expression(source: &str) -> bool {
    bare(source).len() != source.trim().len()
}

/// An expression without the `{{ … }}` that may stand around it.
pub(super) fn bare(source: &str) -> &str {
    let trimmed = source.trim();
    let inner = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let Some(inner) = inner else { return trimmed };
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    // `{{ a }} and {{ b }}` begins and ends like one, too.
    match machinery::parse_expr(inner) {
        Ok(_) => inner.trim(),
        Err(_) => match parse(trimmed) {
            Ok(ast::Stmt::Template(all)) if all.children.len() == 1 => inner.trim(),
            _ => trimmed,
        },
    }
}

/// Puts our functions in the place of operators.
fn with_our_operators(instructions: &mut Instructions<'_>) {
    let mut place = 0;
    while let Some(instruction) = instructions.get_mut(place) {
        let operator = match instruction {
            Instruction::Add => "+",
            Instruction::Sub => "-",
            Instruction::Mul => "*",
            Instruction::Lt => "<",
            Instruction::Lte => "<=",
            Instruction::Gt => ">",
            Instruction::Gte => ">=",
            _ => "",
        };
        if !operator.is_empty() {
            *instruction = Instruction::ApplyFilter(operator, Some(2), NO_LOCAL);
        }
        place += 1;
    }
}

/// The text that a template stands for.
pub(super) fn render(scope: &Arc<Scope>, source: &str) -> Result<String, Broken> {
    let tree = parse(source)?;
    let mut walk = Walk::new(source);
    walk.statement(&tree);
    let names = walk.finish();
    check::at_once(&names, &scope.context)?;
    let mut generator = CodeGenerator::new(FIELD, source);
    generator.compile_stmt(&tree);
    let (mut instructions, mut blocks) = generator.finish();
    with_our_operators(&mut instructions);
    blocks.values_mut().for_each(with_our_operators);
    let mut text = String::new();
    run(scope, &instructions, &blocks, &mut text).map_err(|error| explained(scope, source, &names, &error))?;
    match text.len() > LONGEST_TEXT_BYTES {
        true => Err(Broken::new("the text that the template gives is longer than 16 MiB")),
        false => Ok(text),
    }
}

/// What an expression is.
pub(super) fn evaluate(scope: &Arc<Scope>, source: &str) -> Result<Value, Broken> {
    let tree = parse_expression(source)?;
    let mut walk = Walk::new(source);
    walk.expression(&tree);
    let names = walk.finish();
    check::at_once(&names, &scope.context)?;
    let mut generator = CodeGenerator::new(FIELD, source);
    generator.compile_expr(&tree);
    let (mut instructions, blocks) = generator.finish();
    with_our_operators(&mut instructions);
    let mut text = String::new();
    let value = run(scope, &instructions, &blocks, &mut text);
    match value {
        Ok(Some(value)) if value.kind() == ValueKind::Invalid => Err(Broken::new(value.to_string())),
        Ok(Some(value)) if !value.is_undefined() => Ok(value),
        Ok(_) => {
            let broken = explained(scope, source, &names, &minijinja::Error::from(ErrorKind::UndefinedError));
            Err(Broken { is_missing: true, ..broken })
        }
        Err(error) => {
            let broken = explained(scope, source, &names, &error);
            Err(Broken { is_missing: error.kind() == ErrorKind::UndefinedError, ..broken })
        }
    }
}

fn run<'env>(
    scope: &Arc<Scope>,
    instructions: &Instructions<'env>,
    blocks: &BTreeMap<&'env str, Instructions<'env>>,
    text: &mut String,
) -> Result<Option<Value>, minijinja::Error> {
    let root = Node::value(scope, Thing::Root);
    let mut out = machinery::make_string_output(text);
    let (value, _) = machinery::eval(environment(), instructions, root, blocks, &mut out, AutoEscape::None)?;
    Ok(value)
}

/// What went wrong while a template was rendered.
fn explained(scope: &Arc<Scope>, source: &str, names: &Names, error: &minijinja::Error) -> Broken {
    let range = error.range().unwrap_or(0..source.len());
    let place = error.range().map(|range| Place::of(source, range.start));
    let placed = |broken: Broken| match place {
        Some(place) => broken.at(place),
        None => broken,
    };
    if let Some(ours) = ours(error) {
        return placed(Broken::of(ours));
    }
    // A name in the part that failed which leads nowhere.
    let within = names
        .used
        .iter()
        .filter(|name| name.range.start < range.end.max(range.start + 1) && range.start < name.range.end);
    for name in within.chain(&names.used) {
        if let Some((part, known)) = follow(scope, &name.parts)
            && is_about_undefined(error)
        {
            return check::unknown(&name.parts, part, known.iter().map(String::as_str)).at(name.place);
        }
    }
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    placed(match error.kind() {
        ErrorKind::OutOfFuel => Broken::new("the template does too much work").hint("it loops over too many items"),
        ErrorKind::UndefinedError => Broken::new(match source.get(range).filter(|part| !part.is_empty()) {
            Some(part) => format!("'{part}' has a part that is not there"),
            None => "a part of the template is not there".to_owned(),
        }),
        _ => Broken::new(format!("the template cannot be rendered: {detail}")),
    })
}

fn is_about_undefined(error: &minijinja::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UndefinedError | ErrorKind::InvalidOperation | ErrorKind::UnknownMethod | ErrorKind::MissingArgument
    )
}

/// Our own error in one of minijinja's.
fn ours(error: &minijinja::Error) -> Option<&Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        cause = error.source();
    }
    None
}
