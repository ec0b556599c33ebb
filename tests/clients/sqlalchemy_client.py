"""SQLAlchemy: reflection of tables, keys, views and comments; reading and writing through Core and the ORM."""

import os

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

engine = sa.create_engine(os.environ["FLUMEN_PG"].replace("postgres://", "postgresql+psycopg://"))
inspector = sa.inspect(engine)
assert {"raw", "mart"} <= set(inspector.get_schema_names()), inspector.get_schema_names()
assert inspector.get_table_names(schema="raw") == ["people"], inspector.get_table_names(schema="raw")
assert inspector.get_view_names(schema="raw") == []
columns = {column["name"]: column for column in inspector.get_columns("people", schema="raw")}
assert isinstance(columns["id"]["type"], sa.BigInteger), columns["id"]
assert isinstance(columns["fare"]["type"], sa.Double), columns["fare"]
assert isinstance(columns["at"]["type"], sa.TIMESTAMP) and columns["at"]["nullable"], columns["at"]
assert inspector.get_pk_constraint("people", schema="raw")["constrained_columns"] == []
assert inspector.get_foreign_keys("people", schema="raw") == []
assert inspector.get_indexes("people", schema="raw") == []
assert inspector.has_table("people", schema="raw") and not inspector.has_table("nobody", schema="raw")

metadata = sa.MetaData()
people = sa.Table("people", metadata, schema="raw", autoload_with=engine)
with engine.connect() as connection:
    query = sa.select(people.c.name, sa.func.count().label("n")).where(people.c.id.in_([1, 2])).group_by(people.c.name)
    assert sorted(connection.execute(query).all()) == [("ann", 1), ("bob", 1)]
    assert connection.execute(sa.text("select count(*) from raw.people where name = :name"), {"name": "ann"}).scalar() == 1


class Base(orm.DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    __table_args__ = {"schema": "raw"}
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]


with orm.Session(engine) as session:
    assert session.get(Person, 2).name == "bob"
    first = session.scalars(sa.select(Person).order_by(Person.id.desc()).limit(1)).one()
    assert first.id == 3

metadata = sa.MetaData(schema="shop")
# Numbers are given by whoever inserts: a lake has no sequences.
customers = sa.Table(
    "customers",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(40), nullable=False),
)
sales = sa.Table(
    "sales",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("customer", sa.BigInteger, sa.ForeignKey("shop.customers.id")),
    sa.Column("amount", sa.Numeric(10, 2)),
    sa.Column("at", sa.DateTime),
    sa.UniqueConstraint("customer", "at", name="one_at_a_time"),
    sa.CheckConstraint("amount > 0", name="positive"),
)
# A block writes to one table of the lake, so that several are made without one.
metadata.create_all(engine.execution_options(isolation_level="AUTOCOMMIT"))
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    connection.execute(sa.text("comment on table shop.sales is 'what was sold'"))
    connection.execute(sa.text("comment on column shop.sales.amount is 'in euros'"))
    connection.execute(sa.text("create view shop.large as select id, amount from shop.sales where amount > 100"))

inspector = sa.inspect(engine)
assert sorted(inspector.get_table_names(schema="shop")) == ["customers", "orders", "sales"]
assert inspector.get_view_names(schema="shop") == ["large"]
assert "amount > 100" in inspector.get_view_definition("large", schema="shop")
assert [column["name"] for column in inspector.get_columns("large", schema="shop")] == ["id", "amount"]
assert inspector.get_pk_constraint("sales", schema="shop")["constrained_columns"] == ["id"]
[key] = inspector.get_foreign_keys("sales", schema="shop")
found = (key["constrained_columns"], key["referred_schema"], key["referred_table"], key["referred_columns"])
assert found == (["customer"], "shop", "customers", ["id"]), key
[unique] = inspector.get_unique_constraints("sales", schema="shop")
assert (unique["name"], unique["column_names"]) == ("one_at_a_time", ["customer", "at"]), unique
[check] = inspector.get_check_constraints("sales", schema="shop")
assert (check["name"], check["sqltext"]) == ("positive", "amount > 0"), check
assert inspector.get_table_comment("sales", schema="shop") == {"text": "what was sold"}
comments = {column["name"]: column["comment"] for column in inspector.get_columns("sales", schema="shop")}
assert comments["amount"] == "in euros" and comments["id"] is None, comments


