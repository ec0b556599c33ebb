//! The kinds of tasks, as a worker runs them: with real interpreters, web servers, mail servers and container engines.

mod approve;
mod docker;
mod docs;
mod flow;
mod http;
mod notify;
mod python;
mod sensor;
mod support;
