//! What is equal to what: `a = b` and `b = c` say that `a = c`, which nobody wrote.
//!
//! A class holds values of different parts that are all equal in the end. Where two sides that both have values of a class are
//! joined, one equality between them is enough: within each side they are equal already.

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::{Parts, Set};

/// Sets of classes.
pub(super) type Classes = u64;

/// A value of one part.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub part: Set,
    pub expr: Expr,
}

/// Values that are equal.
#[derive(Debug, Clone)]
pub(super) struct Class {
    pub members: Vec<Member>,
    data_type: DataType,
}

impl Class {
    /// One equality between the two sides, if both have values of the class.
    pub fn between(&self, left: Set, right: Set) -> Option<(&Expr, &Expr)> {
        let of = |side: Set| self.members.iter().find(|member| member.part & side != 0).map(|member| &member.expr);
        of(left).zip(of(right))
    }
}

/// The classes that the equalities of `parts` make, and for each equality the class that it belongs to: none where a side has
/// columns of several parts.
pub(super) fn classes_of(parts: &Parts) -> (Vec<Class>, Vec<Option<usize>>) {
    let mut classes: Vec<Class> = Vec::new();
    let mut of: Vec<Option<usize>> = Vec::with_capacity(parts.equalities.len());
    for (left, right) in &parts.equalities {
        let class = member(parts, left).zip(member(parts, right)).and_then(|((left, kind), (right, other))| {
            (kind == other).then(|| {
                let left = place(&mut classes, left, kind);
                let right = place(&mut classes, right, other);
                (left, right)
            })
        });
        let class = class.map(|(left, right)| merge(&mut classes, &mut of, left, right));
        of.push(class);
    }
    (classes, of)
}

fn member(parts: &Parts, expr: &Expr) -> Option<(Member, DataType)> {
    let part = parts.set_of(expr);
    if part.count_ones() != 1 {
        return None;
    }
    let plan = parts.plans.get(part.trailing_zeros() as usize)?;
    Some((Member { part, expr: expr.clone() }, expr.get_type(plan.schema()).ok()?))
}

/// The class that `member` is in; a new one, if it is in none.
fn place(classes: &mut Vec<Class>, member: Member, data_type: DataType) -> usize {
    let same = |class: &Class| class.data_type == data_type && class.members.iter().any(|of| of.expr == member.expr);
    match classes.iter().position(same) {
        Some(known) => known,
        None => {
            classes.push(Class { members: vec![member], data_type });
            classes.len() - 1
        }
    }
}

/// Makes one class of two. An empty one stays in the other's place, so that numbers stay what they are.
fn merge(classes: &mut [Class], of: &mut [Option<usize>], left: usize, right: usize) -> usize {
    if left == right {
        return left;
    }
    let moved = std::mem::take(&mut classes[right].members);
    classes[left].members.extend(moved);
    for class in of.iter_mut().filter(|class| **class == Some(right)) {
        *class = Some(left);
    }
    left
}
