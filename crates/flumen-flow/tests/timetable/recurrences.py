#!/usr/bin/env python3
"""Writes recurrences.txt: random rules, each with the first twelve firings that python-dateutil (2.9) finds for it.

    recurrences.py > recurrences.txt

Rules that never fire, that dateutil refuses, or that take it longer than a second and a half are left out; so are WEEKLY rules with
BYSETPOS, whose first week it begins at DTSTART and not, as RFC 5545 says, on the first day of a week.
"""
import random
import signal

from dateutil.rrule import rrulestr

random.seed(5)
DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def some(values, most=3):
    return ",".join(str(v) for v in random.sample(values, random.randint(1, most)))


def rule():
    r = random.random
    freq = random.choice(["YEARLY"] * 3 + ["MONTHLY"] * 3 + ["WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"])
    p = ["FREQ=" + freq]
    if r() < 0.5:
        p.append("INTERVAL=%d" % random.choice([1, 2, 3, 5, 13]))
    if r() < 0.3:
        p.append("BYMONTH=" + some(range(1, 13)))
    if freq == "YEARLY" and r() < 0.2:
        p.append("BYWEEKNO=" + some([1, 2, 20, 52, 53, -1, -2, -53]))
    week = "BYWEEKNO" in p[-1]
    if freq in ("YEARLY", "HOURLY", "MINUTELY", "SECONDLY") and r() < 0.15:
        p.append("BYYEARDAY=" + some([1, 2, 60, 100, 366, -1, -366, 200]))
    if freq != "WEEKLY" and r() < 0.3:
        p.append("BYMONTHDAY=" + some([1, 13, 15, 28, 29, 30, 31, -1, -2, -31]))
    if r() < 0.35:
        counted = freq in ("YEARLY", "MONTHLY") and not week
        n = (lambda: random.choice(["", "", "1", "2", "-1", "5", "-2"])) if counted else (lambda: "")
        p.append("BYDAY=" + ",".join(n() + d for d in random.sample(DAYS, random.randint(1, 3))))
    if r() < 0.25:
        p.append("BYHOUR=" + some(range(0, 24)))
    if r() < 0.25:
        p.append("BYMINUTE=" + some(range(0, 60)))
    if r() < 0.15:
        p.append("BYSECOND=" + some(range(0, 60)))
    if r() < 0.2 and len(p) > 1 and freq != "WEEKLY":
        p.append("BYSETPOS=" + some([1, 2, 3, -1, -2]))
    if r() < 0.3:
        p.append("WKST=" + random.choice(DAYS))
    if r() < 0.2:
        p.append("COUNT=%d" % random.randint(1, 30))
    elif r() < 0.2:
        p.append("UNTIL=20%02d0615T120000" % random.randint(21, 40))
    return ";".join(p)


class TooLong(Exception):
    pass


def too_long(*_):
    raise TooLong


signal.signal(signal.SIGALRM, too_long)
out = []
while len(out) < 400:
    date = (random.randint(18, 21), random.randint(1, 12), random.randint(1, 28))
    clock = (random.randint(0, 23), random.choice([0, 30, 17]), random.choice([0, 0, 5]))
    start = "20%02d%02d%02dT%02d%02d%02d" % (date + clock)
    text = rule()
    got = []
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        for firing in rrulestr("DTSTART:%s\nRRULE:%s" % (start, text)):
            if firing.year >= 2195 or len(got) == 12:
                break
            got.append(firing)
    except (TooLong, ValueError):
        continue
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if got:
        firings = " ".join(firing.strftime("%Y%m%dT%H%M%S") for firing in got)
        out.append("DTSTART:%s RRULE:%s\n    %s%s" % (start, text, firings, "" if len(got) == 12 else " end"))
print("\n".join(out))
