//! The other way to ask: statements are prepared, get parameters, and are run, perhaps a few rows at a time.

use bytes::Bytes;
use flumen_core::limits;
use postgres_types::Type;

use super::connection::Connection;
use super::cursors::no_cursor;
use super::messages::{Bind, Frontend, Target, format_of};
use super::parameters;
use super::rows::Rows;
use super::run::{Started, Tag};
use super::types::{self, Column};
use super::wire::Broken;
use crate::failure::{Failure, code};
use crate::settings::SessionSettings;
use crate::statement::{self, Kind, Statement};
use crate::{pg::names, scan};

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// What it is; none if it is empty.
    statement: Option<Statement>,
    /// The types of its parameters as the client gave them.
    declared: Vec<u32>,
    /// How many parameters it has.
    count: usize,
    /// What is known of it, once somebody asked.
    described: Option<Described>,
}

/// What a statement takes and gives.
#[derive(Debug, Clone)]
struct Described {
    parameters: Vec<Type>,
    columns: Option<Vec<Column>>,
}

/// A statement with its parameters, and how far it has run.
pub(super) struct Portal {
    /// The statement, its parameters in their places.
    pub statement: Statement,
    /// The formats of its columns.
    pub formats: Vec<i16>,
    /// How far it is.
    pub state: State,
    /// Whether it lives on after the transaction.
    pub hold: bool,
    /// Whether it was declared as a cursor.
    pub cursor: bool,
}

/// How far a portal is.
pub(super) enum State {
    /// There is nothing to run.
    Empty,
    /// It has not begun.
    Ready,
    /// It has rows, some of which may have been sent.
    Rows { rows: Rows, tag: Tag },
    /// All was sent, or it has failed.
    Done(Tag, u64),
}

