-- Users, runs and everything around them. Times are microseconds since 1970; bodies are JSON, as text that nothing here reads.
-- Names sort by their bytes.

create table users (
    name text collate "C" primary key,
    read_only boolean not null,
    created_us bigint not null,
    scram text not null,
    web text not null
);

create table runs (
    seq bigint generated always as identity primary key,
    id uuid not null unique,
    flow text collate "C" not null,
    -- Empty where the run belongs to no deployment.
    deployment text collate "C" not null,
    version text collate "C" not null,
    start_us bigint not null,
    state text not null,
    ended_us bigint,
    -- A text of which there is one run of a flow and deployment.
    only_text text collate "C",
    -- The backfill to which it belongs.
    backfill text collate "C",
    -- Whether it was told to begin.
    begun boolean not null,
    -- How many commits there were.
    step bigint not null default 0,
    body text not null
) with (fillfactor = 70);
create unique index runs_only on runs (flow, deployment, only_text) where only_text is not null;
create index runs_line on runs (flow, deployment, start_us, seq);
create index runs_state on runs (state, flow);
create index runs_open on runs (flow, begun, seq) where ended_us is null;
create index runs_ended on runs (ended_us) where ended_us is not null;
create index runs_backfill on runs (backfill, seq) where backfill is not null;
create index runs_version on runs (version);

create table tasks (
    run bigint not null,
    key text collate "C" not null,
    state text not null,
    body text not null,
    primary key (run, key)
) with (fillfactor = 80);

create table events (
    id bigint generated always as identity,
    run bigint not null,
    body text not null,
    primary key (run, id)
);

create table letters (
    id bigint generated always as identity,
    run bigint not null,
    body text not null,
    primary key (run, id)
);

-- The runs that have letters. Whoever posts one locks the row, and so does whoever reads some: either the reader sees the letter,
-- or the row is made anew after the reader has removed it.
create table inboxes (
    run bigint primary key,
    -- The oldest letter.
    first bigint not null,
    -- Until when a scheduler has the run.
    taken_us bigint
) with (fillfactor = 50);
create index inboxes_first on inboxes (first);

-- What waits for a worker: by priority, then by turns, then by age.
create table queue (
    id bigint generated always as identity primary key,
    run bigint not null,
    key text collate "C" not null,
    pool text collate "C" not null,
    priority int not null,
    turn bigint not null,
    slots bigint not null,
    body text not null,
    unique (run, key)
);
create index queue_order on queue (pool, priority desc, turn, id);
create index queue_tail on queue (pool, priority, run, turn);

create table leases (
    run bigint not null,
    key text collate "C" not null,
    number bigint not null,
    worker text collate "C" not null,
    expires_us bigint not null,
    pool text collate "C" not null,
    slots bigint not null,
    -- Why its holder is to stop.
    stop text,
    primary key (run, key)
);
create index leases_expires on leases (expires_us);
create index leases_worker on leases (worker);
create index leases_pool on leases (pool, slots);

create table timers (
    run bigint not null,
    timer text collate "C" not null,
    at_us bigint not null,
    -- What the run is told when it rings.
    letter text not null,
    primary key (run, timer)
);
create index timers_at on timers (at_us);

create table waits (
    id bigint generated always as identity primary key,
    run bigint not null,
    key text collate "C" not null,
    number bigint not null,
    body text not null,
    unique (run, key)
);

create table notices (
    id bigint generated always as identity primary key,
    run bigint not null,
    held_us bigint,
    body text not null
);
create index notices_run on notices (run);

create table touched (
    id bigint generated always as identity primary key,
    run bigint not null,
    body text not null
);
create index touched_run on touched (run);

create table cursors (name text collate "C" primary key, value text not null);
create table backfills (id text collate "C" primary key, created_us bigint not null, body text not null);
create table versions (
    hash text collate "C" primary key,
    flow text collate "C" not null,
    saved_us bigint not null,
    content bytea not null
);
create table paused (flow text collate "C" primary key);
create table pools (
    name text collate "C" primary key,
    slots bigint,
    rate_count bigint,
    rate_us bigint,
    -- When the next task run would begin if they came evenly.
    even_us bigint
);
create table workers (id text collate "C" primary key, seen_us bigint not null, body text not null);
-- The number of the last lease.
create table numbers (last bigint not null);
insert into numbers values (0);

-- Rows come and go in these all the time: what they leave behind is to be swept soon.
alter table letters set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
alter table inboxes set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
alter table queue set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
alter table leases set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
alter table timers set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
