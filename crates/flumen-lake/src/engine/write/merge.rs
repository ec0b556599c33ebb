//! `MERGE INTO …`, and what comes to the same: updates and deletes with other tables.
//!
//! Three queries: which files have rows that a clause applies to (and whether a row is matched more than once); the rows of
//! these files as they are afterwards; the rows of the source that have no match. The source is read in each: it must give
//! the same rows each time.

use std::collections::{HashMap, HashSet};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, Volatility};
use datafusion::sql::sqlparser::ast::{
    Assignment, Merge as MergeStatement, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr, MergeInsertKind,
    TableFactor,
};
use flumen_core::words::counted;
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::update::assignments;
use super::{PATH_COLUMN, Statement, TARGET, Target, chosen, name_of, refuse};
use crate::engine::columns::{self, quoted};
use crate::engine::lake_table::POSITION_COLUMN;
use crate::engine::statements::ALL;

/// The column that is true for rows of the source.
const MATCHED: &str = "_flumen_matched";
/// The name of a source that has none.
const SOURCE: &str = "_flumen_source";

/// What is to be done to the rows of a table, given those of a source.
pub(super) struct Merge {
    pub target: Target,
    /// The source, as a FROM has it, its alias included.
    pub source: String,
    pub on: String,
    pub clauses: Vec<Clause>,
    pub operation: &'static str,
}

/// One WHEN.
pub(super) struct Clause {
    pub kind: Kind,
    pub condition: Option<String>,
    pub action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Matched,
    NotMatched,
    NotMatchedBySource,
}

pub(super) enum Action {
    Delete,
    /// The columns, and what they are set to.
    Update(HashMap<String, String>),
    /// The values of all columns, in the table's order.
    Insert(Vec<String>),
}

impl Merge {
    /// What a MERGE asks for, of the table of `draft`.
    ///
    /// Errors: `Invalid` for forms that are not run; `NotFound` for a column that is not there.
    pub(super) fn of(merge: &MergeStatement, draft: &Draft) -> Result<Self> {
        if merge.output.is_some() {
            return refuse("merge … output", "merge, then select");
        }
        let source = match &merge.source {
            TableFactor::Table { alias: None, .. } | TableFactor::Derived { alias: Some(_), .. } => {
                merge.source.to_string()
            }
            TableFactor::Derived { alias: None, .. } => format!("{} AS {SOURCE}", merge.source),
            other => other.to_string(),
        };
        let clauses =
            merge.clauses.iter().map(|clause| Clause::of(clause, draft, &merge.source)).collect::<Result<_>>()?;
        Ok(Self { target: Target::of(&merge.table)?, source, on: merge.on.to_string(), clauses, operation: "MERGE" })
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Clause> {
        self.clauses.iter().filter(move |clause| clause.kind == kind)
    }

    /// Where one of the clauses of `kind` applies.
    fn applies(&self, kind: Kind) -> String {
        let conditions: Vec<&str> =
            self.of_kind(kind).map(|clause| clause.condition.as_deref().unwrap_or("true")).collect();
        let conditions = conditions.iter().map(|condition| holds(condition));
        conditions.collect::<Vec<_>>().join(" OR ")
    }

    fn has(&self, kind: Kind) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// The source, with a column that says that a row is one of its.
    fn marked_source(&self) -> Result<String> {
        let alias = source_alias(&self.source)?;
        Ok(format!("(SELECT *, true AS {MATCHED} FROM {}) AS {alias}", self.source))
    }
}

/// What the columns of a source are qualified with.
fn source_alias(source: &str) -> Result<String> {
    let query = format!("SELECT 1 FROM {source}");
    let parsed = crate::engine::statements::parse_any(&query)?;
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement as Sql};
    if let datafusion::sql::parser::Statement::Statement(inner) = &parsed
        && let Sql::Query(query) = inner.as_ref()
        && let SetExpr::Select(select) = query.body.as_ref()
        && let Some(from) = select.from.first()
    {
        return Ok(match &from.relation {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                alias.name.to_string()
            }
            TableFactor::Table { name, alias: None, .. } => quoted(&name_of(name)?),
            _ => SOURCE.to_owned(),
        });
    }
    Ok(SOURCE.to_owned())
}

