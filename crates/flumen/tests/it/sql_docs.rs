//! Every example of `docs/sql.md` is run, in order, in one project. A block of SQL is followed by what it prints, in a block of
//! text, or just has to succeed. `UPDATE_EXPECT=1` writes the blocks of text anew; read them before you commit.

use std::path::Path;

use crate::sandbox::Sandbox;

const TRIPS: &str = "VendorID,zone,fare,day\n1,Soho,1.5,2026-01-01\n2,,22.25,2026-01-02\n1,Harlem,3,2026-01-02\n";

#[test]
fn examples_of_the_page_on_sql_do_what_it_says() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.sh("flumen init .").code, 0);
    sandbox.write("trips.csv", TRIPS);
    assert_eq!(sandbox.sh("flumen ingest trips.csv --to lake.raw.trips").code, 0);
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/sql.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (got, failed) = replay(&page, &sandbox);
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &got).unwrap();
    } else {
        assert!(got == page, "docs/sql.md differs.\n--- got\n{got}");
    }
}

/// The page with what its examples print now, and the examples that fail where the page does not say so.
fn replay(page: &str, sandbox: &Sandbox) -> (String, Vec<String>) {
    let (mut got, mut failed) = (Vec::new(), Vec::new());
    let mut lines = page.lines().peekable();
    let mut printed = None;
    while let Some(line) = lines.next() {
        got.push(line.to_owned());
        if line != "```sql" && line != "```text" {
            // What was printed is told right behind the example, or not at all.
            if !line.is_empty() {
                printed = None;
            }
            continue;
        }
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| *line != "```") {
            block.push(line);
        }
        if line == "```text" {
            match printed.take() {
                Some(text) => got.push(text),
                None => got.extend(block.iter().map(|line| (*line).to_owned())),
            }
        } else {
            got.extend(block.iter().map(|line| (*line).to_owned()));
            let ran = sandbox.flumen(["sql", &block.join("\n")]);
            // What is answered, else what was done; what went wrong.
            let text = match (ran.code, ran.stdout.is_empty(), ran.stderr.find("error: ")) {
                (0, false, _) => ran.stdout,
                (0, true, _) | (_, _, None) => ran.stderr,
                (_, _, Some(place)) => ran.stderr[place..].to_owned(),
            };
            let text: Vec<&str> = text.lines().map(str::trim_end).collect();
            let mut behind = lines.clone().skip(1);
            let told = behind.next() == Some("")
                && behind.next() == Some("```text")
                && behind.take_while(|line| *line != "```").any(|line| line.starts_with("error: "));
            if (ran.code != 0) != told {
                failed.push(format!("{}\n{}", block.join("\n"), text.join("\n")));
            }
            printed = Some(text.join("\n"));
        }
        got.extend(lines.next().map(str::to_owned));
        if line == "```text" {
            printed = None;
        }
    }
    (got.join("\n") + "\n", failed)
}
