-- Runs and everything around them. Times are microseconds since 1970; bodies are JSON.

create table runs (
    seq integer primary key autoincrement,
    id blob not null unique,
    flow text not null,
    -- Empty where the run belongs to no deployment.
    deployment text not null,
    version text not null,
    start_us integer not null,
    state text not null,
    ended_us integer,
    -- A text of which there is one run of a flow and deployment.
    only_text text,
    -- The backfill to which it belongs.
    backfill text,
    -- How many commits there were.
    step integer not null default 0,
    -- The oldest letter in its inbox.
    pending integer,
    -- Until when a scheduler has it.
    taken_us integer,
    body text not null
);
create unique index runs_only on runs (flow, deployment, only_text) where only_text is not null;
create index runs_line on runs (flow, deployment, start_us, seq);
create index runs_state on runs (state, flow);
create index runs_ended on runs (ended_us) where ended_us is not null;
create index runs_pending on runs (pending) where pending is not null;
create index runs_backfill on runs (backfill, seq) where backfill is not null;
create index runs_version on runs (version);

create table tasks (
    run integer not null,
    key text not null,
    state text not null,
    body text not null,
    primary key (run, key)
) without rowid;

create table events (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
create index events_run on events (run, id);

create table letters (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
create index letters_run on letters (run, id);

-- What waits for a worker: by priority, then by turns, then by age.
create table queue (
    id integer primary key autoincrement,
    run integer not null,
    key text not null,
    pool text not null,
    priority integer not null,
    turn integer not null,
    body text not null,
    unique (run, key)
);
create index queue_order on queue (pool, priority desc, turn, id);
create index queue_tail on queue (run, pool, priority, turn);

create table leases (
    run integer not null,
    key text not null,
    number integer not null,
    worker text not null,
    expires_us integer not null,
    pool text not null,
    slots integer not null,
    -- Why its holder is to stop.
    stop text,
    primary key (run, key)
) without rowid;
create index leases_expires on leases (expires_us);
create index leases_worker on leases (worker);
create index leases_pool on leases (pool, slots);

create table timers (
    run integer not null,
    timer text not null,
    at_us integer not null,
    primary key (run, timer)
) without rowid;
create index timers_at on timers (at_us);

create table waits (
    id integer primary key autoincrement,
    run integer not null,
    key text not null,
    number integer not null,
    body text not null,
    unique (run, key)
);

create table notices (
    id integer primary key autoincrement,
    run integer not null,
    held_us integer,
    body text not null
);
create index notices_run on notices (run);

create table touched (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
create index touched_run on touched (run);

create table cursors (name text primary key, value text not null) without rowid;
create table backfills (id text primary key, created_us integer not null, body text not null) without rowid;
create table versions (hash text primary key, flow text not null, saved_us integer not null, content blob not null);
create table paused (flow text primary key) without rowid;
create table pools (
    name text primary key,
    slots integer,
    rate_count integer,
    rate_us integer,
    -- When the next task run would begin if they came evenly.
    even_us integer
) without rowid;
create table workers (id text primary key, seen_us integer not null, body text not null) without rowid;
-- The number of the last lease.
create table numbers (last integer not null);
insert into numbers values (0);
