//! Contracts as text: JSON in (YAML is read elsewhere), tables as text out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::read::{Misfit, RawBatch};
use crate::text::{TextColumn, TextOptions, TypeSet, classify};

fn contract(json: &str) -> Contract {
    serde_json::from_str(json).unwrap()
}

/// `name,name` and rows of `value,value`: a file as a text reader would offer it.
struct File {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl File {
    fn new(text: &str) -> Self {
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        Self { names: lines.next().unwrap(), rows: lines.collect() }
    }

    /// Guesses from the first `sample` rows.
    fn offer(&self, address: &str, sample: usize) -> Offer {
        let guess = |column: usize| {
            let values = self.rows.iter().take(sample).map(|row| &row[column]).filter(|value| !value.is_empty());
            let options = TextOptions::default();
            values.fold(TypeSet::ANY, |set, value| set.and(classify(value.as_bytes(), &options))).data_type()
        };
        let fields: Vec<Field> =
            self.names.iter().enumerate().map(|(i, name)| Field::new(name, guess(i), true)).collect();
        Offer { address: address.into(), schema: Arc::new(Schema::new(fields)), is_text: true }
    }

    fn read(&self, plan: &InputPlan) -> RawBatch {
        let mut misfits = Vec::new();
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (at, wanted) in plan.request.columns.iter().enumerate() {
            let mut column = TextColumn::new(&wanted.data_type, 8, &plan.text).unwrap();
            for (row, values) in self.rows.iter().enumerate() {
                let value = &values[wanted.index];
                if value.is_empty() {
                    column.append_null();
                } else if !column.append(value.as_bytes()) {
                    misfits.push(Misfit { row, column: at, line: Some(row as u64 + 2), value: value.clone() });
                }
            }
            fields.push(Field::new(format!("c{at}"), wanted.data_type.clone(), true));
            arrays.push(column.finish());
        }
        misfits.sort_by_key(|misfit| misfit.row);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        RawBatch { misfits, ..RawBatch::good(batch, 1) }
    }
}

fn as_is(data_type: &DataType) -> Result<DataType> {
    Ok(data_type.clone())
}

fn plan_of(offers: &[Offer], contract: &Contract, existing: Option<&Schema>) -> Result<Plan> {
    plan(offers, contract, Case::Keep, &[], existing, &BTreeMap::new(), &as_is, &TextOptions::default())
}

fn columns(schema: &Schema) -> String {
    let column = |field: &Arc<Field>| format!("{} {}", field.name(), type_name(field.data_type()));
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

fn table(batch: &RecordBatch) -> String {
    let row = |row| {
        let value = |array: &Arc<dyn arrow::array::Array>| array_value_to_string(array, row).unwrap();
        batch.columns().iter().map(value).collect::<Vec<_>>().join(",")
    };
    (0..batch.num_rows()).map(row).collect::<Vec<_>>().join(" | ")
}

fn quarantine(applied: &Applied) -> String {
    let entry = |entry: &Quarantined| {
        let column = entry.row.column.as_deref().unwrap_or("-");
        format!("{} {} {column}: {}", entry.verdict.name(), entry.row.row, entry.row.reason)
    };
    applied.quarantined.iter().map(entry).collect::<Vec<_>>().join(" | ")
}

#[test]
fn names_meet_without_regard_to_case_and_new_columns_are_added() {
    let files = [File::new("VendorID,PULocationID\n1,7"), File::new(" vendorid,PUlocationID,tip\n2,8,1.5")];
    let offers = [files[0].offer("a", 9), files[1].offer("b", 9)];
    let plan = plan_of(&offers, &Contract::default(), None).unwrap();
    assert_eq!(columns(&plan.schema), "VendorID bigint, PULocationID bigint, tip double");
    assert_eq!(table(&files[0].read(&plan.inputs[0]).apply_with(&plan.inputs[0])), "1,7,");
    assert_eq!(table(&files[1].read(&plan.inputs[1]).apply_with(&plan.inputs[1])), "2,8,1.5");
    let drift: Vec<String> = plan.drift.iter().map(|d| format!("{} {} {}", d.file, d.column, d.action)).collect();
    assert_eq!(drift, ["b tip added"]);
}

trait ApplyWith {
    fn apply_with(self, plan: &InputPlan) -> RecordBatch;
}

impl ApplyWith for RawBatch {
    fn apply_with(self, plan: &InputPlan) -> RecordBatch {
        let applied = plan.apply(self).unwrap();
        assert!(applied.quarantined.is_empty(), "{}", quarantine(&applied));
        applied.batch
    }
}

#[test]
fn types_are_the_join_of_all_files() {
    let offers = [File::new("a,b,c\n1,x,").offer("1", 9), File::new("a,b,c\n1.5,2,").offer("2", 9)];
    let plan = plan_of(&offers, &Contract::default(), None).unwrap();
    assert_eq!(columns(&plan.schema), "a double, b text");
}

#[test]
fn a_guess_that_was_too_narrow_is_widened() {
    let file = File::new("a,b\n1,\n2,\nx,7");
    let offers = [file.offer("f", 2)];
    let first = plan_of(&offers, &Contract::default(), None).unwrap();
    assert_eq!(columns(&first.schema), "a bigint");
    let applied = first.inputs[0].apply(file.read(&first.inputs[0])).unwrap();
    assert_eq!(applied.widen, [("a".to_owned(), DataType::Utf8), ("b".to_owned(), DataType::Int64)]);
    let learnt = applied.widen.into_iter().collect();
    let text = TextOptions::default();
    let second = plan(&offers, &Contract::default(), Case::Keep, &[], None, &learnt, &as_is, &text).unwrap();
    assert_eq!(columns(&second.schema), "a text, b bigint");
    assert_eq!(table(&file.read(&second.inputs[0]).apply_with(&second.inputs[0])), "1, | 2, | x,7");
}

#[test]
fn an_existing_column_keeps_its_type() {
    let file = File::new("a,b\n1,x\nzwei,y");
    let existing = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("old", DataType::Utf8, true)]);
    let plan = plan_of(&[file.offer("f", 9)], &Contract::default(), Some(&existing)).unwrap();
    assert_eq!(columns(&plan.schema), "a bigint, b text");
    let applied = plan.inputs[0].apply(file.read(&plan.inputs[0])).unwrap();
    assert_eq!(table(&applied.batch), "1,x");
    assert_eq!(quarantine(&applied), "bad 2 a: 'zwei' is not of type bigint");
    assert_eq!(applied.quarantined[0].row.record, r#"{"a":"zwei","b":"y"}"#);
    assert_eq!(applied.rows.at(0), 1);
}

#[test]
fn aliases_codes_and_coalesce() {
    let rules = contract(
        r#"{"columns": [
            {"name": "vendor", "type": "bigint", "aliases": ["vendor_name"], "codes": {"CMT": 1, "VTS": 2, "?": null}},
            {"name": "base", "coalesce": ["Base_num", "Base_number"]}]}"#,
    );
    assert!(rules.check().is_empty());
    let file = File::new("Vendor_Name,Base_number,Base_num\nCMT,a,b\n vts ,c,\n7,,\n?,,\nXYZ,,");
    let plan = plan_of(&[file.offer("f", 9)], &rules, None).unwrap();
    let applied = plan.inputs[0].apply(file.read(&plan.inputs[0])).unwrap();
    assert_eq!(table(&applied.batch), "1,b | 2,c | 7, | ,");
    assert_eq!(quarantine(&applied), "bad 5 vendor: 'XYZ' is not of type bigint");
}

