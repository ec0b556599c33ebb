//! Before a load: which column of which input goes where, and as what.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Case, Contract, ContractColumn, OnDrift, type_name};
use crate::error::{Error, Result};
use crate::load::Drift;
use crate::read::{ReadRequest, WantedColumn};
use crate::text::{TextColumn, TextOptions, join};

/// What one input offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its address.
    pub address: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Whether their types are guesses, so that it can be asked for others.
    pub is_text: bool,
}

/// What is to be done with all inputs of a load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The columns that will be written, without the `_flumen_*` ones.
    pub schema: SchemaRef,
    /// For each of them: whether its type is a guess that may be widened when the data says so.
    pub free: Vec<bool>,
    /// What is to be done with each input, in their order.
    pub inputs: Vec<InputPlan>,
    /// What differs between the inputs and the table.
    pub drift: Vec<Drift>,
}

/// What is to be done with one input.
#[derive(Debug, Clone)]
pub struct InputPlan {
    /// The columns to read.
    pub request: ReadRequest,
    /// Their names in the file.
    pub names: Vec<String>,
    /// How each column of the table is made.
    pub columns: Vec<ColumnPlan>,
    /// The columns to be written.
    pub schema: SchemaRef,
    /// What happens to rows of the wrong shape.
    pub on_bad_row: OnDrift,
    /// Columns of the request that no table column wants, and that send a row to quarantine if they are not null.
    pub unwanted: Vec<usize>,
    /// Columns of the request in which no value has been seen yet, with their names in the table: the first value in one
    /// shows that the table needs it.
    pub watched: Vec<(usize, String)>,
    /// What text means.
    pub text: TextOptions,
}

impl InputPlan {
    /// Whether rows of an input with `schema` are rows of the table as they are: the same columns in the same order and of the
    /// same types, nothing to look up, nothing to check.
    pub fn is_identity(&self, schema: &Schema) -> bool {
        let as_it_is = |at: usize, column: &ColumnPlan| {
            let Some(offered) = schema.fields().get(at) else { return false };
            let field = self.schema.field(at);
            column.codes.is_empty()
                && matches!(column.sources.as_slice(), [source] if self.request.columns[*source].index == at)
                && offered.name() == field.name()
                && offered.data_type() == field.data_type()
                && (field.is_nullable() || !offered.is_nullable())
        };
        schema.fields().len() == self.columns.len()
            && self.unwanted.is_empty()
            && self.columns.iter().enumerate().all(|(at, column)| as_it_is(at, column))
    }
}

/// How one column of the table is made from an input.
#[derive(Debug, Clone)]
pub struct ColumnPlan {
    /// Columns of the request; the first that is not null counts. Empty: the column is null.
    pub sources: Vec<usize>,
    /// What its values mean, by trimmed code in lower case; `None` stands for null.
    pub codes: BTreeMap<String, Option<String>>,
    /// What happens to a value that does not fit.
    pub on_bad_value: OnDrift,
    /// Whether a value that does not fit shows that the guess was too narrow.
    pub free: bool,
}

/// One column of the table while the plan is being made.
struct Target<'a> {
    name: String,
    contract: Option<&'a ContractColumn>,
    existing: Option<DataType>,
    /// The join of what the inputs offer.
    offered: DataType,
    /// For each input: its columns that go here.
    sources: Vec<Vec<usize>>,
}

/// Options that give a column a type say nothing about its place: a new table has the columns in the order of the files.
fn in_order_of_files(targets: &mut [Target<'_>]) {
    let place = |target: &Target<'_>| {
        let mut inputs = target.sources.iter().enumerate();
        inputs.find_map(|(input, columns)| columns.first().map(|column| (input, *column)))
    };
    targets.sort_by_key(|target| place(target).unwrap_or((usize::MAX, 0)));
}

