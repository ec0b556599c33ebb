"""psql's completion of names with the tab key, typed into a terminal."""

import os
import pty
import select
import signal
import sys

url = os.environ["FLUMEN_PG"]
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PSQLRC="/dev/null", PAGER="cat", INPUTRC="/dev/null", LC_ALL="C.UTF-8")
    os.execvp("psql", ["psql", "-X", url])
seen = ""


def until(text, typed):
    """Types, and waits until `text` is seen."""
    global seen
    seen = ""
    os.write(terminal, typed.encode())
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        if not ready:
            sys.exit(f"after {typed!r}, {text!r} was not seen, but {seen!r}")
        seen += os.read(terminal, 4096).decode(errors="replace")


until("=# ", "")
until("raw.people", "select * from raw.peo\t")
until("=# ", ";\n")
until("lake", "\\c lak\t")
until("=# ", "\x15\\echo\n")
until("fare", "update raw.people set fa\t")
until("people", "\x15\\d raw.p\t")
until("statement_timeout", "\x15set statement_t\t")
os.write(terminal, b"\x15\\q\n")
_, status = os.waitpid(pid, 0)
if status:
    sys.exit(f"psql ended with {status}")
print("ok")
