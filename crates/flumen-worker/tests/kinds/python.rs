//! `python`: files, functions, code, what they raise, and environments with packages.

use std::os::unix::fs::PermissionsExt as _;

use flumen_core::flow::Outcome;
use serde_json::json;

use crate::support::Fixture;

const TASKS: &str = "\
import os, sys
from helper import greet

class SkipToday(Exception): pass

def add(a, b=1):
    return {'sum': a + b, 'type': type(a).__name__}

def where():
    return {'cwd': os.listdir(), 'env': os.environ['COLOR'], 'run': os.environ['FLUMEN_FLOW'], 'greeting': greet('ann')}

def fail():
    raise ValueError('no such month')

def skip():
    raise SkipToday('nothing new')

def greedy():
    return len(bytearray(10 ** 10))

if __name__ == '__main__':
    print('given', sys.argv[1:])
    print('last')
";

fn fixture() -> Fixture {
    Fixture::new(
        &[
            ("py/tasks.py", TASKS),
            ("py/helper.py", "def greet(who):\n    return 'hello ' + who\n"),
            ("top.py", "x = 7\n"),
        ],
        &[("TOKEN", "hunter2")],
    )
}

#[tokio::test]
async fn functions_get_typed_arguments_and_give_their_output() {
    let fixture = fixture();
    let output = fixture
        .output("one:\n  python:\n    file: py/tasks.py\n    function: add\n    args: [\"{{ 40 + 1 }}\"]\n    kwargs: { b: 2 }")
        .await;
    assert_eq!(output, json!({ "sum": 43, "type": "int" }));
    let output =
        fixture.output("one: { env: { COLOR: \"{{ ds }}\" }, python: { file: py/tasks.py, function: where } }").await;
    assert_eq!(output["env"], "2021-01-05");
    assert_eq!((&output["run"], &output["greeting"]), (&json!("test"), &json!("hello ann")));
}

#[tokio::test]
async fn what_a_function_raises_is_the_failure() {
    let fixture = fixture();
    let (outcome, lines) = fixture.run("one: { python: { file: py/tasks.py, function: fail } }").await;
    let Outcome::Failure(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.kind.as_str(), failure.exit_code), ("exit", Some(1)));
    assert_eq!(failure.message, "ValueError: no such month");
    assert!(lines.iter().any(|line| line.contains("tasks.py\", line 13, in fail")), "{lines:?}");
    let (outcome, _) = fixture.run("one: { python: { file: py/tasks.py, function: skip } }").await;
    assert_eq!(outcome, Outcome::Skipped { cause: "nothing new".to_owned() });
    let secret = "one: { python: { kwargs: { token: \"{{ secret_env('TOKEN') }}\" }, code: \"class Skip(Exception): pass\\nraise Skip(token)\" } }";
    assert_eq!(fixture.run(secret).await.0, Outcome::Skipped { cause: "***".to_owned() });
    let (kind, message) =
        fixture.failure("one: { memory: 1GB, python: { file: py/tasks.py, function: greedy } }").await;
    assert_eq!((kind.as_str(), message.as_str()), ("out_of_memory", "MemoryError"));
    let (_, message) = fixture.failure("one: { python: { file: py/tasks.py, function: ad } }").await;
    assert_eq!(message, "tasks.py has no function 'ad'; it has: greet, add, where, fail, skip, greedy");
}

#[tokio::test]
async fn a_file_is_a_program() {
    let fixture = fixture();
    let (outcome, lines) = fixture.run("one: { python: { file: py/tasks.py, args: [a, 1] } }").await;
    assert_eq!(outcome, Outcome::success("last".into()));
    assert_eq!(lines, ["Out given ['a', '1']", "Out last"]);
    fixture
        .write("py/out.py", "import os, json\nopen(os.environ['FLUMEN_OUTPUT'], 'w').write(json.dumps({'rows': 3}))\n");
    assert_eq!(fixture.output("one: { python: { file: py/out.py } }").await, json!({ "rows": 3 }));
    fixture.write("py/end.py", "raise SystemExit(99)");
    let (outcome, _) = fixture.run("one: { python: { file: py/end.py } }").await;
    assert_eq!(outcome, Outcome::Skipped { cause: "exit code 99: there was nothing to do".to_owned() });
}

