//! A disk that is full: a small one, which only the test sees, in a namespace of its own.

use super::project;

/// Everything happens in here: the disk is not there outside.
const SCRIPT: &str = r#"
set -eu
mkdir small
mount -t tmpfs -o size=16m tmpfs small
cp -r flows flumen.yml small
cd small
touch hold
flumen up --ready-file ready > /dev/null 2> server.log &
server=$!
until [ -e ready ]; do :; done
run=$(flumen run one --detach)
until flumen --json run show $run | grep -q '"state": *"running"'; do :; done
until [ -e begun ]; do :; done
dd if=/dev/zero of=fill bs=4k 2> /dev/null || true
rm hold
until grep -q 'the disk is full' server.log; do :; done
flumen status
flumen why $run
rm fill
until flumen --json run list | grep -q '"state": *"success"'; do :; done
flumen status
flumen run show $run
kill $server
wait $server
grep -c . server.log
"#;

#[test]
fn work_waits_for_room_on_the_disk() {
    let sandbox = project(&[(
        "flows/one.yml",
        "flow: one\ntasks:\n  a: { shell: \"touch $FLUMEN_PROJECT/begun; while [ -e $FLUMEN_PROJECT/hold ]; do sleep 0.05; done\" }\n  \
         b: { needs: [a], shell: \"echo done\" }\n",
    )]);
    sandbox.write("script.sh", SCRIPT);
    // Who is root needs no users of its own.
    let ran = sandbox.sh("unshare -m true 2> /dev/null && way=-m || way=-rm; timeout 600 unshare $way sh script.sh");
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.matches("The disk is full: work waits").count(), 2, "{}", ran.stdout);
    let (full, free) = ran.stdout.split_at(ran.stdout.rfind("server: process").unwrap());
    assert!(full.contains("The run is running"), "{full}");
    assert!(!free.contains("disk is full") && free.matches("success").count() >= 2, "{free}");
    let lines: usize = free.trim().lines().last().unwrap().parse().unwrap();
    assert!(lines < 12, "it is told, not told again and again: {lines}");
}
