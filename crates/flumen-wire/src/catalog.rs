//! `pg_catalog` and `information_schema`: what Postgres' clients look into to learn what there is.
//!
//! Queries about the catalog use all of Postgres' language: correlated subqueries in every place, `LATERAL`, `unnest`,
//! `ARRAY(SELECT …)`, casts to `regclass`, operators with namespaces. They are answered here, over a few tables in memory,
//! by an evaluator of that language; the engine sees none of them. A query is about the catalog if all its tables are, or
//! if it has none and calls a function that only the catalog has. To other statements, and to queries that the evaluator
//! does not understand, the tables of the catalog are lent as tables in memory, and the engine runs them.
//!
//! - `listing.rs`: what is in the lake, asked of the engine; richer metadata comes in there.
//! - `tables.rs`: the rows of the catalog's tables.
//! - `compile.rs`, `compile_expression.rs`, `scope.rs`: from syntax to a query that is understood.
//! - `plan.rs`, `expression.rs`, `aggregates.rs`, `patterns.rs`, `value.rs`: its rows.
//! - `functions.rs`: what can be called; `offered.rs`: functions and tables for statements that the engine runs; `types.rs`:
//!   the types.

mod aggregates;
mod compile;
mod compile_expression;
mod expression;
mod functions;
pub(crate) mod listing;
mod offered;
mod patterns;
mod plan;
mod scope;
mod tables;
mod types;
mod value;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, TableFactor, Visitor};
use flumen_core::limits;
use flumen_lake::engine::Engine;
use flumen_lake::engine::prepare::{LENT_SCHEMA, Lent};
use flumen_lake::engine::visit;
use postgres_types::Type;

use crate::Shared;
use crate::failure::{Failure, code};
use crate::pg::rows_of_values;
use crate::pg::types::Column;
use crate::scan;
use crate::sessions::{Session, Sessions};
use crate::settings::{SERVER_VERSION, SessionSettings};
use compile::{Compiler, folded, parts};
use listing::{Needs, Snapshot};
use offered::Known;

pub(crate) use value::Value;

const INFORMATION: &str = "information_schema";
/// What `information_schema` is called where its tables are lent: the engine has one of its own. It is as long, so that all
/// places in a statement stay what they are.
const LENT_INFORMATION: &str = "pg_information_sch";

/// The type that SQL calls `name`.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    types::named(name)
}

/// What the server says it is.
pub(crate) fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION} (Flumen {})", env!("CARGO_PKG_VERSION"))
}

/// The catalog as one session sees it.
pub(crate) struct Catalog {
    shared: Arc<Shared>,
    session: Arc<Session>,
    engine: Arc<Engine>,
    settings: Arc<Mutex<SessionSettings>>,
    /// What the functions know that the engine has from here.
    known: Known,
}

/// An answer.
pub(crate) struct Answered {
    pub columns: Vec<Column>,
    pub rows: Vec<value::Row>,
}

impl Answered {
    /// As rows on their way to a client.
    pub fn into_rows(self) -> crate::pg::Rows {
        rows_of_values(self, &Snapshot::default())
    }
}

/// A statement for the engine, which has what it needs of the catalog as long as this is held.
pub(crate) struct Told<'a> {
    /// Its text, as long as it was.
    pub sql: Cow<'a, str>,
    _lent: Option<Lent>,
}

/// What is needed while a query is answered.
pub(crate) struct Context {
    snapshot: Snapshot,
    session: Arc<Session>,
    sessions: Arc<Sessions>,
    settings: Arc<Mutex<SessionSettings>>,
    patterns: RefCell<HashMap<(patterns::Kind, String), regex::Regex>>,
    working: RefCell<HashMap<usize, Vec<value::Row>>>,
    steps: Cell<u64>,
}

impl Context {
    fn new(
        snapshot: Snapshot,
        session: &Arc<Session>,
        sessions: &Arc<Sessions>,
        settings: &Arc<Mutex<SessionSettings>>,
    ) -> Self {
        Self {
            snapshot,
            session: Arc::clone(session),
            sessions: Arc::clone(sessions),
            settings: Arc::clone(settings),
            patterns: RefCell::default(),
            working: RefCell::default(),
            steps: Cell::new(0),
        }
    }

