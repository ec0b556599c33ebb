"""psycopg 3: both protocols, parameters, server-side cursors, COPY both ways, pipelines, cancel."""

import datetime
import decimal
import os

import psycopg
from psycopg import sql

dsn = os.environ["FLUMEN_PG"]

with psycopg.connect(dsn) as connection:
    row = connection.execute("select id, name, fare, day, at, ok from raw.people where id = %s", (2,)).fetchone()
    assert row == (2, "bob", 2.25, datetime.date(2019, 1, 2), datetime.datetime(2019, 1, 2, 11, 30, 0, 500000), False), row
    # Parameters of every kind, in both formats.
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute(
                "select %s::int, %s, %s::float, %s::date, %s::bool, %s::numeric(10,2)",
                (7, "it's", 1.5, datetime.date(2020, 2, 29), True, decimal.Decimal("12.30")),
            )
            got = cursor.fetchone()
            assert got == (7, "it's", 1.5, datetime.date(2020, 2, 29), True, decimal.Decimal("12.30")), got
            cursor.execute("select name from raw.people where day = %s and name = %s", (datetime.date(2019, 1, 1), "ann"))
            assert cursor.fetchall() == [("ann",)]
            cursor.execute("select name from raw.people where id = any(%s) order by id", ([1, 2],))
            assert cursor.fetchall() == [("ann",), ("bob",)]
    # A server-side cursor.
    with connection.cursor(name="people") as cursor:
        cursor.itersize = 2
        cursor.execute("select id from raw.people order by id")
        assert [row[0] for row in cursor] == [1, 2, 3]
    # COPY out.
    with connection.cursor().copy("copy (select id, name from raw.people order by id) to stdout") as copy:
        assert list(copy.rows()) == [("1", "ann"), ("2", "bob"), ("3", None)]
    with connection.cursor().copy("copy (select id, name from raw.people order by id) to stdout (format binary)") as copy:
        copy.set_types(["int8", "text"])
        assert list(copy.rows()) == [(1, "ann"), (2, "bob"), (3, None)]
    # A failed statement spoils the block, and a rollback mends it.
    try:
        connection.execute("select nope from raw.people")
        raise AssertionError("it was not refused")
    except psycopg.errors.UndefinedColumn:
        pass
    try:
        connection.execute("select 1")
        raise AssertionError("the block goes on")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    connection.rollback()
    assert connection.execute("select 1").fetchone() == (1,)

