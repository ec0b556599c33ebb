//! The names that a template refers to, found without rendering it.
//!
//! A name that a template itself sets (`{% set %}`, `{% for %}`, a macro) is none of them.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::machinery::{Span, ast};

use super::place::Place;

/// A name in a template, with what is asked of it: `outputs.load.rows`, `params['color']`, `var('month')`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The parts, such as `outputs`, `load`, `rows`.
    pub parts: Vec<String>,
    /// Whether a part that is only known when rendering follows, or the whole of it is used.
    pub open: bool,
    /// Where it stands.
    pub place: Place,
    /// The bytes where it stands.
    pub(super) range: Range<usize>,
}

/// A filter or a test in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub name: String,
    pub is_test: bool,
    pub place: Place,
}

/// The names that a template refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Each use of a name.
    pub used: Vec<Name>,
    pub(super) applied: Vec<Applied>,
    /// Formats of dates, where they are written out.
    pub(super) formats: Vec<(String, Place)>,
    /// Statements that need other templates.
    pub(super) other_templates: Vec<Place>,
}

impl Names {
    /// The names at the top: `params`, `ds`, `item`.
    pub fn top_level(&self) -> BTreeSet<&str> {
        self.used.iter().filter_map(|name| name.parts.first()).map(String::as_str).collect()
    }

    /// The tasks whose outputs are used, or none where that is only known when rendering.
    pub fn outputs(&self) -> Option<BTreeSet<&str>> {
        let whole = self.used.iter().any(|name| name.parts.len() == 1 && name.parts[0] == "outputs");
        (!whole).then(|| self.of("outputs"))
    }

    /// The parameters that are used by their names.
    pub fn params(&self) -> BTreeSet<&str> {
        self.of("params")
    }

    /// The variables that are used by their names.
    pub fn variables(&self) -> BTreeSet<&str> {
        self.of("var")
    }

    /// The connections that are used by their names.
    pub fn connections(&self) -> BTreeSet<&str> {
        self.of("conn")
    }

    /// Whether it uses secrets by their names.
    pub fn uses_secrets(&self) -> bool {
        self.used.iter().any(|name| matches!(name.parts[0].as_str(), "secret" | "secret_env"))
    }

    fn of(&self, first: &str) -> BTreeSet<&str> {
        let of_it = self.used.iter().filter(|name| name.parts[0] == first);
        of_it.filter_map(|name| name.parts.get(1)).map(String::as_str).collect()
    }
}

/// Goes through a template and collects names.
pub(super) struct Walk<'s> {
    source: &'s str,
    names: Names,
    own: BTreeSet<&'s str>,
}