impl Clause {
    fn of(clause: &MergeClause, draft: &Draft, source: &TableFactor) -> Result<Self> {
        let table = draft.table().address();
        let kind = match clause.clause_kind {
            MergeClauseKind::Matched => Kind::Matched,
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => Kind::NotMatched,
            MergeClauseKind::NotMatchedBySource => Kind::NotMatchedBySource,
        };
        let action = match &clause.action {
            MergeAction::Delete { .. } => Action::Delete,
            MergeAction::Update(update) if update.update_predicate.is_some() || update.delete_predicate.is_some() => {
                return refuse("update … where of a merge", "put the condition before 'then': when matched and … then");
            }
            MergeAction::Insert(insert) if insert.insert_predicate.is_some() => {
                return refuse("insert … where of a merge", "put the condition before 'then': when not matched and …");
            }
            MergeAction::Update(update) if is_all(&update.assignments) => Action::Update(all_columns(draft, source)?),
            MergeAction::Update(update) => Action::Update(assignments(&update.assignments, draft.schema(), &table)?),
            MergeAction::Insert(insert) => Action::Insert(inserted(insert, draft, source)?),
        };
        if matches!(action, Action::Insert(_)) != (kind == Kind::NotMatched) {
            return Err(Error::invalid("'when not matched' inserts; the other clauses update or delete"));
        }
        Ok(Self { kind, condition: clause.predicate.as_ref().map(ToString::to_string), action })
    }
}

/// Whether an update sets all columns: `update set *`, as `statements.rs` has it.
fn is_all(assignments: &[Assignment]) -> bool {
    matches!(assignments, [one] if one.target.to_string() == ALL)
}

/// All columns of the table, each set to the column of the source that has its name.
fn all_columns(draft: &Draft, source: &TableFactor) -> Result<HashMap<String, String>> {
    let alias = source_alias(&source.to_string())?;
    let set = |field: &arrow::datatypes::FieldRef| (field.name().clone(), format!("{alias}.{}", quoted(field.name())));
    Ok(columns::visible(draft.schema()).iter().map(set).collect())
}

/// The values of all columns of the table, for an INSERT of a MERGE.
fn inserted(insert: &MergeInsertExpr, draft: &Draft, source: &TableFactor) -> Result<Vec<String>> {
    let table = draft.table().address();
    let visible = columns::visible(draft.schema());
    let names: Vec<String> = match insert.columns.as_slice() {
        [] => visible.iter().map(|field| field.name().clone()).collect(),
        listed => listed
            .iter()
            .map(|name| columns::spelled(draft.schema(), &name_of(name)?, &table))
            .collect::<Result<_>>()?,
    };
    let values: Vec<String> = match &insert.kind {
        MergeInsertKind::Values(values) => match values.rows.as_slice() {
            [row] => row.iter().map(ToString::to_string).collect(),
            _ => return Err(Error::invalid("an insert of a merge has one list of values")),
        },
        MergeInsertKind::Row => {
            let alias = source_alias(&source.to_string())?;
            names.iter().map(|name| format!("{alias}.{}", quoted(name))).collect()
        }
    };
    if values.len() != names.len() {
        return Err(Error::invalid(format!(
            "the insert gives {} for {}",
            counted(values.len() as u64, "value"),
            counted(names.len() as u64, "column")
        )));
    }
    let value = |field: &arrow::datatypes::FieldRef| {
        let at = names.iter().position(|name| name == field.name());
        at.map_or_else(|| "NULL".to_owned(), |at| values[at].clone())
    };
    Ok(draft.schema().fields().iter().map(value).collect())
}

/// Stages a merge in `draft`; gives the rows that were changed, removed and inserted.
pub(super) async fn stage(statement: &Statement<'_>, merge: &Merge, draft: &mut Draft) -> Result<u64> {
    draft.look();
    refuse_volatile(statement, merge).await?;
    let before = draft.files()?;
    let mut affected = Affected::default();
    if merge.has(Kind::Matched) {
        matched(statement, merge, draft, &before, &mut affected).await?;
    }
    if merge.has(Kind::NotMatchedBySource) {
        unmatched(statement, merge, draft, &before, &mut affected).await?;
    }
    let mut rows = affected.rows;
    // What is new is decided upon the rows of before.
    let mut added = Vec::new();
    if merge.has(Kind::NotMatched) {
        for (query, text) in insertions(merge, draft)? {
            let table = statement.places(draft, before.clone())?;
            let (context, plan) = statement.plan(&query, vec![(TARGET.to_owned(), table)]).await?;
            let plan = statement.all_columns(plan, draft.schema())?;
            let written = statement.write_rows(draft, &context, &plan, false).await?;
            rows += written.rows;
            added.extend(written.files);
            if draft.has_change_feed() {
                statement.write_changes(draft, &before, &text).await?;
            }
        }
    }
    if !affected.paths.is_empty() {
        let files = chosen(before, &affected.paths);
        if draft.has_change_feed() {
            statement.write_changes(draft, &files, &feed(merge, draft, affected.repeated)?).await?;
        }
        let query = rewritten(merge, draft, affected.repeated)?;
        statement.rewrite(draft, files, &query).await?;
    }
    draft.add(added);
    draft.describe(merge.operation);
    Ok(rows)
}

