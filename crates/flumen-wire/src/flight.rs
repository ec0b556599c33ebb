//! The door that speaks Arrow Flight SQL: record batches go to the client as they are.
//!
//! A client logs in with its name and password and gets a token, with which it shows that it is the same one later; while
//! there are no users, a connection is who it is. `sessions.rs` has the sessions, `stream.rs` the connections, `put.rs` what
//! clients send: parameters, and rows for tables; the methods below are those of the protocol.

mod put;
mod sessions;
mod stream;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc,
    Ticket,
};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flumen_core::boxed;
use flumen_core::sql::{Answer, BatchStream, SqlEngine as _};
use flumen_core::{Error, ErrorKind, limits};
use flumen_lake::catalog::{Kind, Listed};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::listing;
use crate::{DATABASE, Held, Shared, failure};
use sessions::{FlightSession, FlightSessions};

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Serves whoever comes to `listener`, until `stop`.
#[boxed]
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, held: Held) {
    // What it says about itself is well formed.
    let Ok(info) = info().build() else { return };
    let service = Door { sessions: Arc::new(FlightSessions::new(Arc::clone(&shared))), info };
    let incoming = stream::incoming(listener, shared.tls.clone(), stop.clone());
    let service = FlightServiceServer::new(service).max_decoding_message_size(limits::FLIGHT_MESSAGE_BYTES);
    let server = Server::builder()
        .initial_stream_window_size(limits::FLIGHT_WINDOW_BYTES)
        .initial_connection_window_size(limits::FLIGHT_WINDOW_BYTES)
        .add_service(service);
    let served = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    // A door that broke is closed.
    let _ = served.await;
    drop(held);
}

/// What the server says about itself.
fn info() -> SqlInfoDataBuilder {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "Flumen");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    builder
}

struct Door {
    sessions: Arc<FlightSessions>,
    info: SqlInfoData,
}

type HandshakeStream = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

impl Door {
    /// The session of whoever asks.
    async fn session<T>(&self, request: &Request<T>) -> Result<Arc<FlightSession>, Status> {
        let address = request.extensions().get::<SocketAddr>().copied().or_else(|| request.remote_addr());
        let token = bearer(request);
        self.sessions.find(token.as_deref(), address).await
    }

    /// What tells the client where the rows of `answer` are.
    fn flight(
        &self,
        session: &FlightSession,
        answer: Answer,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = Arc::clone(&answer.schema);
        let handle = session.keep(answer);
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        located(&schema, ticket.as_any().encode_to_vec(), request)
    }
}

/// Where the rows are that `ticket` stands for: here.
fn located(
    schema: &SchemaRef,
    ticket: Vec<u8>,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| Status::internal(error.to_string()))?
        .with_endpoint(endpoint)
        .with_descriptor(request.into_inner());
    Ok(Response::new(info))
}

fn bearer<T>(request: &Request<T>) -> Option<String> {
    let header = request.metadata().get("authorization")?.to_str().ok()?;
    header.strip_prefix("Bearer ").map(str::to_owned)
}