#[tokio::test]
async fn code_is_the_body_of_a_function() {
    let fixture = fixture();
    let code = "\
one:
  python:
    kwargs: { rows: \"{{ 2 + 3 }}\", token: \"{{ secret_env('TOKEN') }}\" }
    code: |
      import asyncio, top
      text = '''{{ not a template }}
      second'''
      print(token)
      await asyncio.sleep(0)
      return {'rows': rows * 2, 'x': top.x, 'text': text}";
    let (outcome, lines) = fixture.run(code).await;
    let output = json!({ "rows": 10, "x": 7, "text": "{{ not a template }}\nsecond" });
    assert_eq!(outcome, Outcome::success(output), "{lines:?}");
    assert_eq!(lines, ["Out ***"]);
    // The short form; an error names the line of the code.
    assert_eq!(fixture.output("one: { python: \"return 1 + 1\" }").await, json!(2));
    let (outcome, lines) = fixture.run("one:\n  python: |\n    x = 1\n    return x / 0").await;
    let Outcome::Failure(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.message, "ZeroDivisionError: division by zero");
    assert!(lines.iter().any(|line| line.contains("one.py\", line 2")), "{lines:?}");
    let (_, message) = fixture.failure("one: { python: \"return (\" }").await;
    assert!(message.contains("SyntaxError: '(' was never closed"), "{message}");
}

#[tokio::test]
async fn packages_are_installed_once_also_for_several_at_the_same_time() {
    let fixture = fixture();
    let folder = fixture.dir().display().to_string();
    // A package as pip installs it without asking anybody.
    fixture.write(
        "make.py",
        "import zipfile\n\
         with zipfile.ZipFile('FOLDER/demo-1.0-py3-none-any.whl', 'w') as wheel:\n\
         \x20   wheel.writestr('demo.py', 'answer = 42')\n\
         \x20   wheel.writestr('demo-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n')\n\
         \x20   wheel.writestr('demo-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
         \x20   wheel.writestr('demo-1.0.dist-info/RECORD', '')\n"
            .replace("FOLDER", &folder)
            .as_str(),
    );
    fixture.output("one: { python: { file: make.py } }").await;
    let asks = format!(
        "one: {{ python: {{ requirements: [\"{folder}/demo-1.0-py3-none-any.whl\"], code: \"import demo, sys; return [demo.answer, sys.prefix]\" }} }}"
    );
    let run = fixture.begin(&asks).await;
    let works = [1, 2, 3].map(|attempt| fixture.work(&run, "one", attempt));
    let outcomes = futures::future::join_all(works.iter().map(|work| fixture.execute(work))).await;
    let venvs = fixture.dir().join(".flumen/venvs");
    let lines = fixture.lines();
    for outcome in &outcomes {
        let Outcome::Success { output, .. } = outcome else { panic!("{outcome:?}\n{}", lines.join("\n")) };
        assert_eq!(output[0], 42);
        assert!(output[1].as_str().unwrap().starts_with(venvs.to_str().unwrap()), "{output}");
    }
    let made = lines.iter().filter(|line| line.starts_with("Note makes a virtual environment")).count();
    assert_eq!(made, 1, "{lines:?}");
    // The environment may be named too.
    let name = std::fs::read_dir(&venvs).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().file_name();
    let venv = format!(".flumen/venvs/{}", name.to_str().unwrap());
    let named = format!("one: {{ python: {{ venv: {venv}, code: \"import demo; return demo.answer\" }} }}");
    assert_eq!(fixture.output(&named).await, json!(42));
    let (kind, message) = fixture.failure("one: { python: { venv: nowhere, code: \"return 1\" } }").await;
    assert!(kind == "not_found" && message.contains("no virtual environment in"), "{message}");
    // What cannot be installed fails, and is made anew the next time.
    let wrong = "one: { env: { PIP_NO_INDEX: \"1\", UV_NO_INDEX: \"1\" }, python: { requirements: [\"no-such-package-of-anybody\"], code: \"return 1\" } }";
    let (kind, message) = fixture.failure(wrong).await;
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("exit", "the packages that it needs cannot be installed: see the log")
    );
    let is_ready = |entry: &std::fs::DirEntry| entry.path().join(".ready").exists();
    assert_eq!(std::fs::read_dir(&venvs).unwrap().flatten().filter(is_ready).count(), 1);
}

#[tokio::test]
async fn uv_is_used_where_it_is_and_a_file_may_name_the_packages() {
    let fixture = fixture();
    fixture.write("requirements.txt", "demo==1.0\n");
    // It stands for uv: it makes an environment without pip, and "installs" what the list says.
    let uv = "#!/bin/sh\n\
              [ \"$1\" = venv ] && exec \"$4\" -m venv --without-pip \"$5\"\n\
              cp \"$6\" \"$(dirname \"$4\")/../installed.txt\"\n";
    fixture.write("bin/uv", uv);
    let path = fixture.dir().join("bin/uv");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let task = format!(
        "one:\n  env: {{ PATH: \"{}/bin:{}\" }}\n  python:\n    requirements: requirements.txt\n    code: |\n      import os, sys, shutil\n      text = open(sys.prefix + '/installed.txt').read()\n      return [text, os.environ['VIRTUAL_ENV'] == sys.prefix, shutil.which('python') == sys.executable]",
        fixture.dir().display(),
        std::env::var("PATH").unwrap()
    );
    assert_eq!(fixture.output(&task).await, json!(["demo==1.0\n", true, true]));
    // Other packages are another environment.
    fixture.write("requirements.txt", "demo==2.0\n");
    assert_eq!(fixture.output(&task).await[0], "demo==2.0\n");
}