/// The files with rows that change, and how many rows.
#[derive(Default)]
struct Affected {
    paths: HashSet<String>,
    rows: u64,
    /// Whether a row of the table is matched by several of the source (of which one applies).
    repeated: bool,
}

async fn matched(
    statement: &Statement<'_>,
    merge: &Merge,
    draft: &Draft,
    files: &[crate::lake::DataFile],
    affected: &mut Affected,
) -> Result<()> {
    let alias = quoted(&merge.target.alias);
    let applies = merge.applies(Kind::Matched);
    let query = format!(
        "SELECT {alias}.{PATH_COLUMN}, count(*), count(CASE WHEN {applies} THEN 1 END), \
         count(DISTINCT {alias}.{POSITION_COLUMN}), count(DISTINCT CASE WHEN {applies} THEN {alias}.{POSITION_COLUMN} END) \
         FROM {} JOIN {} ON {} GROUP BY 1",
        merge.target.scan(),
        merge.source,
        merge.on
    );
    let updates = merge.of_kind(Kind::Matched).any(|clause| matches!(clause.action, Action::Update(_)));
    for (path, counts) in statement.counts(draft, files, &query).await? {
        let [pairs, applying, rows, touched] = counts[..] else { continue };
        if applying > touched && updates {
            return Err(Error::data(format!(
                "{}: a row of the table is matched by several rows of the source, so what it becomes is not decided",
                draft.table().address()
            ))
            .hint("make the source one row a key, for example with: qualify row_number() over (partition by key order by …) = 1"));
        }
        affected.repeated |= pairs > rows;
        affected.rows += touched;
        if touched > 0 {
            affected.paths.insert(path);
        }
    }
    Ok(())
}

async fn unmatched(
    statement: &Statement<'_>,
    merge: &Merge,
    draft: &Draft,
    files: &[crate::lake::DataFile],
    affected: &mut Affected,
) -> Result<()> {
    let query = format!(
        "SELECT {}.{PATH_COLUMN}, count(*) FROM {} LEFT JOIN {} ON {} WHERE {MATCHED} IS NULL AND ({}) GROUP BY 1",
        quoted(&merge.target.alias),
        merge.target.scan(),
        merge.marked_source()?,
        merge.on,
        merge.applies(Kind::NotMatchedBySource)
    );
    for (path, counts) in statement.counts(draft, files, &query).await? {
        affected.rows += counts[0];
        affected.paths.insert(path);
    }
    Ok(())
}

/// That `condition` is true, and not null. `IS TRUE` would say so, but DataFusion takes it for a value that may be null where it
/// looks at it once for several places.
fn holds(condition: &str) -> String {
    format!("(CASE WHEN {condition} THEN true ELSE false END)")
}

/// When a clause on rows of the table applies, as a condition on the joined rows. Those before it come first.
fn when(clause: &Clause) -> String {
    let side = if clause.kind == Kind::Matched { "IS NOT NULL" } else { "IS NULL" };
    match &clause.condition {
        Some(condition) => format!("{MATCHED} {side} AND {}", holds(condition)),
        None => format!("{MATCHED} {side}"),
    }
}

fn of_target(merge: &Merge) -> impl Iterator<Item = &Clause> {
    merge.clauses.iter().filter(|clause| clause.kind != Kind::NotMatched)
}

/// A CASE over the clauses on rows of the table.
fn case(merge: &Merge, value: impl Fn(&Clause) -> String, otherwise: &str) -> String {
    let arms: String =
        of_target(merge).map(|clause| format!(" WHEN {} THEN {}", when(clause), value(clause))).collect();
    format!("CASE{arms} ELSE {otherwise} END")
}

/// The rows of the touched files joined with the source, one for each row of the table.
fn joined(merge: &Merge, repeated: bool) -> Result<String> {
    let alias = quoted(&merge.target.alias);
    let from = format!("{} LEFT JOIN {} ON {}", merge.target.scan(), merge.marked_source()?, merge.on);
    if !repeated {
        return Ok(format!("FROM {from}"));
    }
    // Of several matches, the one to which a clause applies decides.
    let applies = case(merge, |_| "0".to_owned(), "1");
    Ok(format!(
        "FROM {from} QUALIFY row_number() OVER (PARTITION BY {alias}.{PATH_COLUMN}, {alias}.{POSITION_COLUMN} ORDER BY {applies}) = 1"
    ))
}

