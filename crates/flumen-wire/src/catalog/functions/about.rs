//! Functions about the session, the server and what is in the catalog.

use std::sync::Arc;

use postgres_types::Type;

use super::{Context, Spec, Value, at, int, ours, ours_null, text};
use crate::catalog::types;
use crate::catalog::value::Reg;
use crate::failure::{Failure, code};

pub(super) const FUNCTIONS: &[Spec] = &[
    ours("version", Type::TEXT, |_, _| Ok(Value::text(crate::catalog::version()))),
    ours("current_database", Type::NAME, |_, c| Ok(Value::text(&c.session.database))),
    ours("current_catalog", Type::NAME, |_, c| Ok(Value::text(&c.session.database))),
    ours("current_user", Type::NAME, |_, c| Ok(Value::text(&c.session.account.name))),
    ours("session_user", Type::NAME, |_, c| Ok(Value::text(&c.session.account.name))),
    ours("current_role", Type::NAME, |_, c| Ok(Value::text(&c.session.account.name))),
    ours("user", Type::NAME, |_, c| Ok(Value::text(&c.session.account.name))),
    ours("current_schema", Type::NAME, |_, c| Ok(Value::maybe_text(c.search_path().first().map(String::as_str)))),
    ours("current_schemas", Type::NAME_ARRAY, |a, c| {
        let implicit = if at(a, 0).truth() == Some(true) { vec!["pg_catalog".to_owned()] } else { Vec::new() };
        Ok(Value::array(implicit.into_iter().chain(c.search_path()).map(Value::text).collect()))
    }),
    ours("pg_backend_pid", Type::INT4, |_, c| Ok(Value::Int(c.session.pid.into()))),
    ours("pg_postmaster_start_time", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.started))),
    ours("pg_conf_load_time", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.started))),
    ours("clock_timestamp", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.now()))),
    ours("statement_timestamp", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.now()))),
    ours("transaction_timestamp", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.now()))),
    super::plain("now", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.now()))),
    super::plain("current_timestamp", Type::TIMESTAMPTZ, |_, c| Ok(time(c.sessions.now()))),
    super::plain("localtimestamp", Type::TIMESTAMP, |_, c| Ok(time(c.sessions.now()))),
    ours("current_setting", Type::TEXT, |a, c| {
        let name = text(a, 0, c);
        let missing_is_fine = a.get(1).and_then(Value::truth) == Some(true);
        match c.settings().get(&name) {
            Some(value) => Ok(Value::text(value)),
            None if missing_is_fine => Ok(Value::Null),
            None => {
                Err(Failure::new(code::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\"")))
            }
        }
    }),
    ours_null("set_config", Type::TEXT, |a, c| {
        let name = text(a, 0, c);
        let value = a.get(1).and_then(|value| value.shown(&c.snapshot));
        c.settings().set(&name, value.as_deref())?;
        Ok(Value::maybe_text(c.settings().get(&name).as_deref()))
    }),
    ours("pg_is_in_recovery", Type::BOOL, |_, _| Ok(Value::Bool(false))),
    ours("pg_is_wal_replay_paused", Type::BOOL, |_, _| Ok(Value::Null)),
    ours("pg_jit_available", Type::BOOL, |_, _| Ok(Value::Bool(false))),
    ours("pg_encoding_to_char", Type::NAME, |a, _| Ok(Value::text(if int(a, 0) == 6 { "UTF8" } else { "" }))),
    ours("pg_char_to_encoding", Type::INT4, |a, c| {
        Ok(Value::Int(if text(a, 0, c).to_lowercase().replace('-', "") == "utf8" { 6 } else { -1 }))
    }),
    ours("pg_client_encoding", Type::NAME, |_, _| Ok(Value::text("UTF8"))),
    ours("pg_get_userbyid", Type::NAME, |a, c| Ok(Value::text(c.snapshot.name_of(Reg::Role, int(a, 0))))),
    ours("pg_table_is_visible", Type::BOOL, |a, c| {
        let namespace = c.snapshot.relation(int(a, 0)).map(|relation| relation.namespace.clone());
        let namespace = namespace.or_else(|| c.snapshot.system_namespace(int(a, 0)));
        let visible = |name: String| {
            name == "pg_catalog" || c.search_path().contains(&name) || c.snapshot.is_found_bare(int(a, 0))
        };
        Ok(namespace.map_or(Value::Bool(false), |name| Value::Bool(visible(name))))
    }),
    ours("pg_type_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_function_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_operator_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_opclass_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_opfamily_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("getdatabaseencoding", Type::NAME, |_, _| Ok(Value::text("UTF8"))),
    ours("pg_collation_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_conversion_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_ts_config_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_ts_dict_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_ts_parser_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_ts_template_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours("pg_statistics_obj_is_visible", Type::BOOL, |_, _| Ok(Value::Bool(true))),
    ours_null("format_type", Type::TEXT, |a, _| {
        let Some(oid) = a.first().and_then(Value::int) else { return Ok(Value::Null) };
        Ok(Value::text(types::format(oid, a.get(1).and_then(Value::int))))
    }),
    ours("pg_get_expr", Type::TEXT, |a, _| Ok(at(a, 0).clone())),
    ours("pg_get_constraintdef", Type::TEXT, |a, c| {
        Ok(c.snapshot.key(int(a, 0)).map_or(Value::Null, |(_, key)| Value::text(key.definition())))
    }),
    ours("pg_get_indexdef", Type::TEXT, |a, c| {
        let Some((relation, key)) = c.snapshot.index(int(a, 0)) else { return Ok(Value::Null) };
        let column = int(a, 1);
        Ok(Value::text(match usize::try_from(column - 1).ok().and_then(|place| key.columns.get(place)) {
            Some(column) => crate::catalog::listing::quoted(column),
            None if column > 0 => String::new(),
            None => key.index_definition(relation),
        }))
    }),
    ours("pg_get_viewdef", Type::TEXT, |a, c| {
        let oid = match at(a, 0) {
            Value::Text(name) => c.snapshot.oid_of(Reg::Class, name).unwrap_or_default(),
            other => other.int().unwrap_or_default(),
        };
        let relation = c.snapshot.relation(oid);
        let definition = relation.and_then(|relation| relation.definition.as_deref());
        Ok(definition
            .map_or(Value::Null, |definition| Value::text(format!(" {};", definition.trim_end_matches([';', ' '])))))
    }),
    ours("oidvectortypes", Type::TEXT, |_, _| Ok(Value::text(""))),
    ours("pg_get_functiondef", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_function_arguments", Type::TEXT, |a, c| {
        Ok(c.snapshot.function(int(a, 0)).map_or(Value::Null, |function| Value::text(&function.arguments)))
    }),
    ours("pg_get_function_identity_arguments", Type::TEXT, |a, c| {
        Ok(c.snapshot.function(int(a, 0)).map_or(Value::Null, |function| Value::text(&function.arguments)))
    }),
    ours("pg_get_function_result", Type::TEXT, |a, c| {
        Ok(c.snapshot.function(int(a, 0)).map_or(Value::Null, |function| Value::text(&function.result)))
    }),
    ours("pg_get_function_sqlbody", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_triggerdef", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_ruledef", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_serial_sequence", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_partkeydef", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_partition_constraintdef", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_get_statisticsobjdef_columns", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_sequence_last_value", Type::INT8, |_, _| Ok(Value::Null)),
    ours("obj_description", Type::TEXT, |a, c| {
        let comment = c.snapshot.relation(int(a, 0)).and_then(|relation| relation.comment.as_deref());
        Ok(Value::maybe_text(comment.or_else(|| c.snapshot.namespace_comment(int(a, 0)))))
    }),
    ours("col_description", Type::TEXT, |a, c| {
        let place = usize::try_from(int(a, 1) - 1).unwrap_or(usize::MAX);
        let column = c.snapshot.relation(int(a, 0)).and_then(|relation| relation.columns.get(place));
        Ok(Value::maybe_text(column.and_then(|column| column.comment.as_deref())))
    }),
    ours("shobj_description", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("pg_relation_size", Type::INT8, size),
    ours("pg_total_relation_size", Type::INT8, size),
    ours("pg_table_size", Type::INT8, size),
    ours("pg_indexes_size", Type::INT8, |_, _| Ok(Value::Int(0))),
    ours("pg_database_size", Type::INT8, |_, c| Ok(Value::Int(c.snapshot.bytes()))),
    ours("pg_tablespace_size", Type::INT8, |_, c| Ok(Value::Int(c.snapshot.bytes()))),
    ours("pg_tablespace_location", Type::TEXT, |_, _| Ok(Value::text(""))),
    ours("pg_size_pretty", Type::TEXT, |a, _| Ok(Value::text(pretty(int(a, 0))))),
    ours("pg_cancel_backend", Type::BOOL, |a, c| stop(a, c, false)),
    ours("pg_terminate_backend", Type::BOOL, |a, c| stop(a, c, true)),
    ours("pg_advisory_unlock_all", Type::VOID, |_, _| Ok(Value::text(""))),
    ours("pg_blocking_pids", Type::INT4_ARRAY, |_, _| Ok(Value::array(Vec::new()))),
    ours("pg_my_temp_schema", Type::OID, |_, _| Ok(Value::Int(0))),
    ours("pg_is_other_temp_schema", Type::BOOL, |_, _| Ok(Value::Bool(false))),
    ours("pg_trigger_depth", Type::INT4, |_, _| Ok(Value::Int(0))),
    ours("pg_relation_is_publishable", Type::BOOL, |_, _| Ok(Value::Bool(false))),
    ours("pg_relation_is_updatable", Type::INT4, |_, c| {
        Ok(Value::Int(if c.session.account.read_only { 0 } else { 28 }))
    }),
    ours("pg_column_is_updatable", Type::BOOL, |_, c| Ok(Value::Bool(!c.session.account.read_only))),
    ours("pg_stat_get_numscans", Type::INT8, |_, _| Ok(Value::Int(0))),
    ours("pg_stat_get_live_tuples", Type::INT8, |a, c| {
        Ok(c.snapshot.relation(int(a, 0)).and_then(|relation| relation.rows).map_or(Value::Null, Value::Int))
    }),
    ours("row_security_active", Type::BOOL, |_, _| Ok(Value::Bool(false))),
    ours_null("acldefault", Type::TEXT_ARRAY, |_, _| Ok(Value::Null)),
    ours("to_regclass", Type::REGCLASS, |a, c| {
        Ok(c.snapshot.oid_of(Reg::Class, &text(a, 0, c)).map_or(Value::Null, |oid| Value::Reg(Reg::Class, oid)))
    }),
    ours("to_regtype", Type::REGTYPE, |a, c| {
        Ok(c.snapshot.oid_of(Reg::Type, &text(a, 0, c)).map_or(Value::Null, |oid| Value::Reg(Reg::Type, oid)))
    }),
    ours("to_regnamespace", Type::REGNAMESPACE, |a, c| {
        Ok(c.snapshot.oid_of(Reg::Namespace, &text(a, 0, c)).map_or(Value::Null, |oid| Value::Reg(Reg::Namespace, oid)))
    }),
    ours("to_regproc", Type::REGPROC, |a, c| {
        Ok(c.snapshot.oid_of(Reg::Proc, &text(a, 0, c)).map_or(Value::Null, |oid| Value::Reg(Reg::Proc, oid)))
    }),
    ours("inet_server_addr", Type::TEXT, |_, _| Ok(Value::Null)),
    ours("inet_server_port", Type::INT4, |_, _| Ok(Value::Null)),
    ours("inet_client_addr", Type::TEXT, |_, c| Ok(Value::text(c.session.address.ip().to_string()))),
    ours("inet_client_port", Type::INT4, |_, c| Ok(Value::Int(c.session.address.port().into()))),
    ours("_pg_char_max_length", Type::INT4, |_, _| Ok(Value::Null)),
    ours("pg_char_max_length", Type::INT4, |_, _| Ok(Value::Null)),
];

fn time(at: chrono::DateTime<chrono::Utc>) -> Value {
    Value::Time(at.timestamp_micros())
}

fn size(arguments: &[Value], context: &Context) -> Result<Value, Failure> {
    let oid = match at(arguments, 0) {
        Value::Text(name) => context.snapshot.oid_of(Reg::Class, name).unwrap_or_default(),
        other => other.int().unwrap_or_default(),
    };
    // A key and a table of the catalog take no room of their own.
    Ok(Value::Int(context.snapshot.relation(oid).and_then(|relation| relation.bytes).unwrap_or_default()))
}

/// As Postgres does it: rounded half up at each step from 10240 on.
fn pretty(bytes: i64) -> String {
    let mut amount = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if amount.abs() < 10_240 {
            return format!("{amount} {unit}");
        }
        amount = (amount + amount.signum() * 512) / 1024;
    }
    format!("{amount} TB")
}

fn stop(arguments: &[Value], context: &Context, end: bool) -> Result<Value, Failure> {
    let pid = i32::try_from(int(arguments, 0)).unwrap_or_default();
    let Some(session) = context.sessions.find(pid) else { return Ok(Value::Bool(false)) };
    let me = &context.session.account;
    if me.read_only && session.account.name != me.name {
        return Err(Failure::new(code::INSUFFICIENT_PRIVILEGE, "a read-only user stops nobody else"));
    }
    let session: Arc<_> = session;
    if end {
        session.end.cancel()
    } else {
        session.cancel()
    }
    Ok(Value::Bool(true))
}
