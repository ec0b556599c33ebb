//! During a load: one batch of an input becomes rows of the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::array_value_to_string;

use super::plan::{ColumnPlan, InputPlan};
use super::{OnDrift, json, type_name};
use crate::error::{Error, Result};
use crate::read::{BadRow, Misfit, RawBatch, RowNumbers};
use crate::text::{TextColumn, TextOptions, classify, join};

/// What became of a batch.
#[derive(Debug)]
pub struct Applied {
    /// The rows to write.
    pub batch: RecordBatch,
    /// Their numbers in the file.
    pub rows: RowNumbers,
    /// What goes to quarantine.
    pub quarantined: Vec<Quarantined>,
    /// Columns of the table whose guessed type turned out too narrow, with a type that holds the value. If there are any, the rows are
    /// not to be written: the load must begin again with wider types.
    pub widen: Vec<(String, DataType)>,
}

/// An entry for the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The row.
    pub row: BadRow,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided about something that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The row is not loaded, and counts towards `--max-bad`.
    Bad,
    /// The row is not loaded, as the contract wants it.
    DiscardRow,
    /// The row is loaded with null in the value's place, as the contract wants it.
    DiscardValue,
}

impl Verdict {
    /// The word in the quarantine's `action` column.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Bad => "bad",
            Verdict::DiscardRow => "discard-row",
            Verdict::DiscardValue => "discard-value",
        }
    }

    fn of(mode: OnDrift) -> Self {
        match mode {
            OnDrift::Evolve | OnDrift::Freeze => Verdict::Bad,
            OnDrift::DiscardRow => Verdict::DiscardRow,
            OnDrift::DiscardValue => Verdict::DiscardValue,
        }
    }
}

/// Something wrong with one value.
struct Flaw {
    row: usize,
    line: Option<u64>,
    column: String,
    value: Option<String>,
    reason: String,
    verdict: Verdict,
}

