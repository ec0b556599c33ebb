//! `flumen run logs`.

use std::time::Duration;

use chrono::SecondsFormat;
use flumen_core::Result;
use flumen_core::flow::TaskKey;
use flumen_worker::log::Stream;
use flumen_worker::logs::{LogLine, LogReader};
use serde_json::json;

use crate::context::Context;
use crate::flows::names;
use crate::flows::runtime::Flowing;
use crate::output::{Color, paint, printable};

/// How often more is looked for.
const EVERY: Duration = Duration::from_millis(300);

/// What the tasks of a run printed
#[derive(Debug, clap::Args)]
pub struct LogsCommand {
    /// The run, or RUN/TASK
    run: String,
    /// Only this attempt [default: all of them]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// With the time of each line, in UTC
    #[arg(long)]
    times: bool,
}

impl LogsCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let (run, task) = match self.run.split_once('/') {
            Some(_) => {
                let (run, task) = names::run_and_task(&*flowing.store, &self.run).await?;
                super::change::known(run.id, &task, &flowing).await?;
                (run, Some(task))
            }
            None => (names::run(&*flowing.store, &self.run).await?, None),
        };
        let wanted = |key: &TaskKey, attempt: u32| {
            let is_task =
                task.as_ref().is_none_or(|task| key == task || (task.index.is_none() && key.task == task.task));
            is_task && self.attempt.is_none_or(|wanted| wanted == attempt)
        };
        let mut reader = LogReader::new(flowing.kept.clone(), run.id);
        loop {
            // What was printed before the end is there once the run has ended.
            let has_ended = flowing.store.run(run.id).await?.state.is_terminal();
            let mut lines = reader.more(&wanted).await?;
            // Those of several tasks as they came; lines of one moment stay in their order.
            lines.sort_by_key(|line| line.at);
            for line in lines {
                self.print(&line, task.is_some(), context)?;
            }
            if has_ended || !self.follow {
                return Ok(());
            }
            let pause = async {
                tokio::time::sleep(EVERY).await;
                Ok(())
            };
            context.unless_cancelled(pause).await?;
        }
    }

    fn print(&self, line: &LogLine, is_one: bool, context: &Context) -> Result<()> {
        let output = &context.output;
        if output.json {
            let stream = match line.stream {
                Stream::Out => "out",
                Stream::Err => "err",
                Stream::Note => "note",
            };
            return output.line(json!({
                "task": line.key, "attempt": line.attempt, "at": line.at.to_rfc3339_opts(SecondsFormat::Millis, true),
                "stream": stream, "text": line.text,
            }));
        }
        let mut text = String::new();
        if self.times {
            text.push_str(&line.at.format("%Y-%m-%d %H:%M:%S%.3f ").to_string());
        }
        if !is_one {
            text.push_str(&format!("{} | ", line.key));
        }
        match line.stream {
            Stream::Note => text.push_str(&paint(&line.text, Color::Dim, output.stdout_colors)),
            _ => text.push_str(&printable(&line.text, output.stdout_colors)),
        }
        output.line(text)
    }
}