/// Plans a load of `offers` into a table that has the columns `existing`.
///
/// `selected` are the columns of the table that are wanted (all, if it is empty); `learnt` are types that an earlier, broken
/// off reading of the same inputs found to be needed; `stored` is the type as which the destination keeps a type.
///
/// Errors: `Invalid` when two columns of a file want the same place, a selected column is nowhere, or a type cannot be kept;
/// `Data` when the contract is frozen and a file has a new column.
#[allow(clippy::too_many_arguments)] // each is a different noun; a struct would only rename them
pub fn plan(
    offers: &[Offer],
    contract: &Contract,
    case: Case,
    selected: &[String],
    existing: Option<&Schema>,
    learnt: &BTreeMap<String, DataType>,
    stored: &dyn Fn(&DataType) -> Result<DataType>,
    text: &TextOptions,
) -> Result<Plan> {
    let mut targets = known_targets(contract, existing, offers.len());
    let mut drift = Vec::new();
    let mut unwanted = vec![Vec::new(); offers.len()];
    for (input, offer) in offers.iter().enumerate() {
        place_columns(
            input,
            offer,
            contract,
            case,
            existing.is_some(),
            &mut targets,
            &mut unwanted[input],
            &mut drift,
        )?;
    }
    if existing.is_none() && contract.name.is_none() {
        in_order_of_files(&mut targets);
    }
    select(&mut targets, selected)?;

    let mut fields = Vec::new();
    let mut kept = Vec::new();
    let mut empty = Vec::new();
    for target in targets {
        // What the load has nothing for is left to the table: its defaults hold, and what is missing in a file reads as null.
        if target.existing.is_some() && target.sources.iter().all(Vec::is_empty) {
            continue;
        }
        let declared = target.contract.and_then(|column| column.data_type.as_ref()).map(|name| name.0.clone());
        let free = target.existing.is_none() && declared.is_none();
        let mut wanted = target.existing.clone().or(declared).unwrap_or_else(|| target.offered.clone());
        if free && let Some(more) = learnt.get(&target.name) {
            wanted = join(&wanted, more);
        }
        // What nobody has an opinion about gets no column: Delta readers refuse a column without a type.
        if wanted == DataType::Null {
            empty.push(target);
            continue;
        }
        let data_type = stored(&wanted).map_err(|error| error.within(format!("column '{}'", target.name)))?;
        let nullable = target.contract.is_none_or(|column| column.nullable);
        fields.push(Field::new(&target.name, data_type, nullable));
        kept.push((target, free));
    }
    if fields.is_empty()
        && empty.iter().any(|target| !target.sources.iter().all(Vec::is_empty))
        && offers.iter().all(|offer| !offer.is_text)
    {
        let names: Vec<&str> = empty.iter().map(|target| target.name.as_str()).collect();
        return Err(Error::data(format!("no column has a value: {}", names.join(", ")))
            .hint("give types with --types name=type, or a contract"));
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let free = kept.iter().map(|(_, free)| *free).collect();
    let inputs = offers
        .iter()
        .enumerate()
        .map(|(input, offer)| plan_input(input, offer, contract, &kept, &empty, &schema, &unwanted[input], text))
        .collect();
    type_drift(offers, &kept, &schema, &mut drift);
    Ok(Plan { schema, free, inputs, drift })
}

fn known_targets<'a>(contract: &'a Contract, existing: Option<&Schema>, inputs: usize) -> Vec<Target<'a>> {
    let new = |name: &str, contract, existing| Target {
        name: name.to_owned(),
        contract,
        existing,
        offered: DataType::Null,
        sources: vec![Vec::new(); inputs],
    };
    let mut targets = Vec::new();
    for field in existing.map(|schema| schema.fields().iter()).into_iter().flatten() {
        if field.name().starts_with("_flumen_") {
            continue;
        }
        let column = contract.columns.iter().find(|column| column.name.eq_ignore_ascii_case(field.name()));
        targets.push(new(field.name(), column, Some(field.data_type().clone())));
    }
    for column in &contract.columns {
        if !targets.iter().any(|target| target.name.eq_ignore_ascii_case(&column.name)) {
            targets.push(new(&column.name, Some(column), None));
        }
    }
    targets
}