impl Connection {
    /// One message of the extended protocol.
    pub(super) async fn extended(&mut self, message: Frontend) -> Result<Result<(), Failure>, Broken> {
        Ok(match message {
            Frontend::Parse { name, query, types } => self.parse(name, &query, types),
            Frontend::Bind(bind) => self.bind(bind).await,
            Frontend::Describe { target: Target::Statement, name } => self.describe_statement(&name).await,
            Frontend::Describe { target: Target::Portal, name } => self.describe_portal(&name).await,
            Frontend::Execute { portal, max_rows } => return self.execute(&portal, max_rows).await,
            Frontend::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.wire.out.bare(b'3');
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn parse(&mut self, name: String, query: &str, declared: Vec<u32>) -> Result<(), Failure> {
        let mut texts = scan::split(query);
        if texts.len() > 1 {
            return Err(Failure::new(code::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"));
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Failure::new(
                code::DUPLICATE_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.statements.len() >= limits::PREPARED_STATEMENTS {
            return Err(Failure::new(
                code::LIMIT_EXCEEDED,
                format!("{} statements are prepared", self.statements.len()),
            )
            .hint("close some of them"));
        }
        let statement = texts.pop().map(|text| statement::understand(&text)).transpose()?;
        let count = statement.as_ref().map_or(0, |statement| parameters::count(&statement.text));
        if count > usize::from(u16::MAX) {
            return Err(Failure::new(code::UNDEFINED_PARAMETER, format!("there is no parameter ${count}")));
        }
        let count = count.max(declared.len());
        self.statements.insert(name, Prepared { statement, declared, count, described: None });
        self.wire.out.bare(b'1');
        Ok(())
    }

    async fn described(&mut self, name: &str) -> Result<Described, Failure> {
        let prepared = self.statements.get(name).ok_or_else(|| no_statement(name))?.clone();
        if let Some(described) = prepared.described {
            return Ok(described);
        }
        let described = self.describe(&prepared).await?;
        if let Some(prepared) = self.statements.get_mut(name) {
            prepared.described = Some(described.clone());
        }
        Ok(described)
    }

    async fn describe(&self, prepared: &Prepared) -> Result<Described, Failure> {
        let text_column = |name: &str| Some(vec![Column::new(name, Type::TEXT)]);
        let Some(statement) = &prepared.statement else {
            return Ok(Described { parameters: Vec::new(), columns: None });
        };
        self.check(statement)?;
        let columns = match &statement.kind {
            Kind::Query(query) if self.catalog.answers(query) => {
                let (inferred, columns) = match self.catalog.describe(query).await {
                    Ok(described) => described,
                    Err(failure) if failure.is_about_language() => {
                        return self.describe_by_engine(prepared, statement).await.map_err(|_| failure);
                    }
                    Err(failure) => return Err(failure),
                };
                let inferred: Vec<u32> = (0..prepared.count)
                    .map(|index| match prepared.declared.get(index) {
                        Some(oid) if Type::from_oid(*oid).is_some_and(|kind| kind != Type::UNKNOWN) => *oid,
                        _ => inferred.get(index).and_then(Option::as_ref).map_or(0, Type::oid),
                    })
                    .collect();
                return Ok(Described {
                    parameters: parameters::types(&inferred, &[], prepared.count),
                    columns: Some(columns),
                });
            }
            Kind::Query(_) | Kind::Other { .. } => return self.describe_by_engine(prepared, statement).await,
            Kind::Show(name) if SessionSettings::knows(name) => text_column(name),
            Kind::Show(name) if name == "all" => {
                Some(["name", "setting", "description"].map(|name| Column::new(name, Type::TEXT)).to_vec())
            }
            Kind::Show(_) => return self.describe_by_engine(prepared, statement).await,
            Kind::Fetch { cursor, skip: false, .. } => {
                let portal = self.portals.get(cursor).ok_or_else(|| no_cursor(cursor))?;
                match &portal.state {
                    State::Rows { rows, .. } => Some(rows.columns.clone()),
                    _ => None,
                }
            }
            _ => None,
        };
        Ok(Described { parameters: parameters::types(&prepared.declared, &[], prepared.count), columns })
    }

    async fn describe_by_engine(&self, prepared: &Prepared, statement: &Statement) -> Result<Described, Failure> {
        let sql = &statement.text;
        let answers = !matches!(statement.kind, Kind::Other { rows: false, .. });
        let planned = self.plan(sql).await;
        let inferred = planned.as_ref().map(|planned| planned.parameters.clone()).unwrap_or_default();
        let mut parameters = parameters::types(&prepared.declared, &inferred, prepared.count);
        for (number, kind) in parameters::casts(sql) {
            if let Some(parameter) = parameters.get_mut(number - 1).filter(|parameter| **parameter == Type::TEXT) {
                *parameter = kind;
            }
        }
        for number in parameters::counts_of_rows(sql) {
            if let Some(kind) = parameters.get_mut(number - 1).filter(|kind| **kind == Type::TEXT) {
                *kind = Type::INT8;
            }
        }
        if !answers {
            return Ok(Described { parameters, columns: None });
        }
        // What the client says about a type may be what is missing: the plan with empty values of the types tells.
        let schema = match planned {
            Ok(planned) if prepared.count == 0 => planned.schema,
            planned => {
                let literals: Vec<String> = parameters.iter().map(empty).collect();
                let filled = self.plan(&parameters::substitute(sql, &literals)?).await;
                match (filled, planned) {
                    (Ok(filled), _) => filled.schema,
                    (Err(_), Ok(planned)) => planned.schema,
                    (Err(failure), Err(_)) => return Err(failure),
                }
            }
        };
        let mut columns = types::columns(&schema);
        if let Kind::Query(query) = &statement.kind {
            names::rename(query, &mut columns);
        }
        Ok(Described { parameters, columns: (!columns.is_empty()).then_some(columns) })
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let prepared = self.statements.get(&bind.statement).ok_or_else(|| no_statement(&bind.statement))?;
        if bind.parameters.len() != prepared.count {
            return Err(Failure::new(
                code::PROTOCOL_VIOLATION,
                format!("there are {} values for {} parameters", bind.parameters.len(), prepared.count),
            ));
        }
        if !bind.portal.is_empty() {
            if self.portals.contains_key(&bind.portal) {
                return Err(Failure::new(code::DUPLICATE_CURSOR, format!("cursor \"{}\" already exists", bind.portal)));
            }
            self.room_for_portal()?;
        }
        let statement = match prepared.statement.clone() {
            Some(statement) if prepared.count > 0 => Some(self.bound(statement, &bind).await?),
            statement => statement,
        };
        let (statement, state) = match statement {
            Some(statement) => (statement, State::Ready),
            None => (statement::understand("deallocate all")?, State::Empty),
        };
        let portal = Portal { statement, formats: bind.result_formats, state, hold: false, cursor: false };
        self.portals.insert(bind.portal, portal);
        self.wire.out.bare(b'2');
        Ok(())
    }

    /// The statement with its parameters in their places.
    async fn bound(&mut self, statement: Statement, bind: &Bind) -> Result<Statement, Failure> {
        let kinds = self.described(&bind.statement).await?.parameters;
        let zone = self.settings().get("timezone").unwrap_or_default();
        let value = |(index, value): (usize, &Option<Bytes>)| {
            let kind = kinds.get(index).unwrap_or(&Type::TEXT);
            parameters::literal(kind, format_of(&bind.formats, index), value.as_ref(), index + 1, &zone)
        };
        let literals = bind.parameters.iter().enumerate().map(value).collect::<Result<Vec<_>, _>>()?;
        statement::understand(&parameters::substitute(&statement.text, &literals)?)
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Failure> {
        let described = self.described(name).await?;
        let oids: Vec<u32> = described.parameters.iter().map(Type::oid).collect();
        self.wire.out.parameter_description(&oids);
        match &described.columns {
            Some(columns) => self.wire.out.row_description(columns, &[]),
            None => self.wire.out.bare(b'n'),
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Failure> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        if let Kind::Fetch { cursor, skip: false, .. } = &portal.statement.kind {
            let of = self.portals.get(cursor).ok_or_else(|| no_cursor(cursor))?;
            if let State::Rows { rows, .. } = &of.state {
                self.wire.out.row_description(&rows.columns, &of.formats);
            }
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        }
        let answers = matches!(portal.statement.kind, Kind::Query(_) | Kind::Other { rows: true, .. } | Kind::Show(_));
        if matches!(portal.state, State::Ready) && answers {
            let mut running = self.begin(portal.statement.text.trim());
            portal.state = match self.start(&portal.statement, &mut running).await? {
                Started::Rows { rows, tag } => State::Rows { rows, tag },
                Started::Done(tag) => State::Done(Tag(tag), 0),
                _ => State::Ready,
            };
        }
        match &portal.state {
            State::Rows { rows, .. } => self.wire.out.row_description(&rows.columns, &portal.formats),
            _ => self.wire.out.bare(b'n'),
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<Result<(), Failure>, Broken> {
        let Some(mut portal) = self.portals.remove(name) else { return Ok(Err(no_cursor(name))) };
        let mut running = self.begin(portal.statement.text.trim());
        if matches!(portal.state, State::Ready) {
            portal.state = match self.start(&portal.statement, &mut running).await {
                Ok(Started::Rows { rows, tag }) => State::Rows { rows, tag },
                Ok(Started::Done(tag)) => State::Done(Tag(tag), 0),
                Ok(Started::Fetched { cursor, rows }) => return self.fetched(&cursor, rows, false, &mut running).await,
                Ok(Started::CopyOut { copy, rows }) => return self.copy_out(&copy, rows, &mut running).await,
                Ok(Started::CopyIn(copy)) => return self.copy_in(&copy, &mut running).await,
                Err(failure) => return Ok(Err(failure)),
            };
        }
        match &mut portal.state {
            State::Empty => self.wire.out.bare(b'I'),
            State::Rows { rows, tag } => {
                let before = rows.sent;
                let most = (max_rows > 0).then_some(max_rows);
                match self.send(rows, &portal.formats, most, &mut running).await? {
                    Ok(true) => {
                        let tag = tag.clone();
                        self.wire.out.complete(&tag.with_rows(rows.sent - before));
                        portal.state = State::Done(tag, 0);
                    }
                    Ok(false) => self.wire.out.bare(b's'),
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            State::Done(tag, rows) => self.wire.out.complete(&tag.with_rows(*rows)),
            State::Ready => {}
        }
        // A statement that ended all portals has ended its own, too.
        self.portals.insert(name.to_owned(), portal);
        Ok(Ok(()))
    }
}

fn no_statement(name: &str) -> Failure {
    Failure::new(code::UNDEFINED_STATEMENT, format!("prepared statement \"{name}\" does not exist"))
}

/// A null of `kind`.
fn empty(kind: &Type) -> String {
    let name = match *kind {
        Type::BOOL => "BOOLEAN",
        Type::INT2 => "SMALLINT",
        Type::INT4 => "INT",
        Type::INT8 | Type::OID => "BIGINT",
        Type::FLOAT4 => "REAL",
        Type::FLOAT8 => "DOUBLE PRECISION",
        Type::NUMERIC => "DECIMAL(38, 10)",
        Type::DATE => "DATE",
        Type::TIMESTAMP => return "arrow_cast(NULL, 'Timestamp(Microsecond, None)')".to_owned(),
        Type::TIMESTAMPTZ => return "arrow_cast(NULL, 'Timestamp(Microsecond, Some(\"+00:00\"))')".to_owned(),
        Type::TIME => "TIME",
        Type::INTERVAL => "INTERVAL",
        Type::BYTEA => "BYTEA",
        _ => match kind.kind() {
            postgres_types::Kind::Array(element) => return format!("ARRAY[{}]", empty(element)),
            _ => "VARCHAR",
        },
    };
    format!("CAST(NULL AS {name})")
}
