//! `check`.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, Result};
use flumen_lake::engine::Engine;
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::OneOrMore;
use flumen_worker::kinds::check::{ColumnRule, Fields, RowsRule, Severity, comparison};
use serde_json::{Value, json};

use super::rows;
use crate::commands::sql;
use crate::context::Context;
use crate::output::{count, counted};

/// Mistakes that the error of a task names.
const NAMED: usize = 5;

/// Something that must hold: how it is found out, and what to say if it does not.
struct Rule {
    /// What is measured, as an aggregate.
    measured: String,
    /// Whether that is good, as a condition over aggregates.
    holds: String,
    /// What to say: `{}` is what was measured.
    says: String,
}

pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let engine = sql::engine(context, None, None)?;
    let mut failed: Vec<String> = Vec::new();
    let (mut passed, mut row_count) = (0_u64, None);
    if let Some(table) = &fields.table {
        let rules = rules(&fields, interval_end(context))?;
        let found = measure(&engine, table, fields.predicate.as_deref(), &rules, context).await?;
        row_count = found["rows"].as_u64();
        for (number, rule) in rules.iter().enumerate() {
            match found[format!("holds_{number}")].as_bool() {
                Some(true) => passed += 1,
                // Of no rows nothing can be said; how many there must be is a rule of its own.
                None => passed += 1,
                Some(false) => failed.push(format!(
                    "{table}: {}",
                    rule.says.replace("{}", &shown(&found[format!("measured_{number}")]))
                )),
            }
        }
        if let Some(columns) = fields.unique.clone().map(OneOrMore::names) {
            let twice = duplicates(&engine, table, fields.predicate.as_deref(), &columns, context).await?;
            let named = columns.join(", ");
            if twice > 0 {
                failed.push(format!("{table}: {} values of ({named}) are there more than once", count(twice)));
            } else {
                passed += 1;
            }
        }
    }
    if let Some(query) = &fields.empty {
        let answer = engine.query(query).await?;
        let (first, rows) = rows::values(answer, 1, context).await?;
        if rows > 0 {
            failed.push(format!(
                "the query that should be empty gives {}, such as {}",
                counted(rows, "row"),
                first.first().unwrap_or(&Value::Null)
            ));
        } else {
            passed += 1;
        }
    }
    for text in &failed {
        context.output.warning(text);
    }
    context.output.note(format_args!("{passed} of {} hold", passed as usize + failed.len()));
    if !failed.is_empty() && fields.severity.unwrap_or_default() == Severity::Fail {
        let more = if failed.len() > NAMED { format!("; and {} more", failed.len() - NAMED) } else { String::new() };
        let named: Vec<&str> = failed.iter().take(NAMED).map(String::as_str).collect();
        return Err(Error::data(format!("{}{more}", named.join("; "))));
    }
    let mut reads = engine.used_tables();
    reads.extend(fields.table.filter(|table| !reads.contains(table)));
    Ok(Done { output: json!({ "rows": row_count, "passed": passed, "failed": failed }), reads, writes: Vec::new() })
}

/// When the data of the run ends; a run without a schedule is about the present.
fn interval_end(context: &Context) -> DateTime<Utc> {
    let given = std::env::var("FLUMEN_DATA_INTERVAL_END").ok();
    let parsed = given.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    parsed.map_or_else(|| context.clock.now(), |moment| moment.with_timezone(&Utc))
}

/// All that must hold for the rows of a table, but what needs a query of its own.
fn rules(fields: &Fields, end: DateTime<Utc>) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    if let Some(rows) = &fields.rows {
        let text = match rows {
            RowsRule::Exactly(rows) => rows.to_string(),
            RowsRule::Rule(text) => text.clone(),
        };
        let holds = comparison(&text).map_err(|message| Error::invalid(format!("rows: {message}")))?;
        rules.push(Rule {
            measured: "count(*)".to_owned(),
            holds: format!("count(*) {holds}"),
            says: format!("there are {{}} rows, and it must be {text}"),
        });
    }
    for (name, rule) in fields.columns.iter().flatten() {
        column_rules(name, rule, &mut rules)?;
    }
    if let Some(fresh) = &fields.fresh {
        let column = quoted(&fresh.column);
        let within = TimeDelta::from_std(fresh.within.0).unwrap_or(TimeDelta::MAX);
        let oldest = (end - within).to_rfc3339_opts(SecondsFormat::Secs, true);
        rules.push(Rule {
            measured: format!("max({column})"),
            holds: format!("max({column}) >= cast('{}' as timestamp)", oldest.trim_end_matches('Z')),
            says: format!(
                "the newest {} is {{}}, more than {} before the end of the interval",
                fresh.column, fresh.within
            ),
        });
    }
    Ok(rules)
}

