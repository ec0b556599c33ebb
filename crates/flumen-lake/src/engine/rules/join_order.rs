//! The order of inner joins, by the rows they are likely to have.
//!
//! DataFusion joins in the order of the query's text. This rule takes a tree of inner joins apart into what is joined and
//! the conditions between, and puts it together in the cheapest order it finds. A semi join above such a tree that looks at
//! one of its parts alone is done on that part, if the tree has more rows than the part.
//!
//! What follows from the conditions counts as one: customers and suppliers of one nation may both be joined with it (`classes.rs`).
//!
//! Nothing is changed where statistics are missing. The columns of the answer and their order stay the same.

mod classes;

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchemaRef, JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use classes::{Class, Classes, classes_of};

use super::estimate::{Estimate, kept_by_semi_join};

/// The most parts for which every order is looked at.
const ALL_ORDERS: usize = 10;
/// The most parts that are put in order at all.
const PARTS: usize = 32;
/// What a row costs that a join looks up, keeps for looking up, and gives out.
const PROBE: f64 = 1.0;
const BUILD: f64 = 2.0;
const OUTPUT: f64 = 1.0;
/// A new order has to be so much better than the one at hand.
const WORTHWHILE: f64 = 0.95;
/// The part of rows that a condition between two parts keeps, other than an equality.
const CONDITION: f64 = 0.3;

/// The rule.
#[derive(Debug)]
pub(super) struct JoinOrder;

