"""Prints the change feed of a table as deltalake reads it: version, kind, and the columns that are named, a line a row.

    feed.py TABLE FIRST-VERSION COLUMN…
"""

import os
import sys

import deltalake
import pyarrow


def main(table, first, *columns):
    feed = pyarrow.table(deltalake.DeltaTable(table).load_cdf(starting_version=int(first)).read_all())
    rows = [[row["_commit_version"], row["_change_type"], *(row[name] for name in columns)] for row in feed.to_pylist()]
    for row in sorted(rows, key=repr):
        print(",".join(str(value) for value in row))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Done: the libraries' threads are not waited for, of which one crashes now and then while the interpreter ends.
    sys.stdout.flush()
    os._exit(0)