impl<'s> Walk<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, names: Names::default(), own: BTreeSet::new() }
    }

    pub(super) fn finish(mut self) -> Names {
        let own = self.own;
        self.names.used.retain(|name| !own.contains(name.parts[0].as_str()));
        self.names
    }

    fn place(&self, span: Span) -> Place {
        Place::of(self.source, span.start_offset as usize)
    }

    pub(super) fn statement(&mut self, statement: &ast::Stmt<'s>) {
        use ast::Stmt;
        match statement {
            Stmt::Template(it) => self.statements(&it.children),
            Stmt::EmitExpr(it) => self.expression(&it.expr),
            Stmt::EmitRaw(_) => {}
            Stmt::ForLoop(it) => {
                self.own.insert("loop");
                self.assigned(&it.target);
                self.expression(&it.iter);
                self.maybe(it.filter_expr.as_ref());
                self.statements(&it.body);
                self.statements(&it.else_body);
            }
            Stmt::IfCond(it) => {
                self.expression(&it.expr);
                self.statements(&it.true_body);
                self.statements(&it.false_body);
            }
            Stmt::WithBlock(it) => {
                for (target, value) in &it.assignments {
                    self.assigned(target);
                    self.expression(value);
                }
                self.statements(&it.body);
            }
            Stmt::Set(it) => {
                self.assigned(&it.target);
                self.expression(&it.expr);
            }
            Stmt::SetBlock(it) => {
                self.assigned(&it.target);
                self.maybe(it.filter.as_ref());
                self.statements(&it.body);
            }
            Stmt::AutoEscape(it) => {
                self.expression(&it.enabled);
                self.statements(&it.body);
            }
            Stmt::FilterBlock(it) => {
                self.expression(&it.filter);
                self.statements(&it.body);
            }
            Stmt::Block(it) => {
                self.own.extend(["self", "super"]);
                self.statements(&it.body);
            }
            Stmt::Import(it) => self.names.other_templates.push(self.place(it.span())),
            Stmt::FromImport(it) => self.names.other_templates.push(self.place(it.span())),
            Stmt::Extends(it) => self.names.other_templates.push(self.place(it.span())),
            Stmt::Include(it) => self.names.other_templates.push(self.place(it.span())),
            Stmt::Macro(it) => {
                self.own.insert(it.name);
                self.macro_body(it);
            }
            Stmt::CallBlock(it) => {
                self.call(&it.call, it.call.span());
                self.macro_body(&it.macro_decl);
            }
            Stmt::Do(it) => self.call(&it.call, it.call.span()),
            // `{% break %}` and `{% continue %}`, where they are compiled in.
            #[allow(unreachable_patterns, reason = "what there is depends on the features of minijinja")]
            _ => {}
        }
    }

    fn statements(&mut self, statements: &[ast::Stmt<'s>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn macro_body(&mut self, it: &ast::Macro<'s>) {
        self.own.insert("caller");
        for argument in &it.args {
            self.assigned(argument);
        }
        for default in &it.defaults {
            self.expression(default);
        }
        self.statements(&it.body);
    }

    fn assigned(&mut self, target: &ast::Expr<'s>) {
        match target {
            ast::Expr::Var(it) => {
                self.own.insert(it.id);
            }
            ast::Expr::List(it) => it.items.iter().for_each(|item| self.assigned(item)),
            ast::Expr::Tuple(it) => it.items.iter().for_each(|item| self.assigned(item)),
            other => self.expression(other),
        }
    }

    fn maybe(&mut self, expression: Option<&ast::Expr<'s>>) {
        if let Some(expression) = expression {
            self.expression(expression);
        }
    }

    pub(super) fn expression(&mut self, expression: &ast::Expr<'s>) {
        use ast::Expr;
        if self.chain(expression) {
            return;
        }
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(it) => {
                self.expression(&it.expr);
                self.maybe(it.start.as_ref());
                self.maybe(it.stop.as_ref());
                self.maybe(it.step.as_ref());
            }
            Expr::UnaryOp(it) => self.expression(&it.expr),
            Expr::BinOp(it) => {
                self.expression(&it.left);
                self.expression(&it.right);
            }
            Expr::Compare(it) => {
                self.expression(&it.expr);
                it.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(it) => {
                self.expression(&it.test_expr);
                self.expression(&it.true_expr);
                self.maybe(it.false_expr.as_ref());
            }
            Expr::Filter(it) => {
                self.maybe(it.expr.as_ref());
                self.applied(it.name, false, it.span());
                self.arguments(&it.args);
            }
            Expr::Test(it) => {
                self.expression(&it.expr);
                self.applied(it.name, true, it.span());
                self.arguments(&it.args);
            }
            Expr::GetAttr(it) => self.expression(&it.expr),
            Expr::GetItem(it) => {
                self.expression(&it.expr);
                self.expression(&it.subscript_expr);
            }
            Expr::Call(it) => self.call(it, it.span()),
            Expr::List(it) => it.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(it) => it.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(it) => it.keys.iter().chain(&it.values).for_each(|item| self.expression(item)),
        }
    }

    fn applied(&mut self, name: &str, is_test: bool, span: Span) {
        let name: String = name.split_whitespace().collect();
        let place = self.place(span);
        self.names.applied.push(Applied { name, is_test, place });
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'s>]) {
        for argument in arguments {
            match argument {
                ast::CallArg::Pos(it)
                | ast::CallArg::Kwarg(_, it)
                | ast::CallArg::PosSplat(it)
                | ast::CallArg::KwargSplat(it) => self.expression(it),
            }
        }
    }

    /// A call: of a name that takes a name (`var('x')`), of `ti.xcom_pull`, or of something else.
    fn call(&mut self, it: &ast::Call<'s>, span: Span) {
        let first = it.args.first().and_then(|argument| match argument {
            ast::CallArg::Pos(ast::Expr::Const(it)) => it.value.as_str().map(str::to_owned),
            _ => None,
        });
        if let (ast::Expr::GetAttr(method), Some(format)) = (&it.expr, &first)
            && method.name == "strftime"
        {
            let place = self.place(span);
            self.names.formats.push((format.clone(), place));
        }
        match (&it.expr, first) {
            (ast::Expr::Var(var), Some(first)) if super::TAKES_NAME.contains(&var.id) => {
                self.push(vec![var.id.to_owned(), first], false, span);
                self.arguments(&it.args[1..]);
            }
            (ast::Expr::GetAttr(method), _) if method.name == "xcom_pull" && is_task_instance(&method.expr) => {
                self.expression(&method.expr);
                self.pulled(it, span);
            }
            // The last part of `x.y.method(…)` is the method's name.
            (ast::Expr::GetAttr(method), _) if !self.chain(&it.expr) => {
                self.expression(&method.expr);
                self.arguments(&it.args);
            }
            (ast::Expr::GetAttr(_), _) => self.arguments(&it.args),
            _ => {
                self.expression(&it.expr);
                self.arguments(&it.args);
            }
        }
    }

    /// `xcom_pull(task_ids='load', key='rows')` is `outputs.load.rows`.
    fn pulled(&mut self, it: &ast::Call<'s>, span: Span) {
        let named = |wanted: &str, place: usize| {
            let by_name = it.args.iter().find_map(|argument| match argument {
                ast::CallArg::Kwarg(name, value) if *name == wanted => Some(value),
                _ => None,
            });
            by_name.or_else(|| match it.args.get(place) {
                Some(ast::CallArg::Pos(value)) => Some(value),
                _ => None,
            })
        };
        let tasks = named("task_ids", 0);
        let value = tasks.and_then(ast::Expr::as_const);
        let tasks: Option<Vec<String>> = value.and_then(|value| match value.as_str() {
            Some(one) => Some(vec![one.to_owned()]),
            None => value.try_iter().ok()?.map(|item| item.as_str().map(str::to_owned)).collect(),
        });
        match tasks {
            None => self.push(vec!["outputs".to_owned()], true, span),
            Some(tasks) => {
                for task in tasks {
                    self.push(vec!["outputs".to_owned(), task], true, span);
                }
            }
        }
        self.arguments(&it.args);
    }

    /// Notes `a.b['c']`, and says whether it was one.
    fn chain(&mut self, expression: &ast::Expr<'s>) -> bool {
        let mut parts = Vec::new();
        let mut open = false;
        let mut dynamic = Vec::new();
        let mut at = expression;
        let mut span = expression.span();
        loop {
            match at {
                ast::Expr::Var(it) => {
                    parts.push(it.id.to_owned());
                    (span.start_line, span.start_col) = (it.span().start_line, it.span().start_col);
                    span.start_offset = it.span().start_offset;
                    break;
                }
                ast::Expr::GetAttr(it) => {
                    parts.push(it.name.to_owned());
                    at = &it.expr;
                }
                ast::Expr::GetItem(it) => {
                    match it.subscript_expr.as_const().and_then(|key| key.as_str().map(str::to_owned)) {
                        Some(key) => parts.push(key),
                        // What follows something that is not known is not known either.
                        None => {
                            parts.clear();
                            open = true;
                            dynamic.push(&it.subscript_expr);
                        }
                    }
                    at = &it.expr;
                }
                _ => return false,
            }
        }
        parts.reverse();
        self.push(parts, open, span);
        for subscript in dynamic {
            self.expression(subscript);
        }
        true
    }

    fn push(&mut self, mut parts: Vec<String>, open: bool, span: Span) {
        // Airflow's two ways to ask for a variable.
        if parts.len() > 2 && parts[0] == "var" && matches!(parts[1].as_str(), "value" | "json") {
            parts.remove(1);
        }
        let open = open || parts.len() == 1;
        let range = span.start_offset as usize..span.end_offset as usize;
        self.names.used.push(Name { parts, open, place: self.place(span), range });
    }
}

fn is_task_instance(expression: &ast::Expr<'_>) -> bool {
    matches!(expression, ast::Expr::Var(it) if matches!(it.id, "ti" | "task_instance"))
}