with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("create temporary table t as select cast(null as bigint) as a, cast(null as varchar) as b, cast(null as date) as c limit 0")
    with connection.cursor().copy("copy t (a, b, c) from stdin") as copy:
        for row in [(1, "one\ttab", datetime.date(2019, 1, 1)), (2, None, None)]:
            copy.write_row(row)
    with connection.cursor().copy("copy t (a, b) from stdin (format binary)") as copy:
        copy.set_types(["int8", "text"])
        copy.write_row((3, "drei"))
    with connection.cursor().copy("copy t from stdin (format csv, header)") as copy:
        copy.write('a,b,c\n4,"x, ""y""",2020-01-01\n')
    rows = connection.execute("select a, b, c from t order by a").fetchall()
    assert rows == [
        (1, "one\ttab", datetime.date(2019, 1, 1)),
        (2, None, None),
        (3, "drei", None),
        (4, 'x, "y"', datetime.date(2020, 1, 1)),
    ], rows
    try:
        with connection.cursor().copy("copy t (a) from stdin") as copy:
            copy.write("5\nfive\n")
        raise AssertionError("it was not refused")
    except psycopg.Error as error:
        assert "line 2, column a" in str(error), error
    assert connection.execute("select count(*) from t").fetchone() == (4,)
    with connection.pipeline():
        one = connection.execute("select 1")
        two = connection.execute("select 2")
        assert (one.fetchone(), two.fetchone()) == ((1,), (2,))
    # Arrays go in and out in every form, and what goes out comes in again.
    lists = "id bigint, i int[], b bigint[], f double[], n numeric(10, 2)[], t text[], ok boolean[], d date[], at timestamp[]"
    types = ["int8", "int4[]", "int8[]", "float8[]", "numeric[]", "text[]", "bool[]", "date[]", "timestamp[]"]
    words = ["plain", "a,b", 'say "hi"', "back\\slash", "tab\tline\n", "{x}", "NULL", "", " ", None]
    day, at = datetime.date(2020, 2, 29), datetime.datetime(2020, 2, 29, 23, 59, 59, 125000)
    full = (1, [1, -2, None], [1 << 40], [1.5, -0.25, None], [decimal.Decimal("12.30"), None], words, [True, False, None], [day, None], [at, None])
    rows = [full, (2, [], [], [], [], [], [], [], []), (3, None, None, None, None, None, None, None, None)]
    connection.execute(f"create table arrays.lists ({lists})")
    connection.execute(f"create table arrays.again ({lists})")
    for form in ("text", "csv", "binary"):
        connection.execute("truncate arrays.lists")
        connection.execute("truncate arrays.again")
        with connection.cursor() as cursor:
            if form == "csv":
                with cursor.copy("copy arrays.lists from stdin") as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                with cursor.copy(f"copy arrays.lists from stdin (format {form})") as copy:
                    copy.set_types(types)
                    for row in rows:
                        copy.write_row(row)
            got = cursor.execute("select * from arrays.lists order by id").fetchall()
            assert got == rows, (form, got)
            with cursor.copy(f"copy arrays.lists to stdout (format {form})") as copy:
                data = b"".join(bytes(piece) for piece in copy)
            with cursor.copy(f"copy arrays.again from stdin (format {form})") as copy:
                copy.write(data)
            got = cursor.execute("select * from arrays.again order by id").fetchall()
            assert got == rows, (form, got)
    try:
        with connection.cursor().copy("copy arrays.again (id, i) from stdin") as copy:
            copy.write("7\t{1,x}\n")
        raise AssertionError("it was not refused")
    except psycopg.Error as error:
        assert 'line 1, column i: "x" is no int4' in str(error), error
    # Tables of the lake: what is written there is there for the next session.
    connection.execute("create table shop.orders (id bigint primary key, what text, price numeric(8, 2) check (price >= 0))")
    with connection.cursor() as cursor:
        cursor.executemany("insert into shop.orders values (%s, %s, %s)", [(1, "tea", 2), (2, "cup", decimal.Decimal("3.5"))])
        assert cursor.rowcount == 2, cursor.rowcount
        with cursor.copy("copy shop.orders (id, what) from stdin") as copy:
            copy.write_row((3, None))
        assert cursor.rowcount == 1, cursor.rowcount
        assert cursor.execute("update shop.orders set price = 9 where id = %s", (3,)).rowcount == 1
        assert cursor.execute("delete from shop.orders where price > %s", (100,)).rowcount == 0
        merge = "merge into shop.orders t using (values (2, 4.0), (4, 5.0)) as s(id, price) on t.id = s.id"
        merge += " when matched then update set price = s.price when not matched then insert (id, price) values (s.id, s.price)"
        assert cursor.execute(merge).rowcount == 2
        assert cursor.statusmessage == "MERGE 2", cursor.statusmessage
    try:
        connection.execute("insert into shop.orders values (9, 'x', -1)")
        raise AssertionError("it was not refused")
    except psycopg.errors.CheckViolation:
        pass
    connection.execute("create table arrays.strict (id bigint not null)")
    try:
        connection.execute("insert into arrays.strict values (null)")
        raise AssertionError("it was not refused")
    except psycopg.errors.NotNullViolation:
        pass
    connection.execute(sql.SQL("set statement_timeout = {}").format(sql.Literal("60s")))
    assert connection.execute("show statement_timeout").fetchone() == ("60000",)

