//! Random flows.

use std::time::Duration;

use flumen_core::flow::TriggerRule;
use flumen_core::testkit::seeds::Random;
use flumen_flow::machine::{Graph, Hooks, Map, Match, Node, Retry};
use serde_json::Value;

pub const POOLS: [&str; 3] = ["narrow", "wide", "slow"];

/// A flow of up to a dozen tasks.
pub fn flow(random: &mut Random, name: &str) -> Graph {
    let count = 1 + random.below(9);
    let mut nodes: Vec<Node> = (0..count).map(|number| task(random, number)).collect();
    if count > 2 && random.percent(40) {
        let setup = random.below(count - 1);
        nodes[setup].map = None;
        let needs = (setup..count).filter(|_| random.percent(50)).collect::<Vec<_>>();
        nodes.push(Node {
            tears_down: vec![setup],
            map: None,
            branch: false,
            when: false,
            depends_on_past: false,
            ..Node { needs, ..task(random, count) }
        });
    }
    let mut graph = Graph::new(name, nodes).unwrap();
    graph.hooks = Hooks { failure: random.percent(50), success: random.percent(50), retry: false };
    graph.late = random.percent(30).then_some(Duration::from_secs(100));
    graph.long = random.percent(30).then_some(Duration::from_secs(50));
    graph.timeout = random.percent(30).then(|| Duration::from_secs(random.between(20, 120) as u64));
    graph
}

fn task(random: &mut Random, number: usize) -> Node {
    let density = *random.pick(&[15, 40, 80]);
    let needs: Vec<usize> = (0..number).filter(|_| random.percent(density)).collect();
    let mut node = Node::new(format!("t{number}"), needs);
    if random.percent(60) {
        node.rule = *random.pick(TriggerRule::ALL);
    }
    node.retry = retry(random);
    node.timeout = random.percent(20).then_some(Duration::from_secs(40));
    node.late = random.percent(15).then_some(Duration::from_secs(60));
    node.long = random.percent(15).then_some(Duration::from_secs(15));
    node.pool = (*random.pick(&POOLS)).to_owned();
    node.slots = random.between(1, 3) as u32;
    node.priority = random.between(-1, 1) as i32;
    node.when = random.percent(15);
    node.depends_on_past = random.percent(10);
    node.branch = random.percent(20);
    if !node.branch && random.percent(25) {
        node.map = Some(Map {
            by_worker: random.percent(40),
            at_once: random.percent(60).then(|| random.between(1, 3) as u32),
            limit: random.percent(20).then_some(3),
        });
    }
    node.given = random.percent(15).then_some(Value::Null);
    node.hooks = Hooks { failure: random.percent(30), success: random.percent(20), retry: random.percent(20) };
    node
}

fn retry(random: &mut Random) -> Retry {
    Retry {
        retries: random.between(0, 2) as u32,
        delays: (0..random.below(3)).map(|_| Duration::from_secs(random.below(20) as u64)).collect(),
        factor: *random.pick(&[1.0, 2.0]),
        max_delay: Duration::from_secs(60),
        jitter: *random.pick(&[0.0, 0.5]),
        on: if random.percent(10) { vec![Match::Kind("timeout".to_owned()), Match::Exit(1..=1)] } else { vec![] },
        not_on: if random.percent(10) { vec![Match::Exit(2..=9)] } else { vec![] },
        infra: if random.percent(30) { None } else { Some(random.between(0, 3) as u32) },
    }
}
