//! Hooks, as a scheduler has them delivered.

use flumen_core::clock::Clock as _;
use flumen_core::flow::{Change, Notice, Occasion, RunId, TaskKey};
use flumen_worker::hooks::deliver;

use crate::support::{Fixture, start};

const FLOW: &str = "\
flow: test
on_late: { shell: \"echo the flow: {{ hook }} {{ state }} {{ task }} {{ error }} >> $FLUMEN_PROJECT/told\" }
tasks:
  one:
    deadline: 5m
    on_late: { shell: \"echo the task: {{ hook }} {{ state }} {{ task }} {{ error }} >> $FLUMEN_PROJECT/told\" }
    shell: \"true\"
  other: { warn_after: 5m, shell: \"true\" }
";

async fn tell(fixture: &Fixture, run: RunId, occasion: Occasion) -> String {
    let notice = Notice { run, occasion, at: fixture.clock.now(), cause: "it is slow".to_owned() };
    deliver(&fixture.host, &notice).await.unwrap();
    let file = fixture.dir().join("told");
    let told = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{:?}", fixture.lines()));
    std::fs::remove_file(file).unwrap();
    told
}

#[tokio::test]
async fn what_is_late_is_told_by_the_task_and_by_the_flow() {
    let fixture = Fixture::new(&[("flows/test.yml", FLOW)], &[]);
    let run = fixture.make_run("test", start()).await;
    let late = Occasion::TaskLate { key: TaskKey::new("one") };
    let told = "the task: on_late late one it is slow\nthe flow: on_late late one it is slow\n";
    assert_eq!(tell(&fixture, run, late).await, told);
    let long = Occasion::TaskLong { key: TaskKey::new("other") };
    assert_eq!(tell(&fixture, run, long).await, "the flow: on_late late other it is slow\n");
}

#[tokio::test]
async fn one_that_fails_is_in_the_history_of_the_run_and_stops_no_other() {
    let flow = "flow: test\non_failure:\n  - { shell: \"echo no mail today; exit 3\" }\n  - { shell: \"echo told > $FLUMEN_PROJECT/told\" }\ntasks:\n  one: { shell: \"true\" }\n";
    let fixture = Fixture::new(&[("flows/test.yml", flow)], &[]);
    let run = fixture.make_run("test", start()).await;
    let before = fixture.host.store.events(run, 0, 100).await.unwrap().len();
    assert_eq!(tell(&fixture, run, Occasion::RunFailed).await, "told\n");
    let events = fixture.host.store.events(run, 0, 100).await.unwrap();
    let [(_, event)] = &events[before..] else { panic!("{events:?}") };
    assert!(event.cause.contains("the hook on_failure failed") && event.cause.contains("flumen run logs"), "{event:?}");
    assert!(matches!(event.change, Change::Run { from, to } if from == to), "{event:?}");
}