/// Our errors in the words of gRPC.
fn status(error: &Error) -> Status {
    let message = match failure::remedy(error) {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    match error.kind() {
        ErrorKind::Invalid if error.message().contains("may only read") => Status::permission_denied(message),
        ErrorKind::Invalid | ErrorKind::Data | ErrorKind::Failed => Status::invalid_argument(message),
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::Conflict => Status::aborted(message),
        ErrorKind::Unavailable => Status::unavailable(message),
        ErrorKind::Cancelled => Status::cancelled(message),
        ErrorKind::Internal => Status::internal(message),
    }
}

type Rows = Pin<Box<dyn Stream<Item = Result<arrow_flight::FlightData, Status>> + Send>>;

/// The rows of an answer. They are encoded by a task of their own, while those before them are on their way.
fn rows(schema: SchemaRef, batches: BatchStream) -> Response<Rows> {
    let batches = batches.map_err(|error| FlightError::Tonic(Box::new(status(&error))));
    let mut encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from);
    let (sender, receiver) = mpsc::channel(limits::FLIGHT_QUEUE);
    let task = tokio::spawn(async move {
        while let Some(message) = encoded.next().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    let sent = futures::stream::unfold(Some((receiver, Encoding(task))), |state| async move {
        let (mut receiver, mut task) = state?;
        match receiver.recv().await {
            Some(message) => Some((message, Some((receiver, task)))),
            // An end that came too early must not look like the end.
            None => (&mut task.0).await.err().map(|error| (Err(internal(error)), None)),
        }
    });
    Response::new(Box::pin(sent))
}

/// A task that encodes rows. It ends when nobody waits for them any more.
struct Encoding(JoinHandle<()>);

impl Drop for Encoding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn one(batch: RecordBatch) -> Response<Rows> {
    rows(batch.schema(), futures::stream::iter([Ok(batch)]).boxed())
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// Runs a statement in `session`.
async fn run(session: &FlightSession, sql: &str) -> Result<Answer, Status> {
    session.guard.session.begin(sql);
    // There is nowhere to tell what was odd in what earlier statements read.
    session.engine.take_warnings();
    let answer = match session.catalog.tell(sql).await {
        Ok(told) => session.engine.query(&told.sql).await.map_err(|error| status(&error)),
        Err(failure) => Err(Status::internal(failure.message)),
    };
    session.guard.session.rest("idle");
    answer
}

/// Runs a statement to its end. Tells how many rows it changed; -1 if it does not say.
async fn run_to_end(session: &FlightSession, sql: &str) -> Result<i64, Status> {
    let mut answer = run(session, sql).await?;
    while let Some(batch) = answer.batches.next().await {
        batch.map_err(|error| status(&error))?;
    }
    let rows = answer.done.and_then(|done| done.rows);
    Ok(rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1))
}

#[tonic::async_trait]
impl FlightSqlService for Door {
    type FlightService = Door;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<HandshakeStream>, Status> {
        let address = request.extensions().get::<SocketAddr>().copied().or_else(|| request.remote_addr());
        let header = request.metadata().get("authorization").and_then(|header| header.to_str().ok());
        let encoded = header.and_then(|header| header.strip_prefix("Basic "));
        let decoded = encoded.and_then(|encoded| BASE64.decode(encoded).ok());
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let (name, password) = text.as_deref().and_then(|text| text.split_once(':')).unwrap_or_default();
        let token = self.sessions.login(name, password, address).await?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut response: Response<HandshakeStream> = Response::new(Box::pin(futures::stream::iter([Ok(answer)])));
        let value = format!("Bearer {token}").parse().map_err(internal)?;
        response.metadata_mut().insert("authorization", value);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(&request).await?;
        let answer = run(&session, &query.query).await?;
        self.flight(&session, answer, request)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let session = self.session(&request).await?;
        let handle = String::from_utf8_lossy(&ticket.statement_handle).into_owned();
        let answer = session.take(&handle).ok_or_else(|| Status::not_found("these rows were fetched already"))?;
        Ok(rows(answer.schema, answer.batches))
    }

    async fn do_put_statement_update(
        &self,
        query: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session(&request).await?;
        run_to_end(&session, &query.query).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let session = self.session(&request).await?;
        let prepared = put::prepare(&session, &query.query).await?;
        let message = |schema: &SchemaRef| {
            let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
            message.map(|message| message.0).map_err(internal)
        };
        let dataset_schema = prepared.columns.as_ref().map(message).transpose()?.unwrap_or_default();
        let parameter_schema = match prepared.parameters.fields().is_empty() {
            true => Default::default(),
            false => message(&prepared.parameters)?,
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: session.prepare(prepared.statement).into(),
            dataset_schema,
            parameter_schema,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let session = self.session(&request).await?;
        session.close(&String::from_utf8_lossy(&query.prepared_statement_handle));
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(&request).await?;
        let statement = session.prepared(&query.prepared_statement_handle)?;
        let answer = run(&session, &statement.filled()?).await?;
        self.flight(&session, answer, request)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let session = self.session(&request).await?;
        let statement = session.prepared(&query.prepared_statement_handle)?;
        let rows = put::parameters(request.into_inner()).await?;
        session.bind(&query.prepared_statement_handle, statement.bound(rows)?);
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: None })
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session(&request).await?;
        put::ingest(&session, command, request.into_inner()).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session(&request).await?;
        let statement = session.prepared(&query.prepared_statement_handle)?;
        let rows = put::parameters(request.into_inner()).await?;
        let mut changed = 0;
        for sql in statement.filled_with(&rows)? {
            changed += run_to_end(&session, &sql).await?.max(0);
        }
        Ok(changed)
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(&request).await?;
        located(&query.into_builder().schema(), query.as_any().encode_to_vec(), request)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.session(&request).await?;
        let mut builder = query.into_builder();
        builder.append(DATABASE);
        Ok(one(builder.build().map_err(internal)?))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(&request).await?;
        let ticket = query.as_any().encode_to_vec();
        located(&query.into_builder().schema(), ticket, request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let session = self.session(&request).await?;
        let mut builder = query.into_builder();
        for namespace in session.engine.namespaces().await.map_err(|error| status(&error))? {
            builder.append(DATABASE, namespace);
        }
        Ok(one(builder.build().map_err(internal)?))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(&request).await?;
        let ticket = query.as_any().encode_to_vec();
        located(&query.into_builder().schema(), ticket, request)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let session = self.session(&request).await?;
        let with_columns = query.include_schema;
        let mut builder = query.into_builder();
        for listed in session.engine.listed().await.map_err(|error| status(&error))? {
            let known = if with_columns {
                listing::known(&session.engine, &listed).await.map_err(|error| status(&error))?
            } else {
                None
            };
            let Listed { name, kind } = listed;
            let schema = known.map_or_else(|| arrow::datatypes::Schema::empty().into(), |known| known.schema);
            let kind = if kind == Kind::View { "VIEW" } else { "TABLE" };
            builder.append(DATABASE, &name.namespace, &name.table, kind, &schema).map_err(internal)?;
        }
        Ok(one(builder.build().map_err(internal)?))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(&request).await?;
        located(&query.into_builder().schema(), query.as_any().encode_to_vec(), request)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.session(&request).await?;
        let mut builder = query.into_builder();
        ["TABLE", "VIEW"].iter().for_each(|kind| builder.append(kind));
        Ok(one(builder.build().map_err(internal)?))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(&request).await?;
        let ticket = query.as_any().encode_to_vec();
        let schema = query.into_builder(&self.info).schema();
        located(&schema, ticket, request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.session(&request).await?;
        Ok(one(query.into_builder(&self.info).build().map_err(internal)?))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
