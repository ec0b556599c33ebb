//! What the columns of an answer are called: an alias or a column's own name, else the expression as it was written.
//!
//! Queries are planned as they stand and their answers are labelled afterwards, so that no name can change what a query
//! means. Only where the names themselves are kept (`create table t as select …`) or where two expressions that read the
//! same would collide, they become aliases in the outermost select, before it is planned.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement as Sql, VisitorMut,
};

use super::names::inner_of;
use super::visit;

/// The names that a query's text gives to the columns of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// The first columns.
    first: Vec<Label>,
    /// The last ones, where there are columns in between of which the text does not tell how many there are.
    last: Option<Vec<Label>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    /// The planner's own name: that of a column, or an alias.
    Planned,
    /// This text, unless the planner's name is `column`.
    Written { text: String, column: Option<String> },
}

impl Labels {
    /// The labels of the answer to `statement`, before anything in it is respelled.
    pub fn of(statement: &Statement) -> Self {
        let Statement::Statement(inner) = statement else { return Self::default() };
        let Sql::Query(query) = inner.as_ref() else { return Self::default() };
        let Some(select) = outermost(query) else { return Self::default() };
        let mut labels = Self::default();
        let starred = has_star(select);
        for item in &select.projection {
            let label = match column_name(item) {
                // It gets a name of its own beside the star.
                Some(_) if starred => Some(Label::Planned),
                _ => label(item),
            };
            match (label, &mut labels.last) {
                (Some(label), None) => labels.first.push(label),
                (Some(label), Some(last)) => last.push(label),
                // What stands between two such items cannot be placed.
                (None, last) => *last = Some(Vec::new()),
            }
        }
        labels
    }

    /// `schema` with these labels, no two of them the same.
    pub fn apply(&self, schema: &SchemaRef) -> SchemaRef {
        let count = schema.fields().len();
        let last = self.last.as_deref().unwrap_or_default();
        let known = self.first.len() + last.len();
        let fits = if self.last.is_some() { known <= count } else { known == count };
        let label_of = |at: usize| {
            if !fits {
                return None;
            }
            self.first.get(at).or_else(|| last.get((at + last.len()).checked_sub(count)?))
        };
        let mut taken = HashSet::new();
        let named = schema.fields().iter().enumerate().map(|(at, field)| {
            let name = match label_of(at) {
                Some(Label::Written { text, column }) if column.as_deref() != Some(&field.name().to_lowercase()) => {
                    text
                }
                _ => shown(field.name()),
            };
            let name = free(name, &mut taken);
            if name == *field.name() { Arc::clone(field) } else { Arc::new(Field::clone(field).with_name(name)) }
        });
        let fields: Vec<Arc<Field>> = named.collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }
}

/// Makes labels into aliases, where the names have a life of their own and where they would collide.
pub(super) fn alias(statement: &mut Statement) {
    let Some(inner) = inner_of(statement) else { return };
    let (query, kept) = match inner {
        Sql::Query(query) => (query, false),
        Sql::CreateTable(create) => match &mut create.query {
            Some(query) => (query, true),
            None => return,
        },
        Sql::CreateView(create) => (&mut create.query, true),
        _ => return,
    };
    alias_query(query, kept);
}

/// Makes labels into aliases, because the names have a life of their own.
pub(super) fn alias_kept(query: &mut Query) {
    alias_query(query, true);
}

/// Makes labels into aliases where they would collide, in a query whose columns are told by their places.
pub(super) fn alias_placed(query: &mut Query) {
    alias_query(query, false);
}