/// The values of all columns after the merge.
fn after(merge: &Merge, draft: &Draft) -> Vec<String> {
    let alias = quoted(&merge.target.alias);
    let fields = draft.schema().fields().iter();
    let value = |field: &arrow::datatypes::FieldRef| {
        let old = format!("{alias}.{}", quoted(field.name()));
        let sets = |clause: &Clause| match &clause.action {
            Action::Update(values) => values.get(field.name()).map(|value| format!("({value})")),
            _ => None,
        };
        if of_target(merge).all(|clause| sets(clause).is_none()) {
            return old;
        }
        case(merge, |clause| sets(clause).unwrap_or_else(|| old.clone()), &old)
    };
    fields.map(value).collect()
}

/// What becomes of a row: 'delete', 'update' or 'keep'.
fn fate(merge: &Merge) -> String {
    let fate = |clause: &Clause| match clause.action {
        Action::Delete => "'delete'".to_owned(),
        _ => "'update'".to_owned(),
    };
    case(merge, fate, "'keep'")
}

/// The rows of the touched files after the merge.
fn rewritten(merge: &Merge, draft: &Draft, repeated: bool) -> Result<String> {
    let names = draft.schema().fields().iter();
    let values = after(merge, draft);
    let items: Vec<String> =
        names.zip(&values).map(|(field, value)| format!("{value} AS {}", quoted(field.name()))).collect();
    let names: Vec<String> = draft.schema().fields().iter().map(|field| quoted(field.name())).collect();
    Ok(format!(
        "SELECT {} FROM (SELECT {}, {} AS _flumen_fate {}) WHERE _flumen_fate <> 'delete'",
        names.join(", "),
        items.join(", "),
        fate(merge),
        joined(merge, repeated)?
    ))
}

/// The change feed of the rows of the touched files.
fn feed(merge: &Merge, draft: &Draft, repeated: bool) -> Result<String> {
    let fields = draft.schema().fields();
    let values = after(merge, draft);
    let alias = quoted(&merge.target.alias);
    let mut items = Vec::new();
    for (number, (field, value)) in fields.iter().zip(&values).enumerate() {
        items.push(format!("{alias}.{} AS _flumen_b{number}, {value} AS _flumen_a{number}", quoted(field.name())));
    }
    let joined = joined(merge, repeated)?;
    let inner = format!("(SELECT {}, {} AS _flumen_fate {joined})", items.join(", "), fate(merge));
    let side = |side: char| (0..fields.len()).map(|at| format!("_flumen_{side}{at}")).collect::<Vec<_>>().join(", ");
    Ok(format!(
        "SELECT {before}, 'delete' FROM {inner} WHERE _flumen_fate = 'delete' \
         UNION ALL SELECT {before}, 'update_preimage' FROM {inner} WHERE _flumen_fate = 'update' \
         UNION ALL SELECT {after}, 'update_postimage' FROM {inner} WHERE _flumen_fate = 'update'",
        before = side('b'),
        after = side('a')
    ))
}

/// For each WHEN NOT MATCHED, in order: the rows that it inserts, and the same with the kind of change.
fn insertions(merge: &Merge, draft: &Draft) -> Result<Vec<(String, String)>> {
    let mut earlier: Vec<String> = Vec::new();
    let mut queries = Vec::new();
    let source = merge.marked_source()?;
    for clause in merge.of_kind(Kind::NotMatched) {
        let Action::Insert(values) = &clause.action else { continue };
        let fields = draft.schema().fields().iter();
        let items: Vec<String> =
            fields.zip(values).map(|(field, value)| format!("{value} AS {}", quoted(field.name()))).collect();
        let items = items.join(", ");
        let condition = clause.condition.as_deref().unwrap_or("true");
        let not_before: String = earlier.iter().map(|condition| format!(" AND ({condition}) IS NOT TRUE")).collect();
        let rest = format!(
            "FROM {source} WHERE NOT EXISTS (SELECT 1 FROM {} WHERE {}) AND ({condition}){not_before}",
            merge.target.scan(),
            merge.on
        );
        queries.push((format!("SELECT {items} {rest}"), format!("SELECT {items}, 'insert' {rest}")));
        earlier.push(condition.to_owned());
    }
    Ok(queries)
}

/// A source that gives other rows each time it is read would be merged half with itself.
async fn refuse_volatile(statement: &Statement<'_>, merge: &Merge) -> Result<()> {
    let (_, plan) = statement.plan(&format!("SELECT * FROM {}", merge.source), Vec::new()).await?;
    if is_volatile(&plan).map_err(|error| statement.explained(error))? {
        return Err(Error::invalid(
            "the source gives other rows each time it is read (it has a function such as random())",
        )
        .hint("keep its rows in a table first: create temp table s as select …"));
    }
    Ok(())
}

fn is_volatile(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    let mut volatile = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let datafusion::logical_expr::Expr::ScalarFunction(function) = part {
                    volatile |= function.func.signature().volatility == Volatility::Volatile;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(volatile)
}
