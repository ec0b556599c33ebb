//! What texts in a flow mean, as timetables and templates have it: the [`Texts`] of everybody but tests.

use std::collections::{BTreeMap, BTreeSet};

use flumen_core::Result;

use super::mistake::Place;
use super::schedule::{RuleSpec, ScheduleSpec};
use super::surroundings::{ProjectFile, References, SyntaxProblem, Texts};
use crate::compiled::timetable_of;
use crate::template::{self, Names};
use crate::timetable::dates::Stretch;
use crate::timetable::zone;

/// Finds a file that a task names, by its path in the project.
pub type FileLookup<'a> = &'a dyn Fn(&str) -> ProjectFile;

/// Texts, read by the parts that will use them.
#[derive(Clone, Copy)]
pub struct Meanings<'a> {
    file: FileLookup<'a>,
}

impl<'a> Meanings<'a> {
    /// Looks for files with `file`.
    pub fn new(file: FileLookup<'a>) -> Self {
        Self { file }
    }
}

impl std::fmt::Debug for Meanings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanings")
    }
}

impl Texts for Meanings<'_> {
    fn references(&self, template: &str) -> Result<References, SyntaxProblem> {
        template::sound(template).map(references).map_err(problem)
    }

    fn expression(&self, expression: &str) -> Result<References, SyntaxProblem> {
        template::sound_expression(expression).map(references).map_err(problem)
    }

    fn rule(&self, rule: &RuleSpec, around: &ScheduleSpec) -> Result<()> {
        let spec = ScheduleSpec { rules: vec![rule.clone()], ..around.clone() };
        timetable_of(Some(&spec)).map(drop)
    }

    fn zone(&self, name: &str) -> Result<()> {
        zone::parse(name).map(drop)
    }

    fn moment(&self, text: &str) -> Result<()> {
        Stretch::parse(text, chrono_tz::UTC).map(drop)
    }

    fn schedule(&self, schedule: &ScheduleSpec) -> Result<()> {
        timetable_of(Some(schedule)).map(drop)
    }

    fn file(&self, path: &str) -> ProjectFile {
        (self.file)(path)
    }
}

fn references((names, mistakes): (Names, Vec<template::Mistake>)) -> References {
    let mut places = BTreeMap::new();
    for name in &names.used {
        places.entry(name.parts.clone()).or_insert(Place { line: name.place.line, column: name.place.column });
    }
    let names: BTreeSet<Vec<String>> = names.used.into_iter().map(|name| name.parts).collect();
    References { names, places, problems: mistakes.into_iter().map(problem).collect() }
}

fn problem(mistake: template::Mistake) -> SyntaxProblem {
    let message = match mistake.hint {
        Some(hint) => format!("{}: {hint}", mistake.message),
        None => mistake.message,
    };
    SyntaxProblem { message, line: mistake.place.line, column: mistake.place.column }
}
