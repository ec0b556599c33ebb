//! What a checker has to know besides the file: what the project has, and what texts mean that other parts read.

use std::collections::{BTreeMap, BTreeSet};

use flumen_core::task_kind::shape;
use flumen_core::{Error, Result};
use minijinja::{Environment, ErrorKind};

use super::mistake::Place;
use super::params::ParamSpec;
use super::schedule::{RuleSpec, ScheduleSpec};

/// What the project has.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The names of its connections.
    pub connections: BTreeSet<String>,
    /// The fields that connections have. Of one that is not there nothing is known.
    pub connection_fields: BTreeMap<String, BTreeSet<String>>,
    /// The names of its vars.
    pub vars: BTreeSet<String>,
    /// The names of its pools. `default` need not be among them.
    pub pools: BTreeSet<String>,
    /// Its flows, by name.
    pub flows: BTreeMap<String, KnownFlow>,
    /// The data sets that its flows write, if they are known.
    pub datasets: BTreeSet<String>,
    /// Whether everything that a flow names outside itself is taken to be there: as for a version of a flow that was checked when
    /// its run was made, and is read again.
    pub trusting: bool,
}

impl Surroundings {
    /// Those of a flow that was checked before.
    pub fn trusting() -> Self {
        Self { trusting: true, ..Self::default() }
    }

    pub(super) fn has_connection(&self, name: &str) -> bool {
        self.trusting || name == flumen_core::dataset::LAKE || self.connections.contains(name)
    }

    pub(super) fn has_var(&self, name: &str) -> bool {
        self.trusting || self.vars.contains(name)
    }

    /// Whether whatever a flow names is taken to be there.
    pub(super) fn is_trusting(&self) -> bool {
        self.trusting
    }

    pub(super) fn has_pool(&self, name: &str) -> bool {
        self.trusting || name == super::DEFAULT_POOL || self.pools.contains(name)
    }
}

/// Another flow.
#[derive(Debug, Clone, Default)]
pub struct KnownFlow {
    /// The file that it is in.
    pub file: String,
    /// What its runs can be told; not known, where the file has mistakes.
    pub params: Option<Vec<ParamSpec>>,
}

/// The names that a template uses and does not itself define: `["params", "color"]`, `["outputs", "load", "rows"]`.
///
/// A name that stands in quotes is meant too, where it can be seen: `outputs['load']` and `var('x')` are `["outputs", "load"]`
/// and `["var", "x"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Each of them.
    pub names: BTreeSet<Vec<String>>,
    /// Where each stands first in the text, as far as that is known.
    pub places: BTreeMap<Vec<String>, Place>,
    /// What else is wrong, whatever the names mean.
    pub problems: Vec<SyntaxProblem>,
}

/// Why a text is not a template or an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxProblem {
    /// One sentence without a place.
    pub message: String,
    /// The line in the text, from 1.
    pub line: usize,
    /// The character in it, from 1.
    pub column: usize,
}

/// A file of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectFile {
    /// It is not there.
    Missing,
    /// It is, with this text.
    Text(String),
    /// It is, or may be; what is in it is not looked at.
    Unread,
}

/// What texts in a flow mean, as far as the checker has to know.
pub trait Texts {
    /// The names in a template.
    fn references(&self, template: &str) -> Result<References, SyntaxProblem>;

    /// The names in an expression, which stands without `{{ }}`.
    fn expression(&self, expression: &str) -> Result<References, SyntaxProblem> {
        self.references(&format!("{{{{ {expression} }}}}"))
    }

    /// Whether a rule can be read in a schedule with the time zone and the start of `around`.
    ///
    /// Errors: what is wrong with it.
    fn rule(&self, rule: &RuleSpec, around: &ScheduleSpec) -> Result<()>;

    /// Whether there is a time zone of this name.
    ///
    /// Errors: that there is none, with the nearest.
    fn zone(&self, name: &str) -> Result<()>;

    /// Whether this is a date or a stretch of time, such as `2021-01`.
    ///
    /// Errors: that it is not.
    fn moment(&self, text: &str) -> Result<()>;

    /// Whether a schedule whose parts can be read makes sense as a whole.
    ///
    /// Errors: which parts contradict each other.
    fn schedule(&self, schedule: &ScheduleSpec) -> Result<()> {
        let _ = schedule;
        Ok(())
    }

    /// A file that a task names, from its path in the project.
    fn file(&self, path: &str) -> ProjectFile {
        let _ = path;
        ProjectFile::Unread
    }
}

/// Texts as Jinja and chrono have them: templates are parsed, and of schedules only what is plainly wrong is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainTexts;

impl Texts for PlainTexts {
    fn references(&self, template: &str) -> Result<References, SyntaxProblem> {
        let jinja = Environment::new();
        let parsed = jinja.template_from_str(template).map_err(|error| syntax(&error))?;
        let names = parsed.undeclared_variables(true);
        let names = names.iter().map(|name| name.split('.').map(str::to_owned).collect()).collect();
        Ok(References { names, ..References::default() })
    }

    fn expression(&self, expression: &str) -> Result<References, SyntaxProblem> {
        let jinja = Environment::new();
        let parsed = jinja.compile_expression(expression).map_err(|error| syntax(&error))?;
        let names = parsed.undeclared_variables(true);
        let names = names.iter().map(|name| name.split('.').map(str::to_owned).collect()).collect();
        Ok(References { names, ..References::default() })
    }

    fn rule(&self, rule: &RuleSpec, _around: &ScheduleSpec) -> Result<()> {
        match rule {
            RuleSpec::Cron(text) => {
                let fields = text.split_whitespace().count();
                let is_name = text.starts_with('@') && fields == 1;
                if is_name || fields == 5 || fields == 6 {
                    return Ok(());
                }
                let hint = "write 5 or 6 fields such as '0 6 * * *', or a name such as @daily";
                Err(Error::invalid(format!("'{text}' is not a cron expression")).hint(hint))
            }
            RuleSpec::Every(text) | RuleSpec::Rrule(text) if text.trim().is_empty() => {
                Err(Error::invalid("the rule is empty"))
            }
            RuleSpec::Every(_) | RuleSpec::Rrule(_) => Ok(()),
            RuleSpec::Dates(dates) => dates.iter().try_for_each(|date| self.moment(date)),
        }
    }

    fn zone(&self, name: &str) -> Result<()> {
        if name.parse::<chrono_tz::Tz>().is_ok() {
            return Ok(());
        }
        let error = Error::invalid(format!("there is no time zone '{name}'"));
        let error = error.hint("write a name such as Europe/Berlin, or UTC");
        Err(error.did_you_mean(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())))
    }

    fn moment(&self, text: &str) -> Result<()> {
        let is_month = text.len() == 7 && shape::moment(&format!("{text}-01")).is_ok();
        if is_month { Ok(()) } else { shape::moment(text).map(drop) }
    }
}

fn syntax(error: &minijinja::Error) -> SyntaxProblem {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let message = match error.kind() {
        ErrorKind::SyntaxError => detail,
        _ => error.to_string(),
    };
    SyntaxProblem { message, line: error.line().unwrap_or(1), column: 1 }
}
