//! Rows that can be read once, as a table of a plan.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

/// Rows that can be read once. A second reading fails.
pub(super) struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl Once {
    pub fn new(rows: SendableRecordBatchStream) -> Self {
        Self { schema: rows.schema(), rows: Mutex::new(Some(rows)) }
    }

    /// An operator that gives `rows`, in one partition.
    ///
    /// Errors: those of the plan.
    pub fn plan(rows: SendableRecordBatchStream) -> Result<Arc<StreamingTableExec>> {
        let schema = rows.schema();
        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(Self::new(rows))];
        StreamingTableExec::try_new(schema, partitions, None, Vec::new(), false, None).map(Arc::new)
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        rows.unwrap_or_else(|| {
            let error = futures::stream::once(async { internal_err!("rows that can be read once were read twice") });
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), error))
        })
    }
}