#[test]
fn modes() {
    let file = File::new("a,b\n1,\nx,2\n,3");
    let check = |json: &str, expect: &str| {
        let got = match plan_of(&[file.offer("f", 9)], &contract(json), None) {
            Err(error) => format!("error {error}"),
            Ok(plan) => {
                let applied = plan.inputs[0].apply(file.read(&plan.inputs[0])).unwrap();
                format!("{} ; {}", table(&applied.batch), quarantine(&applied))
            }
        };
        assert_eq!(got, expect, "{json}");
    };
    let a = r#""columns": [{"name": "a", "type": "bigint"}]"#;
    check(&format!("{{{a}}}"), "1, | ,3 ; bad 2 a: 'x' is not of type bigint");
    check(&format!(r#"{{"mode": "freeze", {a}}}"#), "error f: column 'b' is not in the contract, which is frozen");
    check(
        &format!(r#"{{"mode": "discard-row", {a}}}"#),
        "1 ; discard-row 2 a: 'x' is not of type bigint | discard-row 3 b: the column is not in the contract",
    );
    check(&format!(r#"{{"mode": "discard-value", {a}}}"#), "1 |  |  ; discard-value 2 a: 'x' is not of type bigint");
    check(
        r#"{"columns": [{"name": "a", "type": "bigint", "nullable": false}]}"#,
        "1, ; bad 2 a: 'x' is not of type bigint | bad 3 a: 'a' is empty, and must not be",
    );
}

#[test]
fn a_contract_is_checked() {
    let wrong = contract(
        r#"{"columns": [{"name": "a", "aliases": ["B"]}, {"name": "b", "type": "integer", "codes": {"x": "y"}}]}"#,
    );
    assert_eq!(
        wrong.check(),
        ["the name 'b' belongs to 'a' and to 'b'", "column 'b': the code x means 'y', which is no integer"]
    );
    assert!(serde_json::from_str::<Contract>(r#"{"colums": []}"#).is_err());
}

#[test]
fn conversions_lose_nothing_in_silence() {
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    let text = TextOptions::default();
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None]));
    let (made, wrong) = convert(&floats, &DataType::Int64, &text).unwrap();
    assert_eq!((made.null_count(), wrong), (2, vec![1]));
    let big: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
    let (_, wrong) = convert(&big, &DataType::Int32, &text).unwrap();
    assert_eq!(wrong, [1]);
}
