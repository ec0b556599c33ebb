//! `COPY … TO 'file'` and `COPY … FROM 'file'`: by the sinks and the readers that ingestion uses, so that a file means the
//! same and is there whole or not at all.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::parser::{CopyToSource, CopyToStatement};
use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Statement as Sql};
use flumen_core::load::{Fence, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::read::ReadOptions;
use flumen_core::sql::Answer;
use flumen_core::write::WriteOptions;
use flumen_core::{Error, Result};
use futures::StreamExt;

use super::columns::quoted;
use super::prepare::Named;
use super::write::{name_of_ident, pump, refuse};
use super::{Engine, copied_out, copy_text, errors, file_options, files, unviewed};

impl Engine {
    /// `COPY … TO`: writes rows to a file, or to whatever else an address of a data set means.
    ///
    /// Errors: those of the query, and of the sink.
    pub(super) async fn copy_to(&self, sql: &str, copy: &CopyToStatement) -> Result<Answer> {
        let options = copy.options.iter().map(|(key, value)| {
            let value = value.clone().into_string().unwrap_or_else(|| value.to_string());
            (key.clone(), value)
        });
        let options = file_options::writing(copy.stored_as.as_deref(), &options.collect::<Vec<_>>())?;
        let target = &target_of(copy, &options);
        self.check_file_access(target)?;
        let destinations = self
            .destinations
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("'{target}' cannot be written to by this session")))?;
        let query = match &copy.source {
            CopyToSource::Query(query) => query.to_string(),
            CopyToSource::Relation(name) => format!("SELECT * FROM {name}"),
        };
        let explained = |error| errors::explain(error, sql);
        let (context, plan) = self.plan_part(sql, &query, Vec::new()).await?;
        let plan = context.state().create_physical_plan(&plan).await.map_err(explained)?;
        let schema = unviewed(&plan.schema());
        let streams = execute_stream_partitioned(plan, context.task_ctx()).map_err(explained)?;
        let streams: Vec<SendableRecordBatchStream> =
            streams.into_iter().map(|stream| plain(stream, &schema)).collect();
        let sink = destinations.sink(target, &options).await?;
        let request = self.request(&schema, streams.len(), &copy.partitioned_by)?;
        let mut record = LoadRecord::new(request.load.clone(), sink.address(), request.mode.clone(), request.started);
        let session = sink.begin(request).await?;
        match pump(streams, || session.writer(), sql).await {
            Ok(rows) => {
                (record.rows_read, record.rows_written) = (rows, rows);
                session.commit(&record).await?;
                Ok(Answer::done("COPY", Some(rows)))
            }
            Err(error) => {
                // Why it failed counts more than what could not be tidied up.
                let _ = session.abort().await;
                Err(error)
            }
        }
    }

    fn request(&self, schema: &SchemaRef, writers: usize, partition_by: &[String]) -> Result<LoadRequest> {
        if let Some(field) = schema.fields().iter().find(|field| field.data_type() == &DataType::Null) {
            return Err(Error::invalid(format!(
                "the column '{}' is nothing but null, so it has no type",
                field.name()
            ))
            .hint("give it one: cast(null as varchar)"));
        }
        Ok(LoadRequest {
            load: LoadId::derive(["copy", &self.writers.ids.next().to_string()]),
            mode: Mode::Replace,
            schema: Arc::clone(schema),
            evolve: true,
            files: Vec::new(),
            fence: Fence(0),
            started: self.writers.clock.now(),
            writers,
            partition_by: partition_by.to_vec(),
            indexes: Vec::new(),
            primary_key: Vec::new(),
        })
    }

    /// `COPY t FROM 'file'`: inserts the rows of a file, whose columns are those of the table in their order.
    ///
    /// Errors: those of the insert; what is for a client (`FROM STDIN`) is not for this session.
    pub(super) async fn copy_from(&self, sql: &str, statement: &Sql) -> Result<Option<Answer>> {
        let Sql::Copy { source: CopySource::Table { table_name, columns }, to: false, target, values, .. } = statement
        else {
            return refuse("this form of copy", "write copy t from 'file.csv', or copy (select …) to 'file.csv'");
        };
        let CopyTarget::File { filename } = target else {
            return refuse("copy from stdin", "name a file: copy t from 'file.csv'");
        };
        self.check_file_access(filename)?;
        let options = copy_text::options_of(values);
        let options = file_options::reading(None, options.iter().map(|(key, value)| (key, value)))?;
        let names: Vec<String> = match columns.as_slice() {
            [] => {
                let schema = self.columns(&table_name.to_string()).await?;
                schema.fields().iter().map(|field| field.name().clone()).collect()
            }
            listed => listed.iter().map(name_of_ident).collect(),
        };
        let (opened, own) = self.open_copied(filename, options, &names).await?;
        let explained = |error| errors::explain(error, sql);
        let name = format!("_flumen_copied_{}", self.writers.ids.next().simple());
        self.tables.session.register_table(name.clone(), opened).map_err(explained)?;
        let _named = Named { engine: self, name: &name };
        let into: Vec<String> = match own {
            Some(own) => own.iter().map(|name| quoted(name)).collect(),
            None => columns.iter().map(ToString::to_string).collect(),
        };
        let into = if into.is_empty() { String::new() } else { format!(" ({})", into.join(", ")) };
        let insert = format!("INSERT INTO {table_name}{into} SELECT * FROM {name}");
        let answer = Box::pin(self.run_made(sql, &insert)).await?;
        Ok(Some(Answer::done("COPY", answer.done.and_then(|done| done.rows))))
    }

    /// Opens the file of a COPY into columns called `names`; with those of them that its columns are, if they all have the names
    /// of some. A first line that has none of these names is a row, unless `options` say that it is a header.
    async fn open_copied(
        &self,
        file: &str,
        options: ReadOptions,
        names: &[String],
    ) -> Result<(Arc<dyn TableProvider>, Option<Vec<String>>)> {
        let tables = &self.tables;
        let open = |options: ReadOptions| async move {
            files::open_as(tables.files.as_ref(), file, &options, &tables.learnt, &tables.notes).await
        };
        let opened = open(options.clone()).await?;
        let schema = opened.schema();
        let named =
            |field: &Arc<Field>| names.iter().find(|name| name.eq_ignore_ascii_case(field.name().trim())).cloned();
        let own: Option<Vec<String>> = schema.fields().iter().map(named).collect();
        // A pipe is empty at a second look.
        let is_pipe = std::path::Path::new(file).metadata().is_ok_and(|about| !about.is_file());
        let is_told = options.header.is_some() || is_pipe;
        if own.is_some() || is_told || schema.fields().iter().any(|field| named(field).is_some()) {
            return Ok((opened, own));
        }
        let headless = open(ReadOptions { header: Some(false), ..options }).await?;
        if headless.schema() != schema {
            self.tables.notes.say(format!(
                "{file}: its first line has no name of a column, so it is a row; say (header true) if it is a header"
            ));
        }
        Ok((headless, None))
    }
}

/// Where the rows of `copy` go. With folders for partitions, what is named is the folder above them, unless it is a pattern.
fn target_of(copy: &CopyToStatement, options: &WriteOptions) -> String {
    let target = &copy.target;
    let is_files = !target.contains('*') && (target.contains('/') || !target.contains('.'));
    match &options.format {
        Some(format) if !copy.partitioned_by.is_empty() && is_files => {
            format!("{}/*.{format}", target.trim_end_matches('/'))
        }
        _ => target.clone(),
    }
}

fn plain(stream: SendableRecordBatchStream, schema: &SchemaRef) -> SendableRecordBatchStream {
    let wanted = Arc::clone(schema);
    let batches = stream.map(move |batch| {
        batch.and_then(|batch| {
            copied_out(&batch, &wanted).map_err(|error| datafusion::common::DataFusionError::External(Box::new(error)))
        })
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches))
}
