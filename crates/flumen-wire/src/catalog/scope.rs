//! What names mean at a place in a query.

use std::cell::RefCell;

use postgres_types::Type;

use super::aggregates::Aggregate;
use super::expression::Ex;
use super::plan::Window;

/// A column that can be named.
#[derive(Debug, Clone)]
pub(super) struct ScopeColumn {
    /// The name of its table, and that of the table's namespace.
    pub table: String,
    pub schema: Option<String>,
    pub name: String,
    pub kind: Type,
    /// Whether a star leaves it out: the second of two columns that a join makes one.
    pub hidden: bool,
    /// Whether it is one that every table has, and that is there for those who name it only.
    pub system: bool,
}

/// The columns at a place, and those of the queries around.
pub(super) struct Scope<'a> {
    pub columns: Vec<ScopeColumn>,
    pub parent: Option<&'a Scope<'a>>,
    pub collected: RefCell<Collected>,
}

/// What the expressions of a SELECT have in them that is worked out for groups, or for all rows.
#[derive(Default)]
pub(super) struct Collected {
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<Window>,
    pub sets: Vec<Ex>,
}

impl<'a> Scope<'a> {
    /// Columns within `parent`.
    pub fn new(columns: Vec<ScopeColumn>, parent: Option<&'a Scope<'a>>) -> Self {
        Self { columns, parent, collected: RefCell::default() }
    }

    /// The column that `parts` name: how far out, which one, its type.
    pub fn find(&self, parts: &[&str]) -> Option<(usize, usize, Type)> {
        let (name, qualifier) = parts.split_last()?;
        let fits = |column: &ScopeColumn| {
            column.name == *name
                && match qualifier {
                    [] => !column.hidden,
                    [table] => column.table == *table,
                    [.., schema, table] => column.table == *table && column.schema.as_deref() == Some(*schema),
                }
        };
        let mut place = Some(self);
        let mut depth = 0;
        while let Some(scope) = place {
            if let Some(index) = scope.columns.iter().position(fits) {
                return Some((depth, index, scope.columns[index].kind.clone()));
            }
            (place, depth) = (scope.parent, depth + 1);
        }
        None
    }

    /// The names of the columns of a table.
    pub fn columns_of(&self, name: &str) -> Option<Vec<String>> {
        let mut place = Some(self);
        while let Some(scope) = place {
            let found = scope.columns.iter().filter(|column| column.table == name && !column.system);
            let found: Vec<String> = found.map(|column| column.name.clone()).collect();
            if !found.is_empty() {
                return Some(found);
            }
            place = scope.parent;
        }
        None
    }

    /// The columns of a table as a whole: how far out, and which.
    pub fn table(&self, name: &str) -> Option<(usize, Vec<usize>)> {
        let mut place = Some(self);
        let mut depth = 0;
        while let Some(scope) = place {
            let found = scope.columns.iter().enumerate();
            let found = found.filter(|(_, column)| column.table == name && !column.system);
            let found: Vec<usize> = found.map(|(index, _)| index).collect();
            if !found.is_empty() {
                return Some((depth, found));
            }
            (place, depth) = (scope.parent, depth + 1);
        }
        None
    }
}
