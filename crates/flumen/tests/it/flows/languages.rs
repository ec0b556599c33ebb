//! SQL and Python in flows and in the files that they name, as `flumen check` reads them.

use super::{project, succeed};

#[test]
fn sql_and_python_are_read_before_they_run() {
    let sandbox = project(&[
        (
            "flows/one.yml",
            r#"flow: one
tasks:
  inline: { sql: "select 1; selct 2" }
  in_file: { sql: { file: sql/bad.sql } }
  again: { export: { file: sql/bad.sql, to: x.csv } }
  templates: { sql: "select * frm {{ ds }}" }
  named: { sql: "select * from lake.raw.{{ flow.name }} were x = '{{ ds }}'" }
  elsewhere: { sql: { connection: pg, query: "whatever this means" } }
  each: { for_each: { query: "select from" }, shell: "true" }
  rows: { check: { empty: "select 1 from (select 2" } }
  file: { python: { file: bad.py } }
  code: { python: "x = 1\nreturn x +" }
  missing: { python: { file: good.py, function: laod } }
  there: { python: { file: good.py, function: load } }
  imported: { python: { file: good.py, function: dumps } }
  anything: { python: { file: star.py, function: join } }
  script: { python: { file: good.py } }
  body: { python: "await x\nreturn '''\na'''" }
  theirs: { python: { file: bad.py, interpreter: python4 } }
"#,
        ),
        ("flows/two.yml", "flow: two\ntasks:\n  more: { flow: three }\n"),
        ("flows/three.yml", "flow: three\ntasks:\n  more: { flow: two }\n"),
        ("flows/four.yml", "flow: four\ntasks:\n  more: { flow: four, when: \"false\" }\n"),
        ("sql/bad.sql", "-- all trips\nselect 1,\n  2 3 4\n"),
        ("bad.py", "import os\ndef load(:\n"),
        ("good.py", "from json import dumps\nif True:\n    def load():\n        laod = 1\n"),
        ("star.py", "from os.path import *\n"),
    ]);
    sandbox.write("flumen.yml", "name: test\nconnections:\n  pg: { kind: postgres, host: nowhere }\n");
    let ran = sandbox.sh("flumen check");
    assert_eq!(ran.code, 2);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let begins = [
        "bad.py:2:",
        "flows/one.yml:3:18: task 'inline': 'query', line 1, column 11: there should be an SQL statement, not 'selct'",
        "flows/one.yml:7:17: task 'named': 'query', line 1, column 45: there should be end of statement, not 'x'",
        "flows/one.yml:9:30: task 'each': 'query', line 1, ",
        "flows/one.yml:10:27: task 'rows': 'empty', line 1, ",
        "flows/one.yml:12:19: task 'code': 'code', line 2, column ",
        "flows/one.yml:13:49: task 'missing': there is no function 'laod' in good.py (did you mean 'load'?)",
        "sql/bad.sql:3:5: there should be end of statement, not '3'",
    ];
    assert_eq!(lines.len(), begins.len(), "{}", ran.stdout);
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{begin}: {}", ran.stdout);
    }
    let warning = "flows/three.yml:3:17: task 'more' starts flow 'two', which starts 'three' again: that has no end";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("has no end").count(), 1, "{}", ran.stderr);
    // Without Python the rest is looked at.
    let ran = sandbox.sh("PATH=$(dirname $(command -v flumen)) flumen check one");
    assert!(ran.code == 2 && ran.stderr.contains("Python was not looked at: there is no python3"), "{}", ran.stderr);
    assert!(ran.stdout.contains("sql/bad.sql:3:5") && !ran.stdout.contains("bad.py"), "{}", ran.stdout);
    succeed(&sandbox, "flumen check four");
}

#[test]
fn mistakes_hide_no_others_and_have_their_places() {
    let sandbox = project(&[(
        "flows/one.yml",
        r#"flow: one
params: { list: { type: file, default: nowhere.csv } }
defaults: { retris: 3, timeout: 0s }
tasks:
  key: { shell: x, retris: 3 }
  block:
    sql: |
      select 1,
        {{ prams.x }}, {{ ds | upperr }}
  plain: { sql: "selct 1" }
  code: { python: "return x +" }
  date: { shell: "{{ execution_date.strftime('%Q') }} {{ execution_date.yeer }} {{ macros.ds_ad(ds, 1) }}" }
  field: { shell: "{{ conn.pg.hots }} {{ dag_run.cnf }} {{ ti.xcom_pul('key') }}" }
  many: { for_each: "5", shell: x }
"#,
    )]);
    sandbox.write("flumen.yml", "name: test\nconnections:\n  pg: { kind: postgres, host: nowhere }\n");
    let ran = sandbox.sh("flumen check");
    assert_eq!(ran.code, 2);
    for part in [
        "flows/one.yml:2:40: parameter 'list': there is no file 'nowhere.csv'",
        "flows/one.yml:3:13: unknown key 'retris' in 'defaults' (did you mean 'retries'?)",
        "flows/one.yml:3:33: an attempt with a timeout of 0s would end before it begins",
        "flows/one.yml:5:20: task 'key': unknown key 'retris' (did you mean 'retries'?)",
        "flows/one.yml:9:12: task 'block': templates have no 'prams' (did you mean 'params'?)",
        "task 'block': the template is broken: there is no filter 'upperr': did you mean 'upper'?",
        "task 'plain': 'query', line 1, column 1: there should be an SQL statement, not 'selct'",
        "task 'code': 'code', line 1, column ",
        "task 'date': the template is broken: the format '%Q' has no directive that is known: '%Q'",
        "task 'date': there is no 'yeer' in execution_date (did you mean 'year'?)",
        "task 'date': there is no 'ds_ad' in macros (did you mean 'ds_add'?)",
        "task 'field': connection 'pg' has no field 'hots' (did you mean 'host'?)",
        "task 'field': there is no 'cnf' in dag_run (did you mean 'conf'?)",
        "task 'field': there is no 'xcom_pul' in ti (did you mean 'xcom_pull'?)",
        "task 'many': 5 is no list",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let filter = ran.stdout.lines().find(|line| line.contains("upperr")).unwrap();
    assert!(filter.starts_with("flows/one.yml:9:"), "{filter}");
}