impl OptimizerRule for JoinOrder {
    fn name(&self) -> &str {
        "flumen_join_order"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let better = match join.join_type {
            JoinType::Inner => reordered(&plan)?,
            JoinType::LeftSemi | JoinType::LeftAnti => pushed_down(join)?,
            _ => None,
        };
        Ok(better.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

/// A set of parts.
type Set = u32;

/// A tree of inner joins, taken apart.
#[derive(Default)]
struct Parts {
    plans: Vec<LogicalPlan>,
    equalities: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
}

/// How a tree of joins is put together.
#[derive(Clone, Debug)]
enum Tree {
    Part(usize),
    Join(Box<Tree>, Box<Tree>),
}

impl Parts {
    /// Takes `plan` apart; gives the tree as it is.
    fn collect(&mut self, plan: &LogicalPlan) -> Tree {
        match plan {
            LogicalPlan::Join(join) if is_plain(join) => {
                let left = self.collect(&join.left);
                let right = self.collect(&join.right);
                self.equalities.extend(join.on.iter().cloned());
                self.conditions.extend(join.filter.iter().cloned().flat_map(split_conjunction_owned));
                Tree::Join(Box::new(left), Box::new(right))
            }
            // Leaves out columns; that is done anew afterwards.
            LogicalPlan::Projection(projection)
                if projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
                    && matches!(projection.input.as_ref(), LogicalPlan::Join(join) if is_plain(join)) =>
            {
                self.collect(&projection.input)
            }
            part => {
                self.plans.push(part.clone());
                Tree::Part(self.plans.len() - 1)
            }
        }
    }

    /// The parts whose columns `expr` has.
    fn set_of(&self, expr: &Expr) -> Set {
        let columns = expr.column_refs();
        let named = |plan: &LogicalPlan| columns.iter().any(|column| plan.schema().has_column(column));
        self.plans.iter().enumerate().filter(|(_, plan)| named(plan)).map(|(index, _)| 1 << index).sum()
    }
}

fn is_plain(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNothing && !join.null_aware
}

/// What is known of the parts, for comparing orders.
struct Costs {
    rows: Vec<f64>,
    /// What keeps a part of a product, the smallest part first.
    edges: Vec<Edge>,
}

/// Something that keeps a part of the product of several parts.
#[derive(Debug, Clone, Copy)]
struct Edge {
    set: Set,
    part: f64,
    /// The equalities that it stands for. Those that another one stands for already keep nothing away any more.
    classes: Classes,
}

impl Costs {
    fn of(parts: &Parts) -> Option<Self> {
        let estimates: Vec<Estimate> = parts.plans.iter().map(Estimate::of).collect::<Option<_>>()?;
        let (classes, class_of) = classes_of(parts);
        // Equalities as they are written, then those that follow from them.
        let mut equalities: Vec<(&Expr, &Expr, Option<usize>)> =
            parts.equalities.iter().zip(&class_of).map(|((left, right), class)| (left, right, *class)).collect();
        for (number, class) in classes.iter().enumerate() {
            for (place, left) in class.members.iter().enumerate() {
                let others = class.members[place + 1..].iter().filter(|right| right.part != left.part);
                equalities.extend(others.map(|right| (&left.expr, &right.expr, Some(number))));
            }
        }
        let mut pairs: Vec<(Set, f64, f64, Classes)> = Vec::new();
        for (left, right, class) in equalities {
            let (l, r) = (parts.set_of(left), parts.set_of(right));
            let set = l | r;
            let bit: Classes = class.filter(|class| *class < 64).map_or(0, |class| 1 << class);
            // What follows may be written too.
            if bit != 0 && pairs.iter().any(|pair| pair.0 == set && pair.3 & bit != 0) {
                continue;
            }
            let distinct = |set: Set, expr| match set.count_ones() {
                1 => estimates.get(set.trailing_zeros() as usize).map(|of| (of.distinct(expr), of.base_rows)),
                _ => None,
            };
            let Some(((l, l_rows), (r, r_rows))) = distinct(l, left).zip(distinct(r, right)) else {
                pairs.push((set, 1.0 / CONDITION, f64::INFINITY, bit));
                continue;
            };
            // Several equalities between the same two parts: together they have no more values than either has rows.
            match pairs.iter_mut().find(|pair| pair.0 == set) {
                Some(pair) => {
                    pair.1 *= l.min(r);
                    pair.3 |= bit;
                }
                None => pairs.push((set, l.min(r), l_rows.min(r_rows), bit)),
            }
        }
        let edge = |(set, domain, most, classes): (Set, f64, f64, Classes)| Edge {
            set,
            part: 1.0 / domain.min(most).max(1.0),
            classes,
        };
        let mut edges: Vec<Edge> = pairs.into_iter().map(edge).collect();
        let all = estimates.iter().cloned().reduce(Estimate::beside)?;
        for condition in &parts.conditions {
            edges.push(Edge { set: parts.set_of(condition), part: all.part(condition), classes: 0 });
        }
        edges.sort_by(|a, b| a.part.total_cmp(&b.part));
        Some(Self { rows: estimates.iter().map(|of| of.rows).collect(), edges })
    }

    /// The rows of the join of `left` and `right`, whose own rows are known.
    fn joined(&self, (left, left_rows): (Set, f64), (right, right_rows): (Set, f64)) -> f64 {
        let both = left | right;
        let (mut rows, mut seen): (f64, Classes) = (left_rows * right_rows, 0);
        for Edge { set, part, classes } in &self.edges {
            let is_between = set & both == *set && set & left != *set && set & right != *set;
            if is_between && (*classes == 0 || classes & !seen != 0) {
                rows *= part;
                seen |= classes;
            }
        }
        rows.max(1.0)
    }

    fn connected(&self, left: Set, right: Set) -> bool {
        self.edges.iter().any(|edge| edge.set & !(left | right) == 0 && edge.set & left != 0 && edge.set & right != 0)
    }

    fn cost(left: f64, right: f64, output: f64) -> f64 {
        left.min(right) * BUILD + left.max(right) * PROBE + output * OUTPUT
    }

    fn of_tree(&self, tree: &Tree) -> Planned {
        match tree {
            Tree::Part(index) => Planned { set: 1 << index, rows: self.rows[*index], cost: 0.0, tree: tree.clone() },
            Tree::Join(left, right) => self.join(&self.of_tree(left), &self.of_tree(right)),
        }
    }

    /// The smaller side is the left one: the one that is kept for looking up.
    fn join(&self, left: &Planned, right: &Planned) -> Planned {
        let rows = self.joined((left.set, left.rows), (right.set, right.rows));
        let cost = left.cost + right.cost + Self::cost(left.rows, right.rows, rows);
        let (small, large) = if left.rows <= right.rows { (left, right) } else { (right, left) };
        let tree = Tree::Join(Box::new(small.tree.clone()), Box::new(large.tree.clone()));
        Planned { set: left.set | right.set, rows, cost, tree }
    }

    /// The cheapest tree.
    fn best(&self) -> Option<Planned> {
        let parts: Vec<Planned> = (0..self.rows.len()).map(|index| self.of_tree(&Tree::Part(index))).collect();
        if parts.len() <= ALL_ORDERS { self.best_of_all(&parts) } else { self.greedy(parts) }
    }

    fn best_of_all(&self, parts: &[Planned]) -> Option<Planned> {
        let full: Set = (1 << parts.len()) - 1;
        let mut best: Vec<Option<Step>> = vec![None; full as usize + 1];
        for part in parts {
            best[part.set as usize] = Some(Step { rows: part.rows, cost: 0.0, left: 0 });
        }
        for set in 1..=full {
            if set.count_ones() < 2 {
                continue;
            }
            let mut found: Option<Step> = None;
            let mut left = (set - 1) & set;
            while left > 0 {
                let right = set ^ left;
                if left < right
                    && let (Some(l), Some(r)) = (best[left as usize], best[right as usize])
                    && self.connected(left, right)
                {
                    let rows = self.joined((left, l.rows), (right, r.rows));
                    let cost = l.cost + r.cost + Self::cost(l.rows, r.rows, rows);
                    if found.is_none_or(|found| cost < found.cost) {
                        found = Some(Step { rows, cost, left });
                    }
                }
                left = (left - 1) & set;
            }
            best[set as usize] = found;
        }
        self.followed(&best, full)
    }

    /// The tree that the steps to `set` make.
    fn followed(&self, best: &[Option<Step>], set: Set) -> Option<Planned> {
        match best.get(set as usize).copied().flatten()?.left {
            0 => Some(self.of_tree(&Tree::Part(set.trailing_zeros() as usize))),
            left => Some(self.join(&self.followed(best, left)?, &self.followed(best, set ^ left)?)),
        }
    }

    /// Joins what gives the fewest rows, again and again.
    fn greedy(&self, mut parts: Vec<Planned>) -> Option<Planned> {
        while parts.len() > 1 {
            let mut found: Option<(usize, usize, Planned)> = None;
            for left in 0..parts.len() {
                for right in left + 1..parts.len() {
                    if !self.connected(parts[left].set, parts[right].set) {
                        continue;
                    }
                    let joined = self.join(&parts[left], &parts[right]);
                    if found.as_ref().is_none_or(|(.., found)| joined.rows < found.rows) {
                        found = Some((left, right, joined));
                    }
                }
            }
            let (left, right, joined) = found?;
            parts.swap_remove(right);
            parts[left] = joined;
        }
        parts.pop()
    }
}

/// The cheapest way to join a set of parts: its last join, of `left` with the rest.
#[derive(Clone, Copy, Debug)]
struct Step {
    rows: f64,
    cost: f64,
    /// Empty for a single part.
    left: Set,
}

#[derive(Clone, Debug)]
struct Planned {
    set: Set,
    rows: f64,
    cost: f64,
    tree: Tree,
}

/// The tree of inner joins at `plan` in a better order, if there is one.
fn reordered(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut parts = Parts::default();
    let now = parts.collect(plan);
    if !(3..=PARTS).contains(&parts.plans.len()) {
        return Ok(None);
    }
    // A condition without columns, or on one part, would be somewhere else by now.
    let odd = |condition: &Expr| parts.set_of(condition).count_ones() < 2 || condition.is_volatile();
    if parts.conditions.iter().any(odd) || parts.equalities.iter().any(|(l, r)| l.is_volatile() || r.is_volatile()) {
        return Ok(None);
    }
    let Some(costs) = Costs::of(&parts) else { return Ok(None) };
    let now = costs.of_tree(&now);
    let Some(best) = costs.best().filter(|best| best.cost < now.cost * WORTHWHILE) else { return Ok(None) };
    // Columns of the same name may meet in a new order: then the old one stays.
    let Ok(joined) = Assembly::new(&parts).build(&best.tree) else { return Ok(None) };
    Ok(with_columns(joined, plan.schema()).ok())
}

/// `plan` with the columns of `schema`, in its order.
fn with_columns(plan: LogicalPlan, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    if plan.schema() == schema {
        return Ok(plan);
    }
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Projection::try_new_with_schema(columns, Arc::new(plan), Arc::clone(schema)).map(LogicalPlan::Projection)
}

/// Puts parts together again.
struct Assembly<'a> {
    parts: &'a Parts,
    classes: Vec<Class>,
    /// Equalities that are in no class.
    equalities: Vec<(Set, Set, &'a (Expr, Expr), bool)>,
    conditions: Vec<(Set, &'a Expr, bool)>,
}

impl<'a> Assembly<'a> {
    fn new(parts: &'a Parts) -> Self {
        let (classes, class_of) = classes_of(parts);
        let equalities = parts.equalities.iter().zip(class_of).filter(|(_, class)| class.is_none());
        let equalities = equalities.map(|(pair, _)| (parts.set_of(&pair.0), parts.set_of(&pair.1), pair, false));
        let equalities = equalities.collect();
        let conditions = parts.conditions.iter().map(|condition| (parts.set_of(condition), condition, false)).collect();
        Self { parts, classes, equalities, conditions }
    }

    fn build(mut self, tree: &Tree) -> Result<LogicalPlan> {
        let (plan, _) = self.build_part(tree)?;
        let done = self.equalities.iter().all(|of| of.3) && self.conditions.iter().all(|of| of.2);
        if done { Ok(plan) } else { datafusion::common::internal_err!("a condition of a join was lost") }
    }

    fn build_part(&mut self, tree: &Tree) -> Result<(LogicalPlan, Set)> {
        let (left, right) = match tree {
            Tree::Part(index) => return Ok((self.parts.plans[*index].clone(), 1 << index)),
            Tree::Join(left, right) => (left, right),
        };
        let (left, in_left) = self.build_part(left)?;
        let (right, in_right) = self.build_part(right)?;
        let both = in_left | in_right;
        let within = |set: Set, of: Set| set & !of == 0;
        let (mut on, mut conditions) = (Vec::new(), Vec::new());
        let of_classes = self.classes.iter().filter_map(|class| class.between(in_left, in_right));
        on.extend(of_classes.map(|(left, right)| (left.clone(), right.clone())));
        for (l, r, (left, right), done) in self.equalities.iter_mut().filter(|of| !of.3 && within(of.0 | of.1, both)) {
            *done = true;
            if within(*l, in_left) && within(*r, in_right) {
                on.push((left.clone(), right.clone()));
            } else if within(*r, in_left) && within(*l, in_right) {
                on.push((right.clone(), left.clone()));
            } else {
                conditions.push(left.clone().eq(right.clone()));
            }
        }
        for (_, condition, done) in self.conditions.iter_mut().filter(|of| !of.2 && within(of.0, both)) {
            *done = true;
            conditions.push((*condition).clone());
        }
        let join = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            conjunction(conditions),
            JoinType::Inner,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        Ok((LogicalPlan::Join(join), both))
    }
}

/// A semi join (or its opposite) above inner joins, done on the one part that it looks at.
fn pushed_down(join: &Join) -> Result<Option<LogicalPlan>> {
    if join.null_aware || join.filter.as_ref().is_some_and(Expr::is_volatile) {
        return Ok(None);
    }
    let mut parts = Parts::default();
    let tree = parts.collect(&join.left);
    if parts.plans.len() < 2 {
        return Ok(None);
    }
    let of_left = |column: &Column| join.left.schema().has_column(column);
    let mut looked_at: Vec<Column> =
        join.on.iter().flat_map(|(left, _)| left.column_refs().into_iter().cloned()).collect();
    if let Some(filter) = &join.filter {
        looked_at.extend(filter.column_refs().into_iter().filter(|column| of_left(column)).cloned());
    }
    let holds_all = |plan: &LogicalPlan| looked_at.iter().all(|column| plan.schema().has_column(column));
    let Some(place) = parts.plans.iter().position(holds_all).filter(|_| !looked_at.is_empty()) else { return Ok(None) };
    // The columns of the other side must not be mistaken for those of another part.
    let Some((above, part)) = Estimate::of(&join.left).zip(Estimate::of(&parts.plans[place])) else { return Ok(None) };
    let kept = kept_by_semi_join(join, &part).unwrap_or(1.0);
    let shrinks = join.join_type == JoinType::LeftSemi && kept < 0.95;
    if part.rows > above.rows || !shrinks {
        return Ok(None);
    }
    let inner = Join::try_new(
        Arc::new(parts.plans[place].clone()),
        Arc::clone(&join.right),
        join.on.clone(),
        join.filter.clone(),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        false,
    )?;
    parts.plans[place] = LogicalPlan::Join(inner);
    let Ok(joined) = Assembly::new(&parts).build(&tree) else { return Ok(None) };
    Ok(with_columns(joined, &join.schema).ok())
}
