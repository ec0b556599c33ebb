"""SQLAlchemy: reflection, queries through the ORM."""

import os

import sqlalchemy as sa
from sqlalchemy import orm

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
print("ok")