/// Decides for each column of one input where it goes.
#[allow(clippy::too_many_arguments)] // the inside of `plan`, cut out for its length
fn place_columns(
    input: usize,
    offer: &Offer,
    contract: &Contract,
    case: Case,
    table_exists: bool,
    targets: &mut Vec<Target<'_>>,
    unwanted: &mut Vec<usize>,
    drift: &mut Vec<Drift>,
) -> Result<()> {
    let mut note = |column: &str, from: Option<&str>, to: Option<&str>, action: &str| {
        drift.push(Drift {
            file: offer.address.clone(),
            column: column.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            action: action.to_owned(),
        });
    };
    let mut placed: Vec<(usize, usize, usize)> = Vec::new(); // target, rank within coalesce, column
    let mut taken: Vec<usize> = Vec::new();
    let fields = offer.schema.fields();
    // Exact names first, so that a column never loses its place to one that is merely like it.
    for exact in [true, false] {
        for (column, field) in fields.iter().enumerate() {
            if taken.contains(&column) {
                continue;
            }
            if let Some((target, rank)) = find(targets, field.name().trim(), exact) {
                let coalesced = targets[target].contract.is_some_and(|c| !c.coalesce.is_empty());
                let occupied = placed.iter().any(|(other, ..)| *other == target);
                if occupied && !coalesced {
                    if exact || !names_exactly(&targets[target], fields, &placed, target) {
                        return Err(Error::invalid(format!(
                            "{}: '{}' and another column both go to '{}'",
                            offer.address,
                            field.name(),
                            targets[target].name
                        ))
                        .hint(
                            "list both under `coalesce:` of that column in a contract, or leave one out with --select",
                        ));
                    }
                    continue;
                }
                placed.push((target, rank, column));
                taken.push(column);
            }
        }
    }
    for (column, field) in fields.iter().enumerate().filter(|(column, _)| !taken.contains(column)) {
        match contract.on_new_columns() {
            OnDrift::Freeze => {
                return Err(Error::data(format!(
                    "{}: column '{}' is not in the contract, which is frozen",
                    offer.address,
                    field.name()
                ))
                .hint("add it to the contract, or set `new_columns: evolve` or `discard-value` there"));
            }
            OnDrift::DiscardValue => note(field.name().trim(), None, None, "left out"),
            OnDrift::DiscardRow => unwanted.push(column),
            OnDrift::Evolve => {
                let mut name = case.apply(field.name());
                let mut n = 2;
                while targets.iter().any(|target| target.name.eq_ignore_ascii_case(&name)) {
                    name = format!("{}_{n}", case.apply(field.name()));
                    n += 1;
                }
                if table_exists || input > 0 {
                    note(&name, None, Some(&type_name(field.data_type())), "added");
                }
                let sources = targets.first().map_or(input + 1, |target| target.sources.len());
                targets.push(Target {
                    name,
                    contract: None,
                    existing: None,
                    offered: DataType::Null,
                    sources: vec![Vec::new(); sources.max(input + 1)],
                });
                placed.push((targets.len() - 1, 0, column));
            }
        }
    }
    placed.sort_unstable();
    for (target, _, column) in placed {
        let field = &fields[column];
        let target = &mut targets[target];
        let name = field.name().trim();
        if !name.eq_ignore_ascii_case(&target.name) && case.apply(name) != target.name {
            note(&target.name, Some(name), Some(&target.name), "renamed");
        }
        let offered = match target.contract {
            Some(column) if !column.codes.is_empty() && column.data_type.is_none() => DataType::Utf8,
            _ => field.data_type().clone(),
        };
        target.offered = join(&target.offered, &offered);
        target.sources.resize(target.sources.len().max(input + 1), Vec::new());
        target.sources[input].push(column);
    }
    for target in targets.iter().filter(|target| target.sources.get(input).is_none_or(Vec::is_empty)) {
        if target.existing.is_some() || target.sources.iter().any(|sources| !sources.is_empty()) {
            note(&target.name, target.existing.as_ref().map(type_name).as_deref(), None, "missing: null");
        }
    }
    Ok(())
}

/// Whether the column that has `target`'s place bears its very name.
fn names_exactly(
    target: &Target<'_>,
    fields: &arrow::datatypes::Fields,
    placed: &[(usize, usize, usize)],
    at: usize,
) -> bool {
    placed.iter().any(|(other, _, column)| *other == at && fields[*column].name().trim() == target.name)
}

