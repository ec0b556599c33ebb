//! What happened in a story: all that its oracle may know.

use flumen_core::flow::{FlowVersion, Interval, RunRecord};
use flumen_flow::definition::{Catchup, Flow, OnOverlap};

use super::tables::{Moment, Table};
use crate::gate::Done;
use crate::world;

/// A stretch of time; without an end, it lasts until the end of the story.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub from: Moment,
    pub to: Option<Moment>,
}

impl Span {
    pub fn since(from: Moment) -> Self {
        Self { from, to: None }
    }

    pub fn has(&self, moment: Moment) -> bool {
        self.from <= moment && self.to.is_none_or(|to| moment < to)
    }

    /// Whether any of it is between `from` and `to`.
    pub fn meets(&self, from: Moment, to: Moment) -> bool {
        self.from <= to && self.to.is_none_or(|end| from <= end)
    }
}

/// Ends what lasts.
pub fn end(spans: &mut [Span], at: Moment) {
    if let Some(span) = spans.last_mut().filter(|span| span.to.is_none()) {
        span.to = Some(at);
    }
}

/// A flow, as its file says.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    pub table: Table,
    pub catchup: Catchup,
    pub overlap: OnOverlap,
    pub limit: usize,
    /// What else the file says.
    pub mark: u64,
}

impl Definition {
    pub fn flow(&self) -> Flow {
        Flow {
            max_active_runs: self.limit as u32,
            on_overlap: self.overlap,
            description: Some(format!("edition {}", self.mark)),
            ..world::flow(&self.name, Some(self.table.spec(self.catchup)))
        }
    }
}

/// A definition, while the project has it.
#[derive(Debug, Clone)]
pub struct Era {
    pub definition: Definition,
    pub version: FlowVersion,
    pub span: Span,
}

#[derive(Debug, Default)]
pub struct FlowFacts {
    pub name: String,
    /// The definitions, one after the other.
    pub eras: Vec<Era>,
    pub pauses: Vec<Span>,
    /// All its runs, in the order in which they were made.
    pub runs: Vec<RunRecord>,
}

/// A scheduler.
#[derive(Debug)]
pub struct Life {
    pub span: Span,
    /// When it could not reach the store at all.
    pub away: Vec<Span>,
    /// When some of its calls failed.
    pub lossy: Vec<Span>,
}

/// Intervals that a scheduler said it would not run.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub by: usize,
    pub at: Moment,
    pub flow: String,
    pub missed: bool,
    pub first: Interval,
    pub last: Interval,
}

#[derive(Debug, Default)]
pub struct Facts {
    pub flows: Vec<FlowFacts>,
    pub lives: Vec<Life>,
    /// Clocks showed the one, and then the other.
    pub jumps: Vec<(Moment, Moment)>,
    pub deeds: Vec<Done>,
    pub news: Vec<News>,
    pub end: Moment,
}
