-- Who may log in. Verifiers stand in place of passwords.
create table users (
    name text not null primary key,
    read_only integer not null,
    created_us integer not null,
    scram text not null,
    web text not null
) strict, without rowid;