/// The target that a column of this name goes to, and its rank among several.
fn find(targets: &[Target<'_>], name: &str, exact: bool) -> Option<(usize, usize)> {
    let same = |other: &str| if exact { other.trim() == name } else { other.trim().eq_ignore_ascii_case(name) };
    // Within a contract's column: the list under `coalesce`, then aliases, then its own name.
    for (at, target) in targets.iter().enumerate() {
        if let Some(column) = target.contract {
            if let Some(rank) = column.coalesce.iter().position(|other| same(other)) {
                return Some((at, rank));
            }
            if column.aliases.iter().any(|alias| same(alias)) {
                return Some((at, column.coalesce.len()));
            }
        }
    }
    let at = targets.iter().position(|target| same(&target.name))?;
    Some((at, targets[at].contract.map_or(0, |column| column.coalesce.len() + 1)))
}

fn select(targets: &mut Vec<Target<'_>>, selected: &[String]) -> Result<()> {
    if selected.is_empty() {
        return Ok(());
    }
    for name in selected {
        if !targets.iter().any(|target| target.name.eq_ignore_ascii_case(name)) {
            return Err(Error::not_found(format!("--select: no column is called '{name}'"))
                .did_you_mean(name, targets.iter().map(|target| target.name.as_str())));
        }
    }
    targets.retain(|target| selected.iter().any(|name| name.eq_ignore_ascii_case(&target.name)));
    Ok(())
}

#[allow(clippy::too_many_arguments)] // the inside of `plan`, cut out for its length
fn plan_input(
    input: usize,
    offer: &Offer,
    contract: &Contract,
    targets: &[(Target<'_>, bool)],
    empty: &[Target<'_>],
    schema: &SchemaRef,
    unwanted: &[usize],
    text: &TextOptions,
) -> InputPlan {
    let mut request = ReadRequest { columns: Vec::new() };
    let mut names = Vec::new();
    let mut want = |index: usize, data_type: DataType| {
        request.columns.push(WantedColumn { index, data_type });
        names.push(offer.schema.field(index).name().trim().to_owned());
        request.columns.len() - 1
    };
    let columns = targets.iter().zip(schema.fields()).map(|((target, free), field)| {
        let codes = target.contract.map(|column| &column.codes);
        let coded = codes.is_some_and(|codes| !codes.is_empty());
        // Codes are looked up in the text as it stands; what text cannot be read as is cast afterwards.
        let as_text = coded || !TextColumn::supports(field.data_type());
        let nested = matches!(field.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::Map(..));
        let sources = target.sources.get(input).into_iter().flatten();
        let wanted = if as_text && !nested { DataType::Utf8 } else { field.data_type().clone() };
        ColumnPlan {
            sources: sources.map(|column| want(*column, wanted.clone())).collect(),
            codes: codes
                .into_iter()
                .flatten()
                .map(|(code, meaning)| (code.trim().to_lowercase(), code_value(meaning)))
                .collect(),
            on_bad_value: contract.on_bad_value(target.contract),
            free: *free && offer.is_text && !coded,
        }
    });
    let columns = columns.collect();
    let unwanted = unwanted.iter().map(|column| want(*column, DataType::Utf8)).collect();
    let mut watched = Vec::new();
    for target in empty.iter().filter(|_| offer.is_text) {
        for column in target.sources.get(input).into_iter().flatten() {
            watched.push((want(*column, DataType::Null), target.name.clone()));
        }
    }
    let schema = Arc::clone(schema);
    InputPlan {
        request,
        names,
        columns,
        schema,
        on_bad_row: contract.on_bad_row(),
        unwanted,
        watched,
        text: text.clone(),
    }
}

fn code_value(meaning: &super::Scalar) -> Option<String> {
    match meaning {
        super::Scalar::Null => None,
        other => Some(other.to_string()),
    }
}

/// Notes where a file's type is not the table's.
fn type_drift(offers: &[Offer], targets: &[(Target<'_>, bool)], schema: &SchemaRef, drift: &mut Vec<Drift>) {
    for ((target, _), field) in targets.iter().zip(schema.fields()) {
        for (input, offer) in offers.iter().enumerate() {
            for column in target.sources.get(input).into_iter().flatten() {
                let offered = offer.schema.field(*column).data_type();
                let (from, to) = (type_name(offered), type_name(field.data_type()));
                if *offered != DataType::Null && from != to {
                    drift.push(Drift {
                        file: offer.address.clone(),
                        column: target.name.clone(),
                        from: Some(from),
                        to: Some(to),
                        action: "cast".to_owned(),
                    });
                }
            }
        }
    }
}