with psycopg.connect(dsn) as connection:
    prices = "select id, price from shop.orders order by id"
    before = [(1, decimal.Decimal("2.00")), (2, decimal.Decimal("4.00")), (3, decimal.Decimal("9.00")), (4, decimal.Decimal("5.00"))]
    assert connection.execute(prices).fetchall() == before
    # What a block wrote is seen in it, and gone when it is rolled back.
    connection.execute("delete from shop.orders where id < 4")
    assert connection.execute("select count(*) from shop.orders").fetchone() == (1,)
    with psycopg.connect(dsn) as other:
        assert other.execute("select count(*) from shop.orders").fetchone() == (4,)
    connection.rollback()
    assert connection.execute(prices).fetchall() == before
    # A part of it, too; and a statement that failed need not spoil the whole.
    connection.execute("insert into shop.orders (id) values (5)")
    try:
        with connection.transaction():
            connection.execute("update shop.orders set what = 'all'")
            connection.execute("insert into shop.orders values (9, 'x', -1)")
        raise AssertionError("it was not refused")
    except psycopg.errors.CheckViolation:
        pass
    with connection.transaction():
        connection.execute("insert into shop.orders (id) values (6)")
    connection.commit()
    assert connection.execute("select count(*), count(*) filter (where what = 'all') from shop.orders").fetchone() == (6, 0)
    # A second table in a block.
    connection.rollback()
    connection.execute("insert into shop.orders (id) values (7)")
    try:
        connection.execute("insert into arrays.strict values (1)")
        raise AssertionError("it was not refused")
    except psycopg.errors.FeatureNotSupported:
        pass
    # A block that only reads.
    connection.rollback()
    connection.read_only = True
    try:
        connection.execute("delete from shop.orders")
        raise AssertionError("it was not refused")
    except psycopg.errors.ReadOnlySqlTransaction:
        pass

# Points in time are shown in the zone of the session, and are the same.
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("create table arrays.times (id bigint, at timestamptz)")
    moment = datetime.datetime(2020, 7, 1, 0, 30, tzinfo=datetime.timezone.utc)
    connection.execute("insert into arrays.times values (1, %s)", (moment,))
    raw = "copy arrays.times (at) to stdout"
    for zone, text, iso in (("UTC", "2020-07-01 00:30:00+00", "+00:00"), ("Europe/Berlin", "2020-07-01 02:30:00+02", "+02:00"), ("America/St_Johns", "2020-06-30 22:00:00-02:30", "-02:30")):
        connection.execute(sql.SQL("set timezone = {}").format(sql.Literal(zone)))
        assert connection.execute("show timezone").fetchone() == (zone,)
        got = connection.execute("select at from arrays.times").fetchone()
        assert got == (moment,) and got[0].isoformat().endswith(iso), got
        with connection.cursor().copy(raw) as copy:
            assert b"".join(bytes(piece) for piece in copy) == text.encode() + b"\n"
        with connection.cursor(binary=True) as cursor:
            assert cursor.execute("select at from arrays.times").fetchone() == (moment,)
    connection.execute("set timezone = 'Europe/Berlin'")
    # What has no offset is meant in it, also in new tables.
    connection.execute("insert into arrays.times values (2, timestamptz '2020-01-01 12:00:00')")
    noon = datetime.datetime(2020, 1, 1, 11, 0, tzinfo=datetime.timezone.utc)
    assert connection.execute("select at from arrays.times where id = 2").fetchone() == (noon,)
    connection.execute("create table arrays.later (at timestamptz)")
    connection.execute("insert into arrays.later select at from arrays.times where id = 2")
    with connection.cursor().copy("copy arrays.later from stdin") as copy:
        copy.write("2020-01-01 12:00:00+01\n2020-01-01 12:00:00\n")
    connection.execute("insert into arrays.later values (%s::timestamptz)", ("2020-01-01 12:00:00",))
    assert connection.execute("select at from arrays.later").fetchall() == [(noon,)] * 4
    try:
        connection.execute("set timezone = 'Europe/Nowhere'")
        raise AssertionError("it was not refused")
    except psycopg.errors.InvalidParameterValue:
        pass
    # A block that is rolled back takes its zone along.
    with connection.transaction(force_rollback=True):
        connection.execute("set timezone = 'Asia/Kolkata'")
        assert connection.execute("select at from arrays.later limit 1").fetchone()[0].isoformat().endswith("+05:30")
    assert connection.execute("select at from arrays.later limit 1").fetchone()[0].isoformat().endswith("+01:00")
with psycopg.connect(dsn, autocommit=True, options="-c timezone=America/New_York") as connection:
    assert connection.execute("select at from arrays.later limit 1").fetchone()[0].isoformat().endswith("-05:00")
print("ok")