impl InputPlan {
    /// Makes rows of the table out of `raw`, a batch of the columns in `self.request`.
    pub fn apply(&self, raw: RawBatch) -> Result<Applied> {
        let rows = raw.batch.num_rows();
        let mut flaws = Vec::new();
        let mut widen = Vec::new();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            let field = self.schema.field(at);
            let mut misfits = Vec::new();
            let array = self.column(column, field.data_type(), &raw, &mut misfits)?;
            for misfit in misfits {
                if column.free {
                    let needed = join(field.data_type(), &classify(misfit.value.as_bytes(), &self.text).data_type());
                    let needed = if needed == *field.data_type() { DataType::Utf8 } else { needed };
                    widen.push((field.name().clone(), needed));
                    continue;
                }
                flaws.push(Flaw {
                    row: misfit.row,
                    line: misfit.line,
                    column: field.name().clone(),
                    reason: format!("'{}' is not of type {}", shorten(&misfit.value), type_name(field.data_type())),
                    value: Some(misfit.value),
                    verdict: Verdict::of(column.on_bad_value),
                });
            }
            if !field.is_nullable() && array.null_count() > 0 {
                flaws.extend(nulls_in(&array, field.name(), column.on_bad_value, &flaws));
            }
            arrays.push(array);
        }
        for (column, name) in &self.watched {
            for misfit in raw.misfits.iter().filter(|misfit| misfit.column == *column) {
                widen.push((name.clone(), classify(misfit.value.as_bytes(), &self.text).data_type()));
            }
        }
        if !widen.is_empty() {
            return Ok(Applied {
                batch: RecordBatch::new_empty(Arc::clone(&self.schema)),
                rows: raw.rows,
                quarantined: Vec::new(),
                widen,
            });
        }
        self.unwanted_values(&raw, &mut flaws)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let (batch, numbers, mut quarantined) = if flaws.is_empty() {
            (
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?,
                raw.rows.clone(),
                Vec::new(),
            )
        } else {
            self.put_aside(arrays, &raw, flaws)?
        };
        quarantined.extend(raw.bad.into_iter().map(|row| Quarantined {
            row,
            verdict: match self.on_bad_row {
                OnDrift::Evolve | OnDrift::Freeze => Verdict::Bad,
                OnDrift::DiscardRow | OnDrift::DiscardValue => Verdict::DiscardRow,
            },
        }));
        quarantined.sort_by_key(|entry| entry.row.row);
        Ok(Applied { batch, rows: numbers, quarantined, widen })
    }

    /// One column of the table, from those of the request that it is made of.
    fn column(
        &self,
        plan: &ColumnPlan,
        wanted: &DataType,
        raw: &RawBatch,
        misfits: &mut Vec<Misfit>,
    ) -> Result<ArrayRef> {
        let mut made: Option<ArrayRef> = None;
        for &source in &plan.sources {
            let first = misfits.len();
            misfits.extend(raw.misfits.iter().filter(|misfit| misfit.column == source).cloned());
            let array = raw.batch.column(source);
            let decoded = if plan.codes.is_empty() { Arc::clone(array) } else { decode(array, &plan.codes)? };
            let (array, wrong) = convert(&decoded, wanted, &self.text)?;
            for row in wrong {
                let value = array_value_to_string(&decoded, row)?;
                misfits.push(Misfit { row, column: source, line: None, value });
            }
            made = Some(match made {
                None => array,
                Some(before) => {
                    // A value that does not fit does no harm where an earlier column has one that does.
                    let mut at = 0;
                    misfits.retain(|misfit| {
                        at += 1;
                        at <= first || before.is_null(misfit.row)
                    });
                    zip(&is_not_null(&before)?, &before, &array)?
                }
            });
        }
        Ok(made.unwrap_or_else(|| new_null_array(wanted, raw.batch.num_rows())))
    }

    fn unwanted_values(&self, raw: &RawBatch, flaws: &mut Vec<Flaw>) -> Result<()> {
        for &column in &self.unwanted {
            let array = raw.batch.column(column);
            for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
                flaws.push(Flaw {
                    row,
                    line: None,
                    column: self.names[column].clone(),
                    value: Some(array_value_to_string(array, row)?),
                    reason: "the column is not in the contract".to_owned(),
                    verdict: Verdict::DiscardRow,
                });
            }
        }
        Ok(())
    }

    /// Takes the rows with flaws out, and says why.
    fn put_aside(
        &self,
        arrays: Vec<ArrayRef>,
        raw: &RawBatch,
        flaws: Vec<Flaw>,
    ) -> Result<(RecordBatch, RowNumbers, Vec<Quarantined>)> {
        let rows = raw.batch.num_rows();
        let mut worst: BTreeMap<usize, usize> = BTreeMap::new(); // row -> its first flaw that costs it its place
        let mut quarantined = Vec::new();
        let entry = |flaw: &Flaw| -> Result<Quarantined> {
            Ok(Quarantined {
                row: BadRow {
                    row: raw.rows.at(flaw.row),
                    line: flaw.line,
                    column: Some(flaw.column.clone()),
                    reason: flaw.reason.clone(),
                    value: flaw.value.clone(),
                    record: self.record(raw, flaw.row)?,
                },
                verdict: flaw.verdict,
            })
        };
        for (at, flaw) in flaws.iter().enumerate() {
            if flaw.verdict != Verdict::DiscardValue {
                let first = worst.entry(flaw.row).or_insert(at);
                if flaws[*first].verdict == Verdict::DiscardRow && flaw.verdict == Verdict::Bad {
                    *first = at;
                }
            }
        }
        for flaw in flaws.iter().filter(|flaw| flaw.verdict == Verdict::DiscardValue && !worst.contains_key(&flaw.row))
        {
            quarantined.push(entry(flaw)?);
        }
        for at in worst.values() {
            quarantined.push(entry(&flaws[*at])?);
        }
        // A null where there may be none would be refused before it is filtered out; so the check comes after.
        let relaxed: Vec<_> =
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let relaxed = Arc::new(arrow::datatypes::Schema::new(relaxed));
        let batch =
            RecordBatch::try_new_with_options(relaxed, arrays, &RecordBatchOptions::new().with_row_count(Some(rows)))?;
        let keep: BooleanArray = (0..rows).map(|row| Some(!worst.contains_key(&row))).collect();
        let kept = filter_record_batch(&batch, &keep)?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), kept.columns().to_vec(), &options)?;
        let numbers =
            RowNumbers::List((0..rows).filter(|row| !worst.contains_key(row)).map(|row| raw.rows.at(row)).collect());
        Ok((batch, numbers, quarantined))
    }

    /// A row as JSON, under the names of the file.
    fn record(&self, raw: &RawBatch, row: usize) -> Result<String> {
        let mut record = serde_json::Map::new();
        for (at, name) in
            self.names.iter().enumerate().filter(|(at, _)| !self.watched.iter().any(|(watched, _)| watched == at))
        {
            let array = raw.batch.column(at);
            let misfit = raw.misfits.iter().find(|misfit| misfit.row == row && misfit.column == at);
            let value = match misfit {
                Some(misfit) => serde_json::Value::from(misfit.value.clone()),
                None if array.is_null(row) => serde_json::Value::Null,
                None => serde_json::Value::from(array_value_to_string(array, row)?),
            };
            record.insert(name.clone(), value);
        }
        Ok(serde_json::Value::Object(record).to_string())
    }
}