fn column_rules(name: &str, rule: &ColumnRule, rules: &mut Vec<Rule>) -> Result<()> {
    let column = quoted(name);
    let number_of = |condition: &str| format!("coalesce(sum(case when {condition} then 1 else 0 end), 0)");
    let mut add = |measured: String, holds: String, says: String| {
        rules.push(Rule { measured, holds, says: format!("column {name}: {says}") });
    };
    if let Some(most) = rule.nulls {
        let nulls = number_of(&format!("{column} is null"));
        add(nulls.clone(), format!("{nulls} <= {most}"), format!("{{}} nulls, at most {most} are allowed"));
    }
    if rule.unique == Some(true) {
        let twice = format!("count({column}) - count(distinct {column})");
        add(twice.clone(), format!("{twice} = 0"), "{} values are there more than once".to_owned());
    }
    if let Some(least) = &rule.min {
        let least_sql = literal(least)?;
        add(
            format!("min({column})"),
            format!("min({column}) >= {least_sql}"),
            format!("the least value is {{}}, below {}", shown(least)),
        );
    }
    if let Some(most) = &rule.max {
        let most_sql = literal(most)?;
        add(
            format!("max({column})"),
            format!("max({column}) <= {most_sql}"),
            format!("the greatest value is {{}}, above {}", shown(most)),
        );
    }
    if let Some(among) = &rule.among {
        let list = among.iter().map(literal).collect::<Result<Vec<_>>>()?.join(", ");
        let others = match list.as_str() {
            "" => number_of(&format!("{column} is not null")),
            list => number_of(&format!("{column} is not null and {column} not in ({list})")),
        };
        add(others.clone(), format!("{others} = 0"), "{} values are none of those that are allowed".to_owned());
    }
    if let Some(pattern) = &rule.matches {
        let pattern_sql = literal(&Value::from(pattern.as_str()))?;
        let others =
            number_of(&format!("{column} is not null and not regexp_like(cast({column} as varchar), {pattern_sql})"));
        add(others.clone(), format!("{others} = 0"), format!("{{}} values do not match {pattern}"));
    }
    Ok(())
}

async fn measure(
    engine: &Engine,
    table: &str,
    predicate: Option<&str>,
    rules: &[Rule],
    context: &Context,
) -> Result<Value> {
    let mut query = "select count(*) as \"rows\"".to_owned();
    for (number, rule) in rules.iter().enumerate() {
        query.push_str(&format!(", {} as measured_{number}, {} as holds_{number}", rule.measured, rule.holds));
    }
    query.push_str(&format!(" from {table}{}", filter(predicate)));
    let answer = engine.query(&query).await?;
    let (mut values, _) = rows::values(answer, 1, context).await?;
    values.pop().ok_or_else(|| Error::internal("a count gave no row"))
}

async fn duplicates(
    engine: &Engine,
    table: &str,
    predicate: Option<&str>,
    columns: &[String],
    context: &Context,
) -> Result<u64> {
    let named = columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let query = format!(
        "select count(*) as n from (select {named} from {table}{} group by {named} having count(*) > 1) as twice",
        filter(predicate)
    );
    let (values, _) = rows::values(engine.query(&query).await?, 1, context).await?;
    Ok(values.first().and_then(|row| row["n"].as_u64()).unwrap_or_default())
}

fn filter(predicate: Option<&str>) -> String {
    predicate.map(|predicate| format!(" where ({predicate})")).unwrap_or_default()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value as SQL writes it.
fn literal(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(format!("'{}'", text.replace('\'', "''"))),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(Error::invalid(format!("{other} is no value to compare with"))
            .hint("write a number, a text, a date, true or false")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), count),
        other => other.to_string(),
    }
}
