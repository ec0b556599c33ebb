//! A result as a bar chart in the terminal: the first column names the bars, the last number is their length.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flumen_core::{Error, Result};
use unicode_width::UnicodeWidthStr as _;

/// The width of a chart where there is no terminal to ask.
const WIDTH: usize = 100;
/// Labels are cut to this many columns.
const LABEL: usize = 40;
/// Eighths of a block, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Bars in the making.
pub struct Chart {
    label: usize,
    value: usize,
    bars: Vec<(String, Option<f64>)>,
    width: usize,
}

impl Chart {
    /// A chart of results with the columns of `schema`.
    ///
    /// Errors: `Invalid` if none of them is a number.
    pub fn new(schema: &SchemaRef, width: Option<usize>) -> Result<Self> {
        let value = schema.fields().iter().rposition(|field| field.data_type().is_numeric()).ok_or_else(|| {
            Error::invalid("a chart needs a column of numbers")
                .hint("for example: select zone, count(*) from … group by zone")
        })?;
        let label = usize::from(value == 0 && schema.fields().len() > 1);
        Ok(Self { label, value, bars: Vec::new(), width: width.unwrap_or(WIDTH).clamp(40, 160) })
    }

    /// Adds the rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = FormatOptions::default();
        let labels = ArrayFormatter::try_new(batch.column(self.label), &options)?;
        let values: ArrayRef = cast(batch.column(self.value), &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let value = values.is_valid(row).then(|| values.value(row));
            self.bars.push((labels.value(row).to_string(), value));
        }
        Ok(())
    }

    /// The chart: a line a row.
    pub fn render(&self) -> String {
        let shorten = |label: &str| label.chars().take(LABEL).collect::<String>();
        let labels: Vec<String> = self.bars.iter().map(|(label, _)| shorten(label)).collect();
        let numbers: Vec<String> = self.bars.iter().map(|(_, value)| value.map_or("NULL".to_owned(), number)).collect();
        let wide = |texts: &[String]| texts.iter().map(|text| text.width()).max().unwrap_or(0);
        let (label_width, number_width) = (wide(&labels), wide(&numbers));
        let most = self.bars.iter().filter_map(|(_, value)| *value).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let room = self.width.saturating_sub(label_width + number_width + 4).max(8);
        let mut text = String::new();
        for ((label, number), (_, value)) in labels.iter().zip(&numbers).zip(&self.bars) {
            let bar = bar(value.unwrap_or(0.0), most, room);
            let (left, right) = (" ".repeat(label_width - label.width()), " ".repeat(number_width - number.width()));
            text.push_str(&format!("{label}{left}  {right}{number}  {bar}\n"));
        }
        text
    }
}

/// A bar of up to `room` columns for `value` of `most`.
fn bar(value: f64, most: f64, room: usize) -> String {
    if most <= 0.0 || !value.is_finite() || value <= 0.0 {
        return String::new();
    }
    let eighths = (value / most * room as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        bar.push(EIGHTHS[part]);
    }
    bar
}

/// A number with separators, and no more than two digits after the point.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let rounded = format!("{:.2}", value.abs());
    let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let whole = crate::output::count(whole.parse().unwrap_or(u64::MAX));
    let sign = if value < 0.0 { "-" } else { "" };
    match fraction {
        "00" | "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let batch = RecordBatch::try_from_iter([
            ("zone", Arc::new(StringArray::from(vec!["Soho", "JFK", "none"])) as ArrayRef),
            ("trips", Arc::new(Float64Array::from(vec![Some(1000.0), Some(250.5), None])) as ArrayRef),
        ])
        .unwrap();
        let mut chart = Chart::new(&batch.schema(), Some(40)).unwrap();
        chart.add(&batch).unwrap();
        let lines: Vec<String> = chart.render().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], format!("Soho   1,000  {}", "█".repeat(26)));
        assert_eq!(lines[1], format!("JFK   250.50  {}▌", "█".repeat(6)));
        assert_eq!(lines[2], "none    NULL  ");
        let text = RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
        assert!(Chart::new(&text.schema(), None).is_err());
    }
}
