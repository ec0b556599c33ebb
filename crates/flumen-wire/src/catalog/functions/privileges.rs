//! Who may do what. Whoever is in may read everything, and write everything unless read-only.

use postgres_types::Type;

use super::{Context, Spec, Value, at, ours, text};
use crate::failure::Failure;

pub(super) const FUNCTIONS: &[Spec] = &[
    ours("has_table_privilege", Type::BOOL, may),
    ours("has_any_column_privilege", Type::BOOL, may),
    ours("has_column_privilege", Type::BOOL, may),
    ours("has_schema_privilege", Type::BOOL, may),
    ours("has_database_privilege", Type::BOOL, may),
    ours("has_function_privilege", Type::BOOL, may),
    ours("has_language_privilege", Type::BOOL, may),
    ours("has_sequence_privilege", Type::BOOL, may),
    ours("has_tablespace_privilege", Type::BOOL, may),
    ours("has_type_privilege", Type::BOOL, may),
    ours("has_parameter_privilege", Type::BOOL, may),
    ours("has_foreign_data_wrapper_privilege", Type::BOOL, may),
    ours("has_server_privilege", Type::BOOL, may),
    ours("pg_has_role", Type::BOOL, |a, c| {
        // Nobody is a member of anybody else.
        let role = if a.len() > 2 { at(a, 1) } else { at(a, 0) };
        let me = c.session.account.name.as_str();
        let named = role.shown(&c.snapshot).unwrap_or_default();
        Ok(Value::Bool(named == me || role.int() == c.snapshot.role_oid(me)))
    }),
];

fn may(arguments: &[Value], context: &Context) -> Result<Value, Failure> {
    let privilege = text(arguments, arguments.len().saturating_sub(1), context).to_uppercase();
    let reading = ["SELECT", "USAGE", "CONNECT", "EXECUTE", "TEMP", "TEMPORARY", "REFERENCES"];
    let first = privilege.split([',', ' ']).next().unwrap_or_default();
    Ok(Value::Bool(!context.session.account.read_only || reading.contains(&first)))
}
