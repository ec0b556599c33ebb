-- Variables of templates.
create table variables (name text primary key, value text not null) without rowid;

-- Runs whose tasks are given to one worker only. A run may be kept before it is there.
create table kept_runs (run blob primary key, worker text not null) without rowid;
create index kept_runs_worker on kept_runs (worker);
