//! Results as tables for people.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::ArrayFormatter;
use flumen_core::Result;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Style, text_format};
use crate::output::{Color, paint};

/// The widest cell on a terminal.
const CELL_WIDTH: usize = 60;
/// How a null is shown.
const NULL: &str = "NULL";

/// How cells are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A line a row.
    Aligned,
    /// A line a value.
    Expanded,
    /// Markdown.
    Markdown,
}

/// The cells of a table, row by row. A null is none.
pub struct Cells {
    names: Vec<String>,
    numeric: Vec<bool>,
    rows: Vec<Vec<Option<String>>>,
    colors: bool,
    terminal_width: Option<usize>,
}

impl Cells {
    /// A table without rows.
    pub fn new(schema: &SchemaRef, style: &Style) -> Self {
        let numeric = |data_type: &DataType| data_type.is_numeric();
        Self {
            names: schema.fields().iter().map(|field| on_one_line(field.name())).collect(),
            numeric: schema.fields().iter().map(|field| numeric(field.data_type())).collect(),
            rows: Vec::new(),
            colors: style.colors,
            terminal_width: style.terminal_width,
        }
    }

    /// Adds the rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = text_format();
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cell = |(column, formatter): (&arrow::array::ArrayRef, &ArrayFormatter<'_>)| {
                column.is_valid(row).then(|| formatter.value(row).to_string())
            };
            self.rows.push(batch.columns().iter().zip(&formatters).map(cell).collect());
        }
        Ok(())
    }

    /// The table as text. One that is wider than the terminal is laid out a line a value.
    pub fn render(&self, layout: Layout) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        match layout {
            Layout::Markdown => self.markdown(),
            Layout::Expanded => self.expanded(),
            // The text of a plan has its own lines.
            Layout::Aligned if self.is_plan() => self.plan(),
            Layout::Aligned => {
                let (cells, widths) = self.shown();
                let width = widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1);
                match self.terminal_width {
                    Some(terminal) if width > terminal && !self.rows.is_empty() => self.expanded(),
                    _ => self.aligned(&cells, &widths),
                }
            }
        }
    }

    fn is_plan(&self) -> bool {
        self.names == ["plan_type", "plan"]
    }

    fn plan(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let cell = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
            text.push_str(&paint(&cell(0), Color::Bold, self.colors));
            text.push('\n');
            for line in cell(1).trim_end().lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }

    /// The cells on one line each, and the widths of the columns.
    fn shown(&self) -> (Vec<Vec<String>>, Vec<usize>) {
        let mut widths: Vec<usize> = self.names.iter().map(|name| name.width()).collect();
        let mut cells = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let shown: Vec<String> = row.iter().map(|cell| self.short(cell.as_deref().unwrap_or(NULL))).collect();
            for (width, cell) in widths.iter_mut().zip(&shown) {
                *width = (*width).max(cell.width());
            }
            cells.push(shown);
        }
        (cells, widths)
    }

    fn short(&self, cell: &str) -> String {
        let cell = on_one_line(cell);
        if self.terminal_width.is_none() || cell.width() <= CELL_WIDTH {
            return cell;
        }
        let mut width = 0;
        let keep = |c: &char| {
            width += c.width().unwrap_or(0);
            width < CELL_WIDTH
        };
        cell.chars().take_while(keep).chain(['…']).collect()
    }

    fn padded(&self, cell: &str, column: usize, width: usize) -> String {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        if self.numeric[column] { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
    }

    fn aligned(&self, cells: &[Vec<String>], widths: &[usize]) -> String {
        let mut text = String::new();
        for (column, name) in self.names.iter().enumerate() {
            text.push_str(if column == 0 { " " } else { " | " });
            text.push_str(&paint(&self.padded(name, column, widths[column]), Color::Bold, self.colors));
        }
        text.push_str(" \n");
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        text.push_str(&rules.join("+"));
        text.push('\n');
        for (row, shown) in self.rows.iter().zip(cells) {
            for (column, cell) in shown.iter().enumerate() {
                text.push_str(if column == 0 { " " } else { " | " });
                let padded = self.padded(cell, column, widths[column]);
                text.push_str(&paint(&padded, Color::Dim, self.colors && row[column].is_none()));
            }
            text.push_str(" \n");
        }
        text
    }

    fn expanded(&self) -> String {
        let width = self.names.iter().map(|name| name.width()).max().unwrap_or_default();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            text.push_str(&paint(&format!("-[ row {} ]-", index + 1), Color::Dim, self.colors));
            text.push('\n');
            for (name, cell) in self.names.iter().zip(row) {
                let padding = " ".repeat(width - name.width());
                let name = paint(name, Color::Bold, self.colors);
                let cell = match cell {
                    Some(cell) => on_one_line(cell),
                    None => paint(NULL, Color::Dim, self.colors),
                };
                text.push_str(&format!("{name}{padding} | {cell}\n"));
            }
        }
        text
    }

    fn markdown(&self) -> String {
        let escaped = |cell: &str| on_one_line(cell).replace('|', "\\|");
        let names: Vec<String> = self.names.iter().map(|name| escaped(name)).collect();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| escaped(cell.as_deref().unwrap_or(NULL))).collect())
            .collect();
        let mut widths: Vec<usize> = names.iter().map(|name| name.width().max(3)).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let line = |cells: &[String]| {
            let cells = cells.iter().enumerate().map(|(column, cell)| self.padded(cell, column, widths[column]));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = |(column, width): (usize, &usize)| {
            if self.numeric[column] { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(*width) }
        };
        let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
        let mut text = line(&names);
        text.push_str(&format!("| {} |\n", rules.join(" | ")));
        for row in &rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// A cell stays on its line, and sends nothing to the terminal but text.
fn on_one_line(cell: &str) -> String {
    if !cell.contains(char::is_control) {
        return cell.to_owned();
    }
    let mut shown = String::with_capacity(cell.len());
    for c in cell.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c.is_control() => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}