    fn settings(&self) -> MutexGuard<'_, SessionSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespaces in which names are looked for, those that are there.
    fn search_path(&self) -> Vec<String> {
        let path = self.settings().get("search_path").unwrap_or_default();
        let me = &self.session.account.name;
        let names = path.split(',').map(|name| name.trim().trim_matches('"').replace("$user", me));
        names.filter(|name| self.snapshot.namespace_oid(name) != 0).collect()
    }

    /// One step of work.
    fn step(&self) -> Result<(), Failure> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > limits::CATALOG_STEPS {
            return Err(Failure::new(code::LIMIT_EXCEEDED, "this query about the catalog takes too long"));
        }
        Ok(())
    }
}

impl Catalog {
    /// For one session, whose engine gets the functions that are here.
    ///
    /// Errors: `Internal`.
    pub fn new(
        shared: Arc<Shared>,
        session: Arc<Session>,
        engine: Arc<Engine>,
        settings: Arc<Mutex<SessionSettings>>,
    ) -> flumen_core::Result<Self> {
        let context = Context::new(Snapshot::default(), &session, &shared.sessions, &settings);
        let known = Arc::new(Mutex::new(context));
        offered::offer(&engine, &known)?;
        Ok(Self { shared, session, engine, settings, known })
    }

    fn context(&self, snapshot: Snapshot) -> Context {
        Context::new(snapshot, &self.session, &self.shared.sessions, &self.settings)
    }

    /// Makes `sql` ready for the engine: the functions that it calls are told what there is now, and the tables of the
    /// catalog that it names are lent to the engine as long as what is given back is held.
    pub async fn tell<'a>(&self, sql: &'a str) -> Result<Told<'a>, Failure> {
        let (seen, sql) = Seen::in_text(sql);
        if !seen.ours && seen.named.is_empty() {
            return Ok(Told { sql, _lent: None });
        }
        let context = self.context(self.snapshot(&seen).await?);
        let tables = seen.named.iter().map(|table| {
            let schema = if table.schema == INFORMATION { LENT_INFORMATION } else { LENT_SCHEMA };
            Ok(((schema.to_owned(), table.name.clone()), offered::table(table, &context)?))
        });
        let tables = tables.collect::<flumen_core::Result<Vec<_>>>()?;
        if seen.ours {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = context;
        }
        Ok(Told { sql, _lent: (!tables.is_empty()).then(|| self.engine.lend(tables)) })
    }

    /// Whether `query` is about the catalog.
    pub fn answers(&self, query: &Query) -> bool {
        let seen = Seen::of(query);
        match (seen.system, seen.other) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => seen.ours,
        }
    }

    /// Answers `query`.
    pub async fn query(&self, query: &Query) -> Result<crate::pg::Rows, Failure> {
        let snapshot = self.snapshot(&Seen::of(query)).await?;
        let context = self.context(snapshot);
        let plan = Compiler::new(&context.snapshot).query(query, None)?;
        let rows = plan.rows(&context, None)?;
        let columns = plan.columns.into_iter().map(|(name, kind)| Column::new(name, shown_type(kind))).collect();
        Ok(rows_of_values(Answered { columns, rows }, &context.snapshot))
    }

    /// The types of the parameters of `query` where they are told, and its columns.
    pub async fn describe(&self, query: &Query) -> Result<(Vec<Option<Type>>, Vec<Column>), Failure> {
        let snapshot = self.snapshot(&Seen { names_only: true, ..Seen::of(query) }).await?;
        let compiler = Compiler::new(&snapshot);
        let plan = compiler.query(query, None)?;
        let columns = plan.columns.into_iter().map(|(name, kind)| Column::new(name, shown_type(kind))).collect();
        Ok((compiler.parameters.take(), columns))
    }

    async fn snapshot(&self, seen: &Seen) -> Result<Snapshot, Failure> {
        let needs = Needs { columns: seen.columns && !seen.names_only, functions: seen.functions };
        let mut snapshot = Snapshot::load(&self.engine, needs).await?;
        snapshot.database.clone_from(&self.session.database);
        snapshot.accounts = self.shared.login.accounts().await?;
        if snapshot.accounts.iter().all(|account| account.name != self.session.account.name) {
            snapshot.accounts.insert(0, self.session.account.clone());
        }
        if seen.activity {
            let sessions = self.shared.sessions.list();
            snapshot
                .given
                .insert("pg_stat_activity", sessions.iter().map(|session| activity(session, &snapshot)).collect());
            snapshot.given.insert("pg_stat_gssapi", sessions.iter().map(gss).collect());
            snapshot.given.insert("pg_stat_database", vec![database(&snapshot, sessions.len())]);
        }
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).list();
        snapshot.given.insert("pg_settings", settings.into_iter().map(setting).collect());
        Ok(snapshot)
    }
}