fn alias_query(query: &mut Query, kept: bool) {
    let Some(select) = outermost_mut(query) else { return };
    if has_star(select) && !kept {
        again_beside_star(select);
    }
    let texts: Vec<Option<String>> = select.projection.iter().map(|item| label(item).and_then(Label::text)).collect();
    let mut taken: HashSet<String> = select.projection.iter().filter_map(own_name).collect();
    let mut seen = HashSet::new();
    for (item, text) in select.projection.iter_mut().zip(&texts) {
        // The planner takes no name twice; a second one gets a number.
        let bare = column_name(item).filter(|_| own_name(item).is_none());
        if let Some(name) = own_name(item).or_else(|| repeated(item))
            && (!seen.insert(name.clone()) | bare.is_some_and(|bare| seen.contains(&bare)))
        {
            let expr = match &*item {
                SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => expr.clone(),
                _ => continue,
            };
            let name = name.rsplit('.').next().unwrap_or(&name).to_owned();
            taken.insert(name.clone());
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', free(&name, &mut taken)) };
            continue;
        }
        let (SelectItem::UnnamedExpr(expr), Some(text)) = (&*item, text) else { continue };
        // A column keeps its name; the planner can tell columns of several tables apart.
        if matches!(expr, Expr::CompoundIdentifier(_)) {
            continue;
        }
        let again = texts.iter().flatten().filter(|other| *other == text).count() > 1;
        if kept || again {
            let alias = Ident::with_quote('"', free(text, &mut taken));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// How the names begin by which the planner knows columns that a star beside them may stand for as well. Their place follows, and
/// their own names.
const AGAIN: &str = "_flumen_again_";

fn again(place: usize, name: &str) -> Ident {
    Ident::with_quote('"', format!("{AGAIN}{place}_{name}"))
}

/// The own name of a column that the planner calls `name`.
fn shown(name: &str) -> &str {
    name.strip_prefix(AGAIN).and_then(|rest| rest.split_once('_')).map_or(name, |(_, own)| own)
}

/// Gives the columns beside a star names of their own: the planner takes no name twice, and the star may have them too.
fn again_beside_star(select: &mut Select) {
    for (place, item) in select.projection.iter_mut().enumerate() {
        if let Some(name) = column_name(item)
            && let SelectItem::UnnamedExpr(expr) = &*item
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: again(place, &name) };
        }
    }
}

/// Gives what is called `name` beside a star another name for the planner, in the order of the rows too, where a name means what the
/// answer calls so. Gives whether there was such a thing.
pub(super) fn alias_again(statement: &mut Statement, name: &str) -> bool {
    let Some(Sql::Query(query)) = inner_of(statement) else { return false };
    let Some(select) = outermost_mut(query).filter(|select| has_star(select)) else { return false };
    let called = |ident: &Ident| folded(ident) == name;
    let aliases = select.projection.iter_mut().enumerate().filter_map(|(place, item)| match item {
        SelectItem::ExprWithAlias { alias, .. } if called(alias) => Some((place, alias)),
        _ => None,
    });
    let mut renamed = None;
    for (place, alias) in aliases {
        *alias = again(place, name);
        renamed = Some(alias.clone());
    }
    let Some(renamed) = renamed else { return false };
    if let Some(OrderBy { kind: OrderByKind::Expressions(terms), .. }) = &mut query.order_by {
        let mut renaming = Renaming { called: name, renamed };
        terms.iter_mut().for_each(|term| visit::change(&mut term.expr, &mut renaming));
    }
    true
}

struct Renaming<'a> {
    called: &'a str,
    renamed: Ident,
}

impl VisitorMut for Renaming<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && folded(ident) == self.called
        {
            *ident = self.renamed.clone();
        }
        ControlFlow::Continue(())
    }
}

/// An identifier as it is meant: in lower case where it stands without quotes.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn has_star(select: &Select) -> bool {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    select.projection.iter().any(is_star)
}

/// The name of a plain column, as an answer shows it.
fn column_name(item: &SelectItem) -> Option<String> {
    let ident = match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => ident,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last()?,
        _ => return None,
    };
    Some(folded(ident))
}

/// A column of a table, as it is written: the same twice is one name twice.
fn repeated(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(_)) => Some(expr.to_string()),
        _ => None,
    }
}

impl Label {
    fn text(self) -> Option<String> {
        match self {
            Label::Planned => None,
            Label::Written { text, .. } => Some(text),
        }
    }
}

/// `name`, with a number if it is taken already.
fn free(name: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut free = std::iter::once(name.to_owned()).chain(numbered).skip_while(|name| taken.contains(name));
    let name = free.next().unwrap_or_default();
    taken.insert(name.clone());
    name
}

/// The select that names the columns of `query`.
fn outermost(query: &Query) -> Option<&Select> {
    if !query.pipe_operators.is_empty() {
        return None;
    }
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::Select(select) => return Some(select),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => return outermost(query),
            _ => return None,
        }
    }
}

fn outermost_mut(query: &mut Query) -> Option<&mut Select> {
    if !query.pipe_operators.is_empty() {
        return None;
    }
    let mut body = query.body.as_mut();
    loop {
        match body {
            SetExpr::Select(select) => return Some(select),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => return outermost_mut(query),
            _ => return None,
        }
    }
}