fn nulls_in(array: &ArrayRef, name: &str, mode: OnDrift, flaws: &[Flaw]) -> Vec<Flaw> {
    let reported = |row: usize| {
        flaws.iter().any(|flaw| flaw.row == row && flaw.column == name && flaw.verdict != Verdict::DiscardValue)
    };
    let null = |row| Flaw {
        row,
        line: None,
        column: name.to_owned(),
        value: None,
        reason: format!("'{name}' is empty, and must not be"),
        verdict: if mode == OnDrift::DiscardRow { Verdict::DiscardRow } else { Verdict::Bad },
    };
    (0..array.len()).filter(|row| array.is_null(*row) && !reported(*row)).map(null).collect()
}

fn shorten(value: &str) -> String {
    const SHOWN: usize = 60;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Replaces codes by what they mean; other values stay.
fn decode(array: &ArrayRef, codes: &BTreeMap<String, Option<String>>) -> Result<ArrayRef> {
    let text = to_text(array)?;
    let text = text.as_string::<i32>();
    let mut decoded = StringBuilder::with_capacity(text.len(), text.len() * 4);
    for value in text {
        let trimmed = value.map(str::trim);
        match trimmed.and_then(|value| codes.get(&value.to_lowercase())) {
            Some(meaning) => decoded.append_option(meaning.as_deref()),
            None => decoded.append_option(trimmed),
        }
    }
    Ok(Arc::new(decoded.finish()))
}

/// Any array as text; nested values as JSON.
fn to_text(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8 => Ok(Arc::clone(array)),
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) | DataType::Map(..) => {
            let mut text = StringBuilder::new();
            for row in 0..array.len() {
                if array.is_null(row) {
                    text.append_null()
                } else {
                    text.append_value(json::value(array, row)?.to_string())
                }
            }
            Ok(Arc::new(text.finish()))
        }
        _ => Ok(cast_with_options(array, &DataType::Utf8, &CastOptions::default())?),
    }
}

/// `array` as `wanted`, and the rows whose values do not fit it: null in their place. No digit is lost in silence.
///
/// Errors: `Invalid` where no value of the one type could be of the other.
pub fn convert(array: &ArrayRef, wanted: &DataType, text: &TextOptions) -> Result<(ArrayRef, Vec<usize>)> {
    let from = array.data_type();
    if from == wanted {
        return Ok((Arc::clone(array), Vec::new()));
    }
    if *from == DataType::Null {
        return Ok((new_null_array(wanted, array.len()), Vec::new()));
    }
    if *wanted == DataType::Utf8 {
        return Ok((to_text(array)?, Vec::new()));
    }
    if matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) && TextColumn::supports(wanted) {
        return from_text(&to_text(array)?, wanted, text);
    }
    let made =
        cast_with_options(array, wanted, &CastOptions { safe: true, ..CastOptions::default() }).map_err(|error| {
            Error::invalid(format!("a {} cannot become a {}", type_name(from), type_name(wanted))).caused_by(error)
        })?;
    let mut wrong = Vec::new();
    if made.null_count() > array.null_count() {
        wrong.extend((0..array.len()).filter(|row| array.is_valid(*row) && made.is_null(*row)));
    }
    if from.is_floating() && wanted.is_integer() {
        let fractional = |row: &usize| match from {
            DataType::Float64 => array.as_primitive::<Float64Type>().value(*row).fract() != 0.0,
            DataType::Float32 => array.as_primitive::<Float32Type>().value(*row).fract() != 0.0,
            _ => false,
        };
        let fractions: Vec<usize> = (0..array.len()).filter(|row| made.is_valid(*row) && fractional(row)).collect();
        if !fractions.is_empty() {
            let bad: BooleanArray = (0..array.len()).map(|row| Some(fractions.binary_search(&row).is_ok())).collect();
            let made = arrow::compute::nullif(&made, &bad)?;
            wrong.extend(fractions);
            wrong.sort_unstable();
            return Ok((made, wrong));
        }
    }
    Ok((made, wrong))
}

fn from_text(array: &ArrayRef, wanted: &DataType, options: &TextOptions) -> Result<(ArrayRef, Vec<usize>)> {
    let text = array.as_string::<i32>();
    let mut column = TextColumn::new(wanted, text.len(), options)?;
    let mut wrong = Vec::new();
    for (row, value) in text.iter().enumerate() {
        match value {
            Some(value) if !options.is_null(value.as_bytes()) => {
                if !column.append(value.as_bytes()) {
                    wrong.push(row);
                }
            }
            _ => column.append_null(),
        }
    }
    Ok((column.finish(), wrong))
}