/// A type that a client can read: not one that only the catalog's own queries know.
fn shown_type(kind: Type) -> Type {
    match kind {
        Type::UNKNOWN | Type::RECORD | Type::RECORD_ARRAY => Type::TEXT,
        other => other,
    }
}

/// What a query mentions.
#[derive(Default)]
struct Seen {
    /// Tables of the catalog, and others.
    system: bool,
    other: bool,
    /// Functions that only the catalog has.
    ours: bool,
    columns: bool,
    functions: bool,
    activity: bool,
    names_only: bool,
    with: Vec<String>,
    /// The tables of the catalog that are to be lent.
    named: Vec<&'static tables::Table>,
}

impl Seen {
    fn of(query: &Query) -> Self {
        let mut seen = Seen::default();
        visit::look_at_query(query, &mut seen);
        seen
    }

    /// What a statement mentions that is for the engine to run, and the statement as the engine knows the names.
    fn in_text(sql: &str) -> (Self, Cow<'_, str>) {
        let mut seen = Seen::default();
        let pieces = scan::pieces(sql);
        let text = |place: usize| pieces.get(place).map_or("", |piece| &sql[piece.at.clone()]);
        let name = |place: usize| pieces.get(place).and_then(|piece| scan::name(sql, piece)).unwrap_or_default();
        // Others read a view without us, so that it cannot read what only we have.
        let words = (0..pieces.len()).map(|place| text(place).to_lowercase());
        let mut words = words.skip_while(|word| {
            matches!(word.as_str(), "create" | "or" | "replace" | "temp" | "temporary" | "materialized")
        });
        let lends = words.next().is_none_or(|word| word != "view");
        let mut spelled = Cow::Borrowed(sql);
        for (place, piece) in pieces.iter().enumerate() {
            if piece.kind == scan::Kind::Word {
                let word = sql[piece.at.clone()].to_lowercase();
                if text(place + 1) == "(" || functions::is_our_word(&word) {
                    seen.called(&word);
                }
            }
            if !lends || !matches!(piece.kind, scan::Kind::Word | scan::Kind::Name) {
                continue;
            }
            let qualified = place > 0 && text(place - 1) == ".";
            let word = name(place);
            if !qualified && text(place + 1) == "." && pieces[place + 1].at.start == piece.at.end {
                let dot = pieces[place + 1].at.end;
                if word == LENT_SCHEMA {
                    // The engine knows types, functions and lent tables by their names alone.
                    spelled.to_mut().replace_range(piece.at.start..dot, &" ".repeat(dot - piece.at.start));
                } else if word == INFORMATION
                    && piece.kind == scan::Kind::Word
                    && let Some(table) = tables::find(&[word.clone(), name(place + 2)])
                {
                    spelled.to_mut().replace_range(piece.at.clone(), LENT_INFORMATION);
                    seen.names(table);
                }
            }
            let of_catalog = !qualified || (place > 1 && name(place - 2) == LENT_SCHEMA);
            let may_be = of_catalog && word.starts_with("pg_") && text(place + 1) != "(";
            if may_be && let Some(table) = tables::find(&[word]) {
                seen.names(table);
            }
        }
        (seen, spelled)
    }

    /// A table of the catalog is named that the engine shall have.
    fn names(&mut self, table: &'static tables::Table) {
        self.reads(table);
        self.columns |= table.name == "pg_class";
        if self.named.iter().all(|known| known.oid != table.oid) {
            self.named.push(table);
        }
    }

    /// A table of the catalog is read.
    fn reads(&mut self, table: &tables::Table) {
        const ABOUT_COLUMNS: &[&str] = &[
            "pg_attribute",
            "pg_attrdef",
            "pg_constraint",
            "pg_index",
            "pg_indexes",
            "pg_description",
            "pg_tables",
            "pg_views",
            "columns",
            "views",
            "table_constraints",
            "key_column_usage",
            "referential_constraints",
            "constraint_column_usage",
            "pg_stat_user_tables",
            "pg_stat_all_tables",
        ];
        // The names of tables alone are cheap to know; what is in them is not.
        self.columns |= ABOUT_COLUMNS.contains(&table.name.as_str());
        self.functions |= table.name == "pg_proc" || table.name == "routines";
        self.activity |= table.name.starts_with("pg_stat_");
    }