/// The label of `item`; none for one that may stand for several columns.
fn label(item: &SelectItem) -> Option<Label> {
    match item {
        SelectItem::ExprWithAlias { .. } | SelectItem::UnnamedExpr(Expr::Identifier(_)) => Some(Label::Planned),
        SelectItem::UnnamedExpr(Expr::Function(call)) if call.name.to_string().eq_ignore_ascii_case("unnest") => None,
        SelectItem::UnnamedExpr(expr) => {
            let column = match expr {
                Expr::CompoundIdentifier(parts) => parts.last().map(|last| last.value.to_lowercase()),
                _ => None,
            };
            Some(Label::Written { text: on_one_line(&expr.to_string()), column })
        }
        _ => None,
    }
}

fn own_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    }
}

fn on_one_line(text: &str) -> String {
    text.split(['\n', '\r', '\t']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    /// The labels of `sql`, where the planner calls its columns `planned`.
    fn check(sql: &str, planned: &str, expect: &str) {
        let fields: Vec<Field> = planned.split('|').map(|name| Field::new(name, DataType::Int64, true)).collect();
        let labels = Labels::of(&super::super::statements::parse(sql).expect(sql));
        let schema = labels.apply(&Arc::new(Schema::new(fields)));
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names.join("|"), expect, "{sql}");
    }

    #[test]
    fn expressions_are_called_as_they_are_written() {
        check(
            "select round( avg(fare),2 ), a, b as c from t",
            "round(avg(t.fare),Int64(2))|a|c",
            "round(avg(fare), 2)|a|c",
        );
        check("select t.fare, s.x.y from t", "fare|t.s[x][y]", "fare|s.x.y");
        check("select 1 union all select 2", "Int64(1)", "1");
        check("(select 1 + 1) order by 1", "Int64(1) + Int64(1)", "1 + 1");
        check("with c as (select sum(a) from t) select count(*) from c", "count(*)", "count(*)");
        check("select 'a\n  b'", "Utf8(\"a\")", "'a b'");
    }

    #[test]
    fn columns_around_a_star_are_placed() {
        check("select 1, *, 2 from t", "Int64(1)|a|b|Int64(2)", "1|a|b|2");
        check("select *, 2, t.* from t", "a|Int64(2)|b", "a|Int64(2)|b");
        check("select *, ID, t.\"B\" from t", "id|B|_flumen_again_1_id|_flumen_again_2_B", "id|B|id_2|B_2");
        check("select unnest(s), 2 from t", "x|y|Int64(2)", "x|y|2");
        check("select 1, 2", "x", "x");
        check("values (1)", "column1", "column1");
    }

    #[test]
    fn no_two_names_are_the_same() {
        check("select a.id, b.id, * from a, b", "id|id|id|id_2", "id|id_2|id_3|id_2_2");
    }

    #[test]
    fn only_names_that_are_kept_or_collide_become_aliases() {
        let aliased = |sql: &str| {
            let mut statement = super::super::statements::parse(sql).expect(sql);
            alias(&mut statement);
            statement.to_string()
        };
        assert_eq!(aliased("SELECT sum(a), a FROM t"), "SELECT sum(a), a FROM t");
        assert_eq!(aliased("SELECT 1, 1, 2"), "SELECT 1 AS \"1\", 1 AS \"1_2\", 2");
        assert_eq!(aliased("SELECT id, id, id FROM t"), "SELECT id, id AS \"id_2\", id AS \"id_3\" FROM t");
        assert_eq!(aliased("SELECT 1 AS a, 2 AS a"), "SELECT 1 AS a, 2 AS \"a_2\"");
        assert_eq!(aliased("SELECT t.a, t.a, u.a FROM t, u"), "SELECT t.a, t.a AS \"a_2\", u.a FROM t, u");
        assert_eq!(aliased("SELECT *, id FROM t"), "SELECT *, id AS \"_flumen_again_1_id\" FROM t");
        assert_eq!(
            aliased("CREATE VIEW v AS SELECT t.*, u.id FROM t, u"),
            "CREATE VIEW v AS SELECT t.*, u.id FROM t, u"
        );
        assert_eq!(
            aliased("CREATE VIEW v AS SELECT count(*), t.a, b FROM t"),
            "CREATE VIEW v AS SELECT count(*) AS \"count(*)\", t.a, b FROM t"
        );
    }
}
