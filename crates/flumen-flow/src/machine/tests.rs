//! The machine, told as stories: what is said to a run, and where its tasks are then.

mod again;
mod basics;
mod lists;
mod rules;
mod times;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::{
    Answer, Change, Failure, FlowName, FlowVersion, Interval, Occasion, Origin, Outcome, RunId, RunRecord, RunState,
    Signal, TaskKey, TaskState, Timer, WorkerId,
};
use serde_json::{Map, Value, json};

use super::{Action, Graph, Node, Run, step};

/// A run that is told things.
struct Story {
    graph: Graph,
    run: Run,
    now: DateTime<Utc>,
    number: u64,
    /// What the last signal led to.
    actions: Vec<Action>,
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_609_459_200, 0).expect("a time")
}

/// `a`, `b < a`, `c < a b one_success`: tasks in order, with what they need, and their rule.
fn nodes(text: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for part in text.split(',') {
        let (id, rest) = part.split_once('<').unwrap_or((part, ""));
        let mut node = Node::new(id.trim(), []);
        for word in rest.split_whitespace() {
            match nodes.iter().position(|other| other.id.as_str() == word) {
                Some(need) => node.needs.push(need),
                None => node.rule = word.parse().expect("a task before this one, or a rule"),
            }
        }
        nodes.push(node);
    }
    nodes
}

impl Story {
    /// A run of these tasks that was not started.
    fn queued(nodes: Vec<Node>) -> Self {
        let graph = Graph::new("taxi", nodes).expect("a flow");
        let record = RunRecord {
            id: RunId::new(uuid::Uuid::from_u128(7)),
            flow: FlowName::from("taxi"),
            version: FlowVersion::of(b""),
            deployment: None,
            interval: Interval::at(start()),
            params: Map::new(),
            origin: Origin::Schedule,
            state: RunState::Queued,
            cause: "waits for its turn".to_owned(),
            cancelling: None,
            timed_out: false,
            stop_at: None,
            created: start(),
            started: None,
            ended: None,
        };
        let run = Run::new(&graph, record);
        Self { graph, run, now: start(), number: 0, actions: Vec::new() }
    }

    fn of(nodes: Vec<Node>) -> Self {
        let mut story = Self::queued(nodes);
        story.tell(Signal::Start);
        story
    }

    fn tell(&mut self, signal: Signal) -> &mut Self {
        self.now += TimeDelta::seconds(1);
        self.actions = step(&mut self.run, &self.graph, self.now, signal);
        let kept = Run::restore(&self.graph, self.run.record().clone(), self.run.tasks().cloned().collect::<Vec<_>>());
        assert_eq!(kept.expect("tasks of this flow"), self.run, "what is kept of a run is the run");
        self
    }

    fn key(text: &str) -> TaskKey {
        text.parse().expect("a key")
    }

    fn claim(&mut self, key: &str) -> &mut Self {
        self.number += 1;
        let (number, worker, at) = (self.number, WorkerId::from("w1"), self.now);
        self.tell(Signal::Claimed { key: Self::key(key), number, worker, at })
    }

    fn end(&mut self, key: &str, outcome: Outcome) -> &mut Self {
        let number = self.run.task(&self.graph, &Self::key(key)).expect("a task").number;
        let at = self.now;
        self.tell(Signal::Ended { key: Self::key(key), number, outcome, at })
    }

    fn does(&mut self, key: &str, outcome: Outcome) -> &mut Self {
        self.claim(key).end(key, outcome)
    }

    fn ok(&mut self, keys: &str) -> &mut Self {
        for key in keys.split_whitespace() {
            self.does(key, Outcome::success(json!(key)));
        }
        self
    }

    fn fails(&mut self, key: &str) -> &mut Self {
        self.does(key, Outcome::Failure(Failure { exit_code: Some(1), ..Failure::new("exit", "it broke") }))
    }

    fn answer(&mut self, key: &str, answer: Answer) -> &mut Self {
        self.tell(Signal::Answered { key: Self::key(key), answer })
    }

    fn due(&mut self, key: &str) -> &mut Self {
        let at = self.run.task(&self.graph, &Self::key(key)).expect("a task").due.expect("a timer");
        self.now = self.now.max(at);
        self.tell(Signal::Due { timer: Timer::Task(Self::key(key)), at })
    }

    /// The run has taken longer than it may.
    fn time_out(&mut self) -> &mut Self {
        let at = self.run.record().stop_at.expect("a timer");
        self.now = self.now.max(at);
        self.tell(Signal::Due { timer: Timer::Timeout, at })
    }

    fn clear(&mut self, keys: &str, downstream: bool) -> &mut Self {
        let keys = keys.split_whitespace().map(Self::key).collect();
        self.tell(Signal::Clear { keys, downstream, by: "ann".to_owned() })
    }

    fn mark(&mut self, key: &str, to: TaskState) -> &mut Self {
        self.tell(Signal::Mark { key: Self::key(key), to, by: "ann".to_owned() })
    }

    fn cancel(&mut self) -> &mut Self {
        self.tell(Signal::Cancel { by: "ann".to_owned() })
    }

    /// The run and its tasks: `running: a success, b queued`.
    fn expect(&mut self, expected: &str) -> &mut Self {
        let tasks = self.run.nodes.iter().flat_map(|node| std::iter::once(&node.task).chain(&node.kids));
        let tasks: Vec<String> = tasks.map(|task| format!("{} {}", task.key, task.state)).collect();
        assert_eq!(format!("{}: {}", self.run.record().state, tasks.join(", ")), expected);
        self
    }

    fn task(&self, key: &str) -> &flumen_core::flow::TaskRun {
        self.run.task(&self.graph, &Self::key(key)).expect("a task")
    }

    fn why(&self, key: &str) -> String {
        super::why(&self.run, &self.graph, &Self::key(key), self.now)
    }

    fn refused(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Refuse { .. }))
    }

    fn occasions(&self) -> Vec<Occasion> {
        let notices = self.actions.iter().filter_map(|action| match action {
            Action::Notify(notice) => Some(notice.occasion.clone()),
            _ => None,
        });
        notices.collect()
    }

    fn stops(&self) -> Vec<String> {
        let stops = self.actions.iter().filter_map(|action| match action {
            Action::Stop { key, cause, .. } => Some(format!("{key}: {cause}")),
            _ => None,
        });
        stops.collect()
    }
}

fn with(mut nodes: Vec<Node>, number: usize, change: impl FnOnce(&mut Node)) -> Vec<Node> {
    change(&mut nodes[number]);
    nodes
}

fn by(name: &str) -> String {
    name.to_owned()
}

fn list(count: usize) -> Value {
    (0..count).map(|index| json!(index)).collect()
}
