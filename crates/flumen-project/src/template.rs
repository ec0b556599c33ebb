//! Values that are templates: `{{ env_var('PG_HOST', 'localhost') }}`, `{{ secret_env('PG_PASSWORD') }}`, `{{ var('x') }}`.
//!
//! What used `secret_env` is marked, so that nobody shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flumen_core::{Error, Result};

use crate::environment::Environment;

/// The text of a value, and whether it holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Whether `secret_env` was used on the way.
    pub secret: bool,
}

/// Renders the values of one project.
#[derive(Debug, Clone)]
pub struct Templates {
    environment: Arc<Environment>,
    vars: Arc<BTreeMap<String, String>>,
}

/// What a template did while it was rendered.
#[derive(Default)]
struct Trace {
    secret: bool,
    error: Option<Error>,
}

impl Templates {
    /// Templates over these variables. A value in `vars` may itself be a template, but not use `var`.
    pub fn new(environment: Environment, vars: BTreeMap<String, String>) -> Self {
        Self { environment: Arc::new(environment), vars: Arc::new(vars) }
    }

    /// The variables that templates see.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The text that `source` stands for.
    ///
    /// Errors: `Invalid`, naming the variable that is not set or what is wrong with the template.
    pub fn render(&self, source: &str) -> Result<Rendered> {
        self.render_with(source, true)
    }

    fn render_with(&self, source: &str, with_vars: bool) -> Result<Rendered> {
        if !is_template(source) {
            return Ok(Rendered { text: source.to_owned(), secret: false });
        }
        let trace = Arc::new(Mutex::new(Trace::default()));
        let mut jinja = minijinja::Environment::new();
        jinja.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        for (name, secret) in [("env_var", false), ("secret_env", true)] {
            let (environment, trace) = (self.environment.clone(), trace.clone());
            jinja.add_function(name, move |variable: String, default: Option<String>| {
                let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
                trace.secret |= secret;
                let value = environment.get(&variable).map(str::to_owned).or(default);
                value.ok_or_else(|| trace.fail(unset(&variable)))
            });
        }
        let (templates, inner) = (self.clone(), trace.clone());
        jinja.add_function("var", move |name: String, default: Option<String>| {
            let mut trace = inner.lock().unwrap_or_else(PoisonError::into_inner);
            let rendered = templates.var(&name, default, with_vars).map_err(|error| trace.fail(error))?;
            trace.secret |= rendered.secret;
            Ok::<_, minijinja::Error>(rendered.text)
        });
        let rendered = jinja.render_str(source, ());
        let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
        match (rendered, trace.error.take()) {
            (_, Some(error)) => Err(error),
            (Ok(text), None) => Ok(Rendered { text, secret: trace.secret }),
            (Err(error), None) => Err(broken(&error)),
        }
    }

    fn var(&self, name: &str, default: Option<String>, with_vars: bool) -> Result<Rendered> {
        if !with_vars {
            return Err(Error::invalid(format!("a var cannot use another var ('{name}')")));
        }
        match (self.vars.get(name), default) {
            (Some(source), _) => self.render_with(source, false).map_err(|error| error.within(format!("vars.{name}"))),
            (None, Some(text)) => Ok(Rendered { text, secret: false }),
            (None, None) => {
                let error = Error::invalid(format!("there is no var '{name}'"));
                Err(error
                    .hint("add it under 'vars' in flumen.yml")
                    .did_you_mean(name, self.vars.keys().map(String::as_str)))
            }
        }
    }
}

impl Trace {
    /// Keeps our own error, and gives the template engine one to stop with.
    fn fail(&mut self, error: Error) -> minijinja::Error {
        let stop = minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, error.to_string());
        self.error = Some(error);
        stop
    }
}

fn unset(variable: &str) -> Error {
    Error::invalid(format!("the environment variable {variable} is not set"))
        .hint(format!("set {variable} in the environment, or in the file .env of the project"))
}

fn broken(error: &minijinja::Error) -> Error {
    let detail = error.detail().map(str::to_owned).unwrap_or_else(|| error.kind().to_string());
    Error::invalid(format!("the template cannot be rendered: {detail}"))
        .hint("a template is {{ env_var('NAME') }}, {{ secret_env('NAME') }} or {{ var('name') }}, each with a default if wanted: {{ env_var('NAME', 'x') }}")
}

/// Whether a text has to be rendered at all.
pub fn is_template(source: &str) -> bool {
    source.contains("{{") || source.contains("{%")
}

/// Whether a text takes something from a secret variable.
pub fn uses_secret(source: &str) -> bool {
    is_template(source) && source.contains("secret_env")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: &str) {
        let environment = [("HOST", "db1"), ("PASSWORD", "p{{x}}")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let vars = [("month", "2019-01"), ("key", "{{ secret_env('PASSWORD') }}"), ("loop", "{{ var('loop') }}")];
        let vars = vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let got = match Templates::new(Environment::of(environment), vars).render(source) {
            Ok(rendered) => format!("{}{}", rendered.text, if rendered.secret { " (secret)" } else { "" }),
            Err(error) => format!("error {error}; {}", error.remedy().unwrap_or("-")),
        };
        assert_eq!(got, expect, "{source}");
    }

    #[test]
    fn templates() {
        check("plain { text }", "plain { text }");
        check("{{ env_var('HOST') }}:{{ env_var('PORT', '5432') }}", "db1:5432");
        check("{{ env_var('PORT', 5432) }}", "5432");
        check("{{ secret_env('PASSWORD') }}", "p{{x}} (secret)");
        check("{{ var('key') }}", "p{{x}} (secret)");
        check("x/{{ var('month') }}", "x/2019-01");
        check("{{ var('nix', 'a') }}", "a");
    }

    #[test]
    fn what_is_missing_is_named() {
        check(
            "{{ env_var('PORT') }}",
            "error the environment variable PORT is not set; set PORT in the environment, or in the file .env of the project",
        );
        check("{{ var('mont') }}", "error there is no var 'mont'; did you mean 'month'?");
        check("{{ var('loop') }}", "error vars.loop: a var cannot use another var ('loop'); -");
    }
}