    fn function(&mut self, name: &ObjectName) {
        if let Some(last) = parts(name).pop() {
            self.called(&last);
        }
    }

    fn called(&mut self, last: &str) {
        self.ours |= functions::is_ours(last);
        let about_tables = ["size", "description", "indexdef", "constraintdef", "viewdef", "live_tuples"];
        self.columns |= about_tables.iter().any(|part| last.contains(part));
        self.functions |= last.starts_with("pg_get_function") || last.starts_with("to_regproc");
    }
}

impl Visitor for Seen {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.extend(with.map(|table| folded(&table.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => self.function(name),
            TableFactor::Table { name, .. } => {
                let names = parts(name);
                let named = names.len() == 1 && self.with.contains(&names[0]);
                match tables::find(&names) {
                    _ if named => {}
                    Some(table) => {
                        self.system = true;
                        self.reads(table);
                    }
                    // It is said here that there is none of this name.
                    None if names.len() > 1
                        && tables::NAMESPACES.iter().any(|(_, name)| names[names.len() - 2] == *name) =>
                    {
                        self.system = true;
                    }
                    None => self.other = true,
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Function(function) => self.function(&function.name),
            Expr::Identifier(ident) if ident.quote_style.is_none() => {
                let name = folded(ident);
                self.ours |= functions::is_our_word(&name);
                const SIZES: &[&str] = &["reltuples", "relpages", "relnatts", "relchecks", "relhasindex"];
                self.columns |= SIZES.contains(&name.as_str());
            }
            Expr::CompoundIdentifier(idents) => {
                const SIZES: &[&str] = &["reltuples", "relpages", "relnatts", "relchecks", "relhasindex"];
                self.columns |= idents.last().is_some_and(|ident| SIZES.contains(&folded(ident).as_str()));
            }
            // A number that is to be a table's name, or the other way round.
            Expr::Cast { data_type, .. } => {
                let written = data_type.to_string().to_lowercase();
                self.ours |= written.contains("reg") && types::named(&written).is_some();
                self.functions |= written.contains("regproc");
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn time(at: chrono::DateTime<chrono::Utc>) -> Value {
    Value::Time(at.timestamp_micros())
}

fn activity(session: &Arc<Session>, snapshot: &Snapshot) -> tables::Fields {
    let activity = session.activity();
    let role = snapshot.role_oid(&session.account.name);
    let maybe = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or(Value::Null, time);
    vec![
        ("datid", Value::Int(snapshot.oid_of_database(&session.database))),
        ("datname", Value::text(&session.database)),
        ("pid", Value::Int(session.pid.into())),
        ("usesysid", role.map_or(Value::Null, Value::Int)),
        ("usename", Value::text(&session.account.name)),
        ("application_name", Value::text(&activity.application)),
        ("client_addr", Value::text(session.address.ip().to_string())),
        ("client_port", Value::Int(session.address.port().into())),
        ("backend_start", time(session.started)),
        ("xact_start", maybe(activity.transaction_started)),
        ("query_start", maybe(activity.query_started)),
        ("state_change", time(activity.changed)),
        ("state", Value::text(activity.state)),
        ("query", Value::text(&activity.query)),
        ("backend_type", Value::text("client backend")),
    ]
}

fn gss(session: &Arc<Session>) -> tables::Fields {
    let no = || Value::Bool(false);
    vec![("pid", Value::Int(session.pid.into())), ("gss_authenticated", no()), ("encrypted", no())]
}

fn database(snapshot: &Snapshot, sessions: usize) -> tables::Fields {
    vec![
        ("datid", Value::Int(snapshot.oid_of_database(&snapshot.database))),
        ("datname", Value::text(&snapshot.database)),
        ("numbackends", Value::Int(sessions as i64)),
    ]
}

fn setting((name, value, about): (&'static str, String, &'static str)) -> tables::Fields {
    vec![
        ("name", Value::text(name)),
        ("setting", Value::text(value)),
        ("category", Value::text("Session")),
        ("short_desc", Value::text(about)),
        ("context", Value::text("user")),
        ("vartype", Value::text("string")),
        ("source", Value::text("session")),
        ("pending_restart", Value::Bool(false)),
    ]
}
