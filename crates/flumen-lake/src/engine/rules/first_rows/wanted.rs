//! What is asked for: the first rows of each group.

use std::sync::Arc;

use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};

/// Which rows are wanted: the first so many of each group, in an order.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What makes a group.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The order within a group.
    pub order: Vec<PhysicalSortExpr>,
    /// How many of each.
    pub rows: usize,
}

impl Wanted {
    /// The order in which the rows of a group lie together, the wanted ones first.
    pub(super) fn sorting(&self) -> Option<LexOrdering> {
        let keys = self.keys.iter().map(|key| PhysicalSortExpr::new_default(Arc::clone(key)));
        LexOrdering::new(keys.chain(self.order.iter().cloned()))
    }
}