class Customer(Base):
    __table__ = customers


with orm.Session(engine) as session:
    session.add_all([Customer(id=1, name="ann"), Customer(id=2, name="bob")])
    session.commit()
    assert session.scalars(sa.select(Customer.name).order_by(Customer.id)).all() == ["ann", "bob"]
    session.get(Customer, 2).name = "rob"
    session.flush()
    with session.begin_nested() as nested:
        session.add(Customer(id=3, name="eve"))
        session.flush()
        nested.rollback()
    session.commit()
    session.delete(session.get(Customer, 1))
    session.flush()
    assert session.query(Customer).count() == 1
    session.rollback()
    assert [(c.id, c.name) for c in session.query(Customer).order_by(Customer.id)] == [(1, "ann"), (2, "rob")]

with engine.begin() as connection:
    rows = [{"id": n, "customer": 1, "amount": n * 50, "at": None} for n in range(1, 5)]
    connection.execute(sales.insert(), rows)
    assert connection.execute(sales.update().where(sales.c.id == 4).values(amount=500)).rowcount == 1
    assert connection.execute(sales.delete().where(sales.c.id == 1)).rowcount == 1
with engine.connect() as connection:
    assert connection.execute(sa.text("select id from shop.large order by id")).scalars().all() == [3, 4]
    # Two tables in one block are refused, with the remedy.
    connection.execute(customers.delete())
    try:
        connection.execute(sales.delete())
        raise AssertionError("it was not refused")
    except sa.exc.DBAPIError as error:
        assert "cannot write to" in str(error), error
    connection.rollback()
    assert connection.execute(sa.select(sa.func.count()).select_from(customers)).scalar() == 2

# Keys that nobody gives, defaults of the server, and rows whose key is there.


class Note(Base):
    __tablename__ = "notes"
    __table_args__ = {"schema": "shop"}
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column(sa.String(80), index=True)
    state: orm.Mapped[str] = orm.mapped_column(server_default="new")


plain = engine.execution_options(isolation_level="AUTOCOMMIT")
Base.metadata.create_all(plain, tables=[Note.__table__])
with orm.Session(engine) as session:
    notes = [Note(text=f"note {n}") for n in range(30)]
    session.add_all(notes)
    session.flush()
    assert [note.id for note in notes] == list(range(1, 31)), [note.id for note in notes]
    assert {note.state for note in notes} == {"new"}
    session.commit()
    assert session.get(Note, 7).text == "note 6"
    assert session.scalar(sa.select(sa.exists().where(Note.id == 30)))
with engine.begin() as connection:
    insert = postgresql.insert(Note.__table__)
    insert = insert.on_conflict_do_update(index_elements=["id"], set_={"text": insert.excluded.text})
    written = connection.execute(insert.returning(Note.id, Note.text), [{"id": 30, "text": "last"}]).all()
    assert written == [(30, "last")], written
    gone = sa.delete(Note.__table__).where(Note.__table__.c.id > 28).returning(Note.__table__.c.id)
    assert sorted(connection.execute(gone).scalars()) == [29, 30]
columns = {column["name"]: column for column in sa.inspect(engine).get_columns("notes", schema="shop")}
assert columns["id"]["autoincrement"] and columns["state"]["default"] == "'new'", columns
Base.metadata.drop_all(plain, tables=[Note.__table__])

metadata.drop_all(engine.execution_options(isolation_level="AUTOCOMMIT"))
assert sa.inspect(engine).get_table_names(schema="shop") == ["orders"]
print("ok")
