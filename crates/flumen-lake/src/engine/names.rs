//! Column names without regard to case: `select VendorID` and `select vendorid` both mean the column `VendorID`.
//!
//! SQL folds unquoted names to lower case, files do not. Where a name has one meaning only among the columns of the tables
//! that the query uses, it is given the column's own spelling before the query is planned. Quoted names stay as they are.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement as Sql, VisitorMut,
};

use super::visit;

/// Gives the names in `statement` the spelling of the columns of `schemas`.
pub(super) fn respell(statement: &mut Statement, schemas: &[SchemaRef]) {
    let mut exact = HashSet::new();
    let mut spellings: HashMap<String, Option<String>> = HashMap::new();
    for field in schemas.iter().flat_map(|schema| schema.fields()) {
        exact.insert(field.name().clone());
        let lower = field.name().to_lowercase();
        spellings
            .entry(lower)
            .and_modify(|known| {
                if known.as_deref() != Some(field.name()) {
                    *known = None;
                }
            })
            .or_insert_with(|| Some(field.name().clone()));
    }
    let Some(inner) = inner_of(statement) else { return };
    let mut left_out = LeftOut { exact: &exact, spellings: &spellings };
    visit::change(inner, &mut left_out);
    let mut aliases = Aliases::default();
    visit::change(inner, &mut aliases);
    // An alias in quotes, such as a pivot has, is found like a column, where it has one meaning.
    for (lower, spelling) in aliases.quoted {
        if !aliases.plain.contains(&lower) && !spellings.contains_key(&lower) && !exact.contains(&lower) {
            aliases.names.remove(&lower);
            spellings.insert(lower, spelling);
        }
    }
    if spellings.iter().all(|(lower, spelling)| spelling.as_deref() == Some(lower)) {
        return;
    }
    let mut speller = Speller { exact, spellings, aliases: aliases.names };
    visit::change(inner, &mut speller);
}

/// What `statement` is, or explains.
pub(super) fn inner_of(statement: &mut Statement) -> Option<&mut Sql> {
    match statement {
        Statement::Statement(inner) => Some(inner),
        Statement::Explain(explain) => inner_of(&mut explain.statement),
        _ => None,
    }
}

/// Spells the columns that a star leaves out: `* EXCLUDE (Fare)`, `* EXCEPT (fare)`. The planner takes them as they stand.
struct LeftOut<'a> {
    exact: &'a HashSet<String>,
    spellings: &'a HashMap<String, Option<String>>,
}

impl LeftOut<'_> {
    fn respell(&self, name: &mut Ident) {
        if name.quote_style.is_some() {
            return;
        }
        let lower = name.value.to_lowercase();
        match self.spellings.get(&lower) {
            _ if self.exact.contains(&name.value) => {}
            Some(Some(spelling)) if !self.exact.contains(&lower) => name.value.clone_from(spelling),
            _ => name.value = lower,
        }
    }
}

impl VisitorMut for LeftOut<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else { continue };
            if let Some(except) = &mut options.opt_except {
                self.respell(&mut except.first_element);
                except.additional_elements.iter_mut().for_each(|name| self.respell(name));
            }
            let names = match &mut options.opt_exclude {
                Some(ExcludeSelectItem::Single(name)) => std::slice::from_mut(name),
                Some(ExcludeSelectItem::Multiple(names)) => names.as_mut_slice(),
                None => continue,
            };
            for part in names.iter_mut().flat_map(|name| &mut name.0) {
                if let ObjectNamePart::Identifier(name) = part {
                    self.respell(name);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The names that the query itself gives, in lower case.
#[derive(Default)]
struct Aliases {
    names: HashSet<String>,
    /// Those without quotes.
    plain: HashSet<String>,
    /// Those in quotes that have capitals, with their spelling; none where there are several.
    quoted: HashMap<String, Option<String>>,
}

impl VisitorMut for Aliases {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_ref() {
            for item in &select.projection {
                if let SelectItem::ExprWithAlias { alias, .. } = item {
                    let lower = alias.value.to_lowercase();
                    self.names.insert(lower.clone());
                    if alias.quote_style.is_none() || alias.value == lower {
                        self.plain.insert(lower);
                        continue;
                    }
                    let spelling = self.quoted.entry(lower).or_insert_with(|| Some(alias.value.clone()));
                    if spelling.as_deref() != Some(&alias.value) {
                        *spelling = None;
                    }
                }
            }
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.extend(cte.alias.columns.iter().map(|column| column.name.value.to_lowercase()));
        }
        ControlFlow::Continue(())
    }
}

struct Speller {
    exact: HashSet<String>,
    spellings: HashMap<String, Option<String>>,
    aliases: HashSet<String>,
}

impl Speller {
    fn respell(&self, name: &mut Ident) {
        if name.quote_style.is_some() {
            return;
        }
        let lower = name.value.to_lowercase();
        if name.value != lower && self.exact.contains(&name.value) {
            name.quote_style = Some('"');
        } else if !self.exact.contains(&lower)
            && !self.aliases.contains(&lower)
            && let Some(Some(spelling)) = self.spellings.get(&lower)
        {
            name.value.clone_from(spelling);
            name.quote_style = Some('"');
        }
    }
}

impl VisitorMut for Speller {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => self.respell(name),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last_mut() {
                    self.respell(last);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn check(sql: &str, expect: &str) {
        let columns = ["VendorID", "fare", "PULocationID", "dolocationid", "DOLocationID"];
        let fields: Vec<Field> = columns.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
        let mut statement = super::super::statements::parse(sql).expect(sql);
        respell(&mut statement, &[Arc::new(Schema::new(fields))]);
        assert_eq!(statement.to_string(), expect);
    }

    #[test]
    fn names_mean_columns_without_regard_to_case() {
        check("SELECT vendorid, FARE FROM t", "SELECT \"VendorID\", FARE FROM t");
        check("SELECT t.PUlocationID FROM t", "SELECT t.\"PULocationID\" FROM t");
        check(
            "SELECT sum(VENDORID) FROM t WHERE vendorid > 1",
            "SELECT sum(\"VendorID\") FROM t WHERE \"VendorID\" > 1",
        );
    }

    #[test]
    fn names_with_two_meanings_keep_their_spelling() {
        check("SELECT dolocationid, DOLocationID FROM t", "SELECT dolocationid, \"DOLocationID\" FROM t");
        check("SELECT \"vendorid\" FROM t", "SELECT \"vendorid\" FROM t");
        check(
            "SELECT q1, Q2 FROM (SELECT 1 AS \"Q1\", 2 AS \"Q2\", 3 AS q2) AS p",
            "SELECT \"Q1\", Q2 FROM (SELECT 1 AS \"Q1\", 2 AS \"Q2\", 3 AS q2) AS p",
        );
        check(
            "SELECT VendorID AS vendorid FROM t ORDER BY vendorid",
            "SELECT \"VendorID\" AS vendorid FROM t ORDER BY vendorid",
        );
    }
}
