
CREATE SCHEMA flumen;

CREATE FUNCTION flumen.claim_rows(p_worker text, p_pools text[], p_only uuid[], p_limit bigint, p_now bigint, p_expires bigint, p_letter jsonb, p_channel text) RETURNS TABLE(number bigint, queued text, run text, again_us bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    v_pools text[];
    v_only bigint[];
    -- What each pool allows, by its place in v_pools.
    v_free bigint[];
    v_all bigint[];
    v_span bigint[];
    v_share bigint[];
    v_even bigint[];
    v_shut boolean[];
    v_ids bigint[];
    v_seen bigint;
    v_row record;
    v_place int;
    v_slots bigint;
    v_again bigint;
    v_number bigint;
    -- What is taken.
    v_taken bigint[] := '{}';
    v_widths bigint[] := '{}';
    v_runs bigint[] := '{}';
    v_keys text[] := '{}';
    v_names text[] := '{}';
    v_bodies text[] := '{}';
begin
    if cardinality(p_pools) > 0 then
        select array_agg(pool order by pool) into v_pools
            from (select distinct unnest(p_pools) as pool) as wanted
            where (select true from queue where queue.pool = wanted.pool limit 1);
    else
        with recursive used as (
            (select pool from queue order by pool limit 1)
            union all
            select (select queue.pool from queue where queue.pool > used.pool order by queue.pool limit 1)
                from used where used.pool is not null
        )
        select array_agg(pool order by pool) into v_pools from used where pool is not null;
    end if;
    if v_pools is null or p_limit <= 0 then
        return;
    end if;
    if cardinality(p_only) > 0 then
        select coalesce(array_agg(seq), '{}') into v_only from runs where id = any(p_only);
    end if;
    -- Claims come one after another. That keeps slots, rates and numbers right, and none takes long.
    perform in_turn('claim');
    select array_agg(pools.slots - (
                select coalesce(sum(leases.slots), 0) from leases where leases.pool = name and pools.slots is not null
            ) order by place),
            array_agg(pools.slots order by place),
            array_agg(rate_us order by place),
            array_agg(rate_us / greatest(rate_count, 1) order by place),
            array_agg(even_us order by place),
            array_agg(coalesce(pools.slots = 0, false) order by place)
        into v_free, v_all, v_span, v_share, v_even, v_shut
        from unnest(v_pools) with ordinality as wanted (name, place) left join pools using (name);
    loop
        if v_only is null then
            select array_agg(first.id) into v_ids from unnest(v_pools) as wanted (name), lateral (
                select id from queue where pool = name and not id = any(v_taken)
                    order by priority desc, turn, id limit p_limit
            ) as first;
        else
            select array_agg(first.id) into v_ids from unnest(v_pools) as wanted (name), lateral (
                select id from queue where run = any(v_only) and pool = name and not id = any(v_taken)
                    order by priority desc, turn, id limit p_limit
            ) as first;
        end if;
        exit when v_ids is null;
        -- One that leaves the queue unclaimed is waited for.
        perform from queue where id = any(v_ids) order by id for update;
        get diagnostics v_seen = row_count;
        for v_row in
            select id, run, key, pool, slots, body from queue where id = any(v_ids) order by priority desc, turn, id
        loop
            exit when cardinality(v_taken) >= p_limit;
            v_place := array_position(v_pools, v_row.pool);
            continue when v_shut[v_place];
            -- One that wants more than there is gets all.
            v_slots := least(v_row.slots, coalesce(v_all[v_place], v_row.slots));
            if v_slots > v_free[v_place] then
                v_shut[v_place] := true;
                continue;
            end if;
            if v_even[v_place] - (v_span[v_place] - v_share[v_place]) > p_now then
                v_shut[v_place] := true;
                v_again := least(v_again, v_even[v_place] - (v_span[v_place] - v_share[v_place]));
                continue;
            end if;
            v_free[v_place] := v_free[v_place] - v_slots;
            if v_share[v_place] is not null then
                v_even[v_place] := greatest(v_even[v_place], p_now) + v_share[v_place];
            end if;
            v_taken := v_taken || v_row.id;
            v_widths := v_widths || v_slots;
            v_runs := v_runs || v_row.run;
            v_keys := v_keys || v_row.key;
            v_names := v_names || v_row.pool;
            v_bodies := v_bodies || v_row.body;
        end loop;
        -- In the place of those that have left come others.
        exit when v_seen = cardinality(v_ids) or cardinality(v_taken) >= p_limit;
    end loop;
    if cardinality(v_taken) > 0 then
        update pools set even_us = v_even[array_position(v_pools, name)]
            where name = any(v_pools) and even_us is distinct from v_even[array_position(v_pools, name)];
        -- Time is the floor, so that a store that was lost and made anew still gives greater numbers.
        update numbers set last = greatest(
                last + 1, p_now, (extract(epoch from clock_timestamp()) * 1000000)::bigint
            ) + cardinality(v_taken) - 1
            returning last - cardinality(v_taken) into v_number;
        insert into leases (run, key, number, worker, expires_us, pool, slots)
            select run, key, v_number + place, p_worker, p_expires, pool, width
            from unnest(v_runs, v_keys, v_names, v_widths) with ordinality as taken (run, key, pool, width, place);
        delete from queue where id = any(v_taken);
        perform post(v_runs, array(
            select (p_letter || jsonb_build_object('key', key, 'number', v_number + place))::text
            from unnest(v_keys) with ordinality as taken (key, place) order by place
        ));
        perform pg_notify(p_channel, 'i');
        return query select v_number + place, body, (select runs.body from runs where seq = run), null::bigint
            from unnest(v_runs, v_bodies) with ordinality as taken (run, body, place) order by place;
    end if;
    if v_again is not null then
        return query select null::bigint, null::text, null::text, v_again;
    end if;
end $$;

CREATE FUNCTION flumen.commit_step(p_run uuid, p_step bigint, p_state text, p_ended bigint, p_version text, p_body text, p_read bigint[], p_task_keys text[], p_task_states text[], p_task_bodies text[], p_events text[], p_dequeue text[], p_keys text[], p_pools text[], p_priorities integer[], p_slots bigint[], p_queued text[], p_timers text[], p_timer_times bigint[], p_timer_letters text[], p_stop_keys text[], p_stop_numbers bigint[], p_stop_causes text[], p_wait_keys text[], p_wait_numbers bigint[], p_wait_bodies text[], p_notices text[], p_touched text[], p_next text[], p_channel text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    v_run bigint;
    v_next bigint;
    v_key text;
    v_count bigint;
    v_wakes text := 'r';
begin
    update runs set step = step + 1, state = p_state, ended_us = p_ended, version = p_version, body = p_body
        where id = p_run and step = p_step returning seq into v_run;
    if not found then
        if exists (select from runs where id = p_run) then
            raise exception 'changed' using errcode = 'FL409';
        end if;
        raise exception 'missing' using errcode = 'FL404';
    end if;
    if cardinality(p_task_keys) > 0 then
        insert into tasks (run, key, state, body)
            select v_run, key, state, body from unnest(p_task_keys, p_task_states, p_task_bodies) as given (key, state, body)
            on conflict (run, key) do update set state = excluded.state, body = excluded.body;
    end if;
    if cardinality(p_events) > 0 then
        insert into events (run, body)
            select v_run, body from unnest(p_events) with ordinality as given (body, place) order by place;
    end if;
    if cardinality(p_dequeue) > 0 then
        perform from queue where run = v_run and key = any(p_dequeue) order by id for update;
        delete from queue where run = v_run and key = any(p_dequeue);
        get diagnostics v_count = row_count;
        if v_count <> cardinality(p_dequeue) then
            raise exception 'claimed' using errcode = 'FL409';
        end if;
    end if;
    if cardinality(p_keys) > 0 then
        select key into v_key from (
            select key from queue where run = v_run and key = any(p_keys)
            union all select key from leases where run = v_run and key = any(p_keys)
        ) as there limit 1;
        if found then
            raise exception '%', v_key using errcode = 'FL500';
        end if;
        with given as (
            select * from unnest(p_keys, p_pools, p_priorities, p_slots, p_queued)
                with ordinality as given (key, pool, priority, slots, body, place)
        ), lines as materialized (
            -- A row's turn is one after that of its run's last row, and never before the first that still waits.
            select pool, priority, greatest(
                coalesce((select turn from queue where queue.pool = line.pool and queue.priority = line.priority
                    order by turn limit 1), 0),
                coalesce((select turn + 1 from queue where queue.run = v_run and queue.pool = line.pool
                    and queue.priority = line.priority order by turn desc limit 1), 0)
            ) as turn from (select distinct pool, priority from given) as line
        )
        insert into queue (run, key, pool, priority, slots, turn, body)
            select v_run, key, given.pool, given.priority, slots,
                lines.turn + row_number() over (partition by given.pool, given.priority order by place) - 1, body
            from given join lines on lines.pool = given.pool and lines.priority = given.priority order by place;
        v_wakes := v_wakes || 'q';
    end if;
    if cardinality(p_timers) > 0 then
        delete from timers using unnest(p_timers, p_timer_times) as given (timer, at_us)
            where timers.run = v_run and timers.timer = given.timer and given.at_us is null;
        insert into timers (run, timer, at_us, letter)
            select v_run, timer, at_us, letter from unnest(p_timers, p_timer_times, p_timer_letters) as given (timer, at_us, letter)
            where at_us is not null order by timer
            on conflict (run, timer) do update set at_us = excluded.at_us, letter = excluded.letter;
        if (select min(at_us) from timers) >= (select min(at_us) from unnest(p_timer_times) as given (at_us)) then
            v_wakes := v_wakes || 't';
        end if;
    end if;
    if cardinality(p_stop_keys) > 0 then
        perform from leases where run = v_run and key = any(p_stop_keys) order by key for update;
        update leases set stop = given.cause
            from unnest(p_stop_keys, p_stop_numbers, p_stop_causes) as given (key, number, cause)
            where leases.run = v_run and leases.key = given.key and leases.number = given.number;
        if found then
            v_wakes := v_wakes || 's';
        end if;
    end if;
    if cardinality(p_notices) > 0 then
        insert into notices (run, body)
            select v_run, body from unnest(p_notices) with ordinality as given (body, place) order by place;
        v_wakes := v_wakes || 'n';
    end if;
    if cardinality(p_wait_keys) > 0 or cardinality(p_touched) > 0 then
        -- Others read these by their ids, from the last that they have seen on: so ids become visible in their order.
        perform in_turn('line');
        delete from waits where run = v_run and key = any(p_wait_keys);
        insert into waits (run, key, number, body)
            select v_run, key, number, body from unnest(p_wait_keys, p_wait_numbers, p_wait_bodies)
                with ordinality as given (key, number, body, place)
            where number is not null order by place;
        if found or cardinality(p_touched) > 0 then
            v_wakes := v_wakes || 'w';
        end if;
        insert into touched (run, body)
            select v_run, body from unnest(p_touched) with ordinality as given (body, place) order by place;
    end if;
    if cardinality(p_next) > 0 then
        select next.seq into v_next from runs as this
            join runs as next on next.flow = this.flow and next.deployment = this.deployment and next.start_us > this.start_us
            where this.seq = v_run order by next.start_us, next.seq limit 1;
        if v_next < v_run then
            perform post(array_fill(v_next, array[cardinality(p_next)]), p_next);
        end if;
    end if;
    if cardinality(p_read) > 0 then
        delete from letters where run = v_run and id = any(p_read);
    end if;
    -- Whoever posts meanwhile waits here for us, or we for them.
    delete from inboxes where run = v_run;
    insert into inboxes (run, first) select v_run, id from letters where run = v_run order by id limit 1
        on conflict (run) do nothing;
    if found or v_next is not null then
        v_wakes := v_wakes || 'i';
    end if;
    if v_next > v_run then
        perform post(array_fill(v_next, array[cardinality(p_next)]), p_next);
    end if;
    perform pg_notify(p_channel, v_wakes);
    return p_step + 1;
end $$;

CREATE FUNCTION flumen.finish_lease(p_run uuid, p_key text, p_number bigint, p_letter text, p_channel text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
    v_run bigint;
begin
    select seq into v_run from runs where id = p_run;
    delete from leases where run = v_run and key = p_key and number = p_number;
    if not found then
        return false;
    end if;
    perform post(array[v_run], array[p_letter]);
    perform pg_notify(p_channel, 'iq');
    return true;
end $$;

CREATE FUNCTION flumen.in_turn(what text) RETURNS void
    LANGUAGE sql
    AS $$
    select pg_advisory_xact_lock(hashtextextended(current_schema() || '.' || what, 0));
$$;

CREATE FUNCTION flumen.lose_leases(p_worker text, p_cause text, p_now bigint, p_limit bigint, p_letter jsonb, p_channel text) RETURNS TABLE(lost bigint, next_us bigint)
    LANGUAGE plpgsql
    AS $$
declare
    v_rows tid[];
    v_runs bigint[];
    v_letters text[];
begin
    if p_worker is not null then
        v_rows := array(select ctid from leases where worker = p_worker order by run, key for update);
    else
        -- One that is being ended or renewed just now is looked at the next time.
        v_rows := array(
            select ctid from leases where expires_us <= p_now order by expires_us, run, key limit p_limit for update skip locked
        );
    end if;
    with gone as (
        delete from leases where ctid = any(v_rows) returning run, key, number, worker, expires_us
    ), told as (
        select run, key, expires_us, p_letter || jsonb_build_object('key', key, 'number', number, 'outcome',
            (p_letter -> 'outcome') || jsonb_build_object('worker', worker, 'cause', coalesce(p_cause, format(
                'the lease of worker %s expired %s s ago', worker, (p_now - expires_us) / 1000000)))) as letter
        from gone
    )
    select array_agg(run order by expires_us, run, key), array_agg(letter::text order by expires_us, run, key)
        into v_runs, v_letters from told;
    if v_runs is not null then
        perform post(v_runs, v_letters);
        perform pg_notify(p_channel, 'iq');
    end if;
    return query select coalesce(cardinality(v_runs), 0)::bigint, (select min(expires_us) from leases);
end $$;

CREATE FUNCTION flumen.make_runs(p_schedule text, p_from text, p_to text, p_ids uuid[], p_flows text[], p_deployments text[], p_versions text[], p_starts bigint[], p_texts text[], p_backfills text[], p_begun boolean[], p_bodies text[], p_letter text, p_channel text) RETURNS TABLE(run uuid, made boolean)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    v_new uuid[];
    v_runs bigint[];
begin
    if p_schedule is not null then
        if p_from is null then
            insert into cursors (name, value) values (p_schedule, p_to) on conflict (name) do nothing;
        else
            update cursors set value = p_to where name = p_schedule and value = p_from;
        end if;
        if not found then
            raise exception 'moved' using errcode = 'FL409';
        end if;
    end if;
    with made as (
        insert into runs (id, flow, deployment, version, start_us, state, only_text, backfill, begun, body)
            select id, flow, deployment, version, start_us, 'queued', only_text, backfill, begun, body
            from unnest(p_ids, p_flows, p_deployments, p_versions, p_starts, p_texts, p_backfills, p_begun, p_bodies)
                with ordinality as given (id, flow, deployment, version, start_us, only_text, backfill, begun, body, place)
            order by place
            on conflict do nothing returning seq, id, begun
    )
    select array_agg(id), array_agg(seq order by seq) filter (where begun) into v_new, v_runs from made;
    if v_new is not null then
        if v_runs is not null then
            perform post(v_runs, array_fill(p_letter, array[cardinality(v_runs)]));
        end if;
        perform pg_notify(p_channel, case when v_runs is null then 'r' else 'ri' end);
    end if;
    return query select id, true from unnest(v_new) as new (id);
    if cardinality(p_ids) > coalesce(cardinality(v_new), 0) then
        return query select coalesce(
                (select runs.id from runs where runs.id = given.id),
                (select runs.id from runs
                    where runs.flow = given.flow and runs.deployment = given.deployment and runs.only_text = given.only_text)
            ), false
            from unnest(p_ids, p_flows, p_deployments, p_texts)
                with ordinality as given (id, flow, deployment, only_text, place) order by place;
    end if;
end $$;

CREATE FUNCTION flumen.post(p_runs bigint[], p_bodies text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    with told as (
        insert into letters (run, body)
            select run, body from unnest(p_runs, p_bodies) with ordinality as given (run, body, place) order by place
            returning run, id
    )
    insert into inboxes as there (run, first) select run, min(id) from told group by run order by run
        on conflict (run) do update set first = least(there.first, excluded.first);
end $$;

CREATE FUNCTION flumen.prune_runs(p_before bigint, p_limit bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    v_runs bigint[];
begin
    v_runs := array(
        select seq from runs where ended_us < p_before and state in ('success', 'failed', 'cancelled')
            order by ended_us limit p_limit for update skip locked
    );
    -- With those of runs that were forgotten while somebody wrote to them.
    v_runs := v_runs || array(select run from inboxes where not exists (select from runs where seq = run));
    delete from queue where run = any(v_runs);
    delete from timers where run = any(v_runs);
    delete from leases where run = any(v_runs);
    delete from waits where run = any(v_runs);
    delete from notices where run = any(v_runs);
    delete from touched where run = any(v_runs);
    delete from tasks where run = any(v_runs);
    delete from events where run = any(v_runs);
    delete from inboxes where run = any(v_runs);
    delete from letters where run = any(v_runs);
    delete from versions where saved_us < p_before and not exists (select from runs where runs.version = versions.hash);
    declare
        v_count bigint;
    begin
        delete from runs where seq = any(v_runs);
        get diagnostics v_count = row_count;
        return v_count;
    end;
end $$;

CREATE FUNCTION flumen.renew_leases(p_worker text, p_runs uuid[], p_keys text[], p_numbers bigint[], p_expires bigint) RETURNS TABLE(held boolean, stop text)
    LANGUAGE plpgsql
    AS $$
declare
    v_runs bigint[];
    v_kept boolean[] := '{}';
    v_stops text[] := '{}';
    v_place int;
    v_stop text;
begin
    v_runs := array(
        select coalesce((select seq from runs where id = wanted.id), 0)
        from unnest(p_runs) with ordinality as wanted (id, place) order by place
    );
    v_kept := array_fill(false, array[cardinality(v_runs)]);
    v_stops := array_fill(null::text, array[cardinality(v_runs)]);
    for v_place in
        select place from unnest(v_runs, p_keys) with ordinality as wanted (run, key, place) order by run, key collate "C"
    loop
        update leases set expires_us = p_expires
            where leases.run = v_runs[v_place] and leases.key = p_keys[v_place] and leases.number = p_numbers[v_place]
                and leases.worker = p_worker
            returning leases.stop into v_stop;
        if found then
            v_kept[v_place] := true;
            v_stops[v_place] := v_stop;
        end if;
    end loop;
    return query select kept, cause from unnest(v_kept, v_stops) with ordinality as answer (kept, cause, place) order by place;
end $$;

CREATE FUNCTION flumen.ring_timers(p_now bigint, p_limit bigint, p_channel text) RETURNS TABLE(rung bigint, next_us bigint)
    LANGUAGE plpgsql
    AS $$
declare
    v_rows tid[];
    v_runs bigint[];
    v_letters text[];
begin
    -- One that is being set anew or stopped just now is looked at the next time.
    v_rows := array(
        select ctid from timers where at_us <= p_now order by at_us, run, timer limit p_limit for update skip locked
    );
    with gone as (
        delete from timers where ctid = any(v_rows) returning run, timer, at_us, letter
    )
    select array_agg(run order by at_us, run, timer), array_agg(letter order by at_us, run, timer)
        into v_runs, v_letters from gone;
    if v_runs is not null then
        perform post(v_runs, v_letters);
        perform pg_notify(p_channel, 'i');
    end if;
    return query select coalesce(cardinality(v_runs), 0)::bigint, (select min(at_us) from timers);
end $$;

CREATE FUNCTION flumen.settle() RETURNS void
    LANGUAGE sql
    AS $$
    select set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'flumen', '')
        where pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn();
$$;

CREATE FUNCTION flumen.start_runs(p_flow text, p_limit bigint, p_letter text, p_channel text) RETURNS SETOF uuid
    LANGUAGE plpgsql
    AS $$
declare
    v_room bigint;
    v_runs bigint[];
begin
    if not exists (select from runs where flow = p_flow and not begun and ended_us is null) then
        return;
    end if;
    perform in_turn('start ' || p_flow);
    select greatest(0, p_limit - count(*)) into v_room from runs where flow = p_flow and begun and ended_us is null;
    v_runs := array(
        select seq from runs where flow = p_flow and not begun and ended_us is null order by seq limit v_room for no key update
    );
    if cardinality(v_runs) = 0 then
        return;
    end if;
    update runs set begun = true where seq = any(v_runs);
    perform post(v_runs, array_fill(p_letter, array[cardinality(v_runs)]));
    perform pg_notify(p_channel, 'i');
    return query select id from runs where seq = any(v_runs) order by seq;
end $$;

CREATE TABLE flumen._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE flumen.backfills (
    id text NOT NULL COLLATE pg_catalog."C",
    created_us bigint NOT NULL,
    body text NOT NULL
);

CREATE TABLE flumen.cursors (
    name text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL
);

CREATE TABLE flumen.events (
    id bigint NOT NULL,
    run bigint NOT NULL,
    body text NOT NULL
);

ALTER TABLE flumen.events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.inboxes (
    run bigint NOT NULL,
    first bigint NOT NULL,
    taken_us bigint
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='1000');

CREATE TABLE flumen.leases (
    run bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL,
    worker text NOT NULL COLLATE pg_catalog."C",
    expires_us bigint NOT NULL,
    pool text NOT NULL COLLATE pg_catalog."C",
    slots bigint NOT NULL,
    stop text
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

CREATE TABLE flumen.letters (
    id bigint NOT NULL,
    run bigint NOT NULL,
    body text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

ALTER TABLE flumen.letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.notices (
    id bigint NOT NULL,
    run bigint NOT NULL,
    held_us bigint,
    body text NOT NULL
);

ALTER TABLE flumen.notices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.notices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.numbers (
    last bigint NOT NULL
);

CREATE TABLE flumen.paused (
    flow text NOT NULL COLLATE pg_catalog."C"
);

CREATE TABLE flumen.pools (
    name text NOT NULL COLLATE pg_catalog."C",
    slots bigint,
    rate_count bigint,
    rate_us bigint,
    even_us bigint
);

CREATE TABLE flumen.queue (
    id bigint NOT NULL,
    run bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    pool text NOT NULL COLLATE pg_catalog."C",
    priority integer NOT NULL,
    turn bigint NOT NULL,
    slots bigint NOT NULL,
    body text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

ALTER TABLE flumen.queue ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.queue_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.runs (
    seq bigint NOT NULL,
    id uuid NOT NULL,
    flow text NOT NULL COLLATE pg_catalog."C",
    deployment text NOT NULL COLLATE pg_catalog."C",
    version text NOT NULL COLLATE pg_catalog."C",
    start_us bigint NOT NULL,
    state text NOT NULL,
    ended_us bigint,
    only_text text COLLATE pg_catalog."C",
    backfill text COLLATE pg_catalog."C",
    begun boolean NOT NULL,
    step bigint DEFAULT 0 NOT NULL,
    body text NOT NULL
)
WITH (fillfactor='70');

ALTER TABLE flumen.runs ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.runs_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.tasks (
    run bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL,
    body text NOT NULL
)
WITH (fillfactor='80');

CREATE TABLE flumen.timers (
    run bigint NOT NULL,
    timer text NOT NULL COLLATE pg_catalog."C",
    at_us bigint NOT NULL,
    letter text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

CREATE TABLE flumen.touched (
    id bigint NOT NULL,
    run bigint NOT NULL,
    body text NOT NULL
);

ALTER TABLE flumen.touched ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.touched_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.users (
    name text NOT NULL COLLATE pg_catalog."C",
    read_only boolean NOT NULL,
    created_us bigint NOT NULL,
    scram text NOT NULL,
    web text NOT NULL
);

CREATE TABLE flumen.versions (
    hash text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    saved_us bigint NOT NULL,
    content bytea NOT NULL
);

CREATE TABLE flumen.waits (
    id bigint NOT NULL,
    run bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL,
    body text NOT NULL
);

ALTER TABLE flumen.waits ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME flumen.waits_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE flumen.workers (
    id text NOT NULL COLLATE pg_catalog."C",
    seen_us bigint NOT NULL,
    body text NOT NULL
);

-- Data for Name: _sqlx_migrations; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen._sqlx_migrations VALUES (1, 'tables', '2026-11-26 20:49:50.829858+00', true, '\x36b51690cb06f464829fcd20052bdfc2d573b42e542faf9b8b283dc2bcd2b09ae46b303ebd1e1c51567c692d0005aef6', 213394182);
INSERT INTO flumen._sqlx_migrations VALUES (2, 'changes', '2026-11-26 20:49:51.045979+00', true, '\x1d8b1b5591ee1f544ff8436c3ee90cdcbdbf3385de21733b1179f1d6e18344134639c1d91dd200e87284182a579048b5', 7502385);

-- Data for Name: backfills; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.backfills VALUES ('01a2199f55d372a287d232a480637667', 1795726202321374, '{"id":"01a2199f55d372a287d232a480637667","flow":"night","version":"6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f","deployment":null,"from":"2019-02-01T00:00:00Z","to":"2019-03-31T23:59:59.999999Z","reprocess":"none","reverse":false,"max_active":1,"params":{"color":"yellow"},"state":"running","total":2,"by":"somebody","created":"2026-11-26T20:50:02.321374Z"}');

-- Data for Name: cursors; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: events; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (1, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.466479Z","change":{"of":"run","from":"queued","to":"running"},"cause":"its turn came","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (2, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.466479Z","change":{"of":"task","key":"load","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (3, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.476023Z","change":{"of":"task","key":"load","from":"queued","to":"running","attempt":1,"number":1795726192487458},"cause":"worker vm-7992-fa27e5 took it","by":"worker vm-7992-fa27e5"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (4, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.501944Z","change":{"of":"task","key":"load","from":"running","to":"success","attempt":1,"number":1795726192487458},"cause":"it did what it should","by":"worker vm-7992-fa27e5"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (5, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.501944Z","change":{"of":"task","key":"slow","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (6, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.501944Z","change":{"of":"task","key":"narrow_1","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (7, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.501944Z","change":{"of":"task","key":"narrow_2","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (8, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.501944Z","change":{"of":"task","key":"morning","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (9, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.515648Z","change":{"of":"task","key":"narrow_1","from":"queued","to":"running","attempt":1,"number":1795726192524151},"cause":"worker vm-7992-fa27e5 took it","by":"worker vm-7992-fa27e5"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (10, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.515648Z","change":{"of":"task","key":"slow","from":"queued","to":"running","attempt":1,"number":1795726192524152},"cause":"worker vm-7992-fa27e5 took it","by":"worker vm-7992-fa27e5"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (11, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.515648Z","change":{"of":"task","key":"morning","from":"queued","to":"running","attempt":1,"number":1795726192524153},"cause":"worker vm-7992-fa27e5 took it","by":"worker vm-7992-fa27e5"}');
INSERT INTO flumen.events OVERRIDING SYSTEM VALUE VALUES (12, 1, '{"run":"d457dd1dac351fc101a2199f2ef177b0","at":"2026-11-26T20:49:52.537634Z","change":{"of":"task","key":"morning","from":"running","to":"deferred","attempt":1,"number":1795726192524153},"cause":"waits for 2100-01-01 00:00:00 UTC","by":"worker vm-7992-fa27e5"}');

-- Data for Name: inboxes; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: leases; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.leases VALUES (1, 'narrow_1', 1795726192524151, 'vm-7992-fa27e5', 1795726222515648, 'narrow', 1, NULL);
INSERT INTO flumen.leases VALUES (1, 'slow', 1795726192524152, 'vm-7992-fa27e5', 1795726222515648, 'default', 1, NULL);

-- Data for Name: letters; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: notices; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: numbers; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.numbers VALUES (1795726192524153);

-- Data for Name: paused; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.paused VALUES ('night');

-- Data for Name: pools; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.pools VALUES ('narrow', 1, NULL, NULL, NULL);
INSERT INTO flumen.pools VALUES ('marts', 1, NULL, NULL, NULL);

-- Data for Name: queue; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.queue OVERRIDING SYSTEM VALUE VALUES (4, 1, 'narrow_2', 'narrow', 0, 0, 1, '{"key":"narrow_2","attempt":1,"lists":false,"item":null,"pool":"narrow","slots":1,"priority":0}');

-- Data for Name: runs; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.runs OVERRIDING SYSTEM VALUE VALUES (1, 'd457dd1d-ac35-1fc1-01a2-199f2ef177b0', 'night', '', '6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f', 1546408800000000, 'running', NULL, NULL, NULL, true, 5, '{"id":"d457dd1dac351fc101a2199f2ef177b0","flow":"night","version":"6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f","deployment":null,"interval":{"start":"2019-01-02T06:00:00Z","end":"2019-02-02T06:00:00Z"},"params":{"color":"yellow"},"origin":{"origin":"person","name":"somebody"},"state":"running","cause":"its turn came","cancelling":null,"timed_out":false,"stop_at":null,"created":"2026-11-26T20:49:52.397322Z","started":"2026-11-26T20:49:52.466479Z","ended":null}');

-- Data for Name: tasks; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.tasks VALUES (1, 'load', 'success', '{"key":"load","state":"success","since":"2026-11-26T20:49:52.501944Z","cause":"it did what it should","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726192487458,"worker":"vm-7992-fa27e5","began":"2026-11-26T20:49:52.476023Z","due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":{"rows":3},"failure":null}');
INSERT INTO flumen.tasks VALUES (1, 'narrow_2', 'queued', '{"key":"narrow_2","state":"queued","since":"2026-11-26T20:49:52.501944Z","cause":"nothing before it holds it back","attempt":1,"spared":0,"lost":0,"resume":false,"number":0,"worker":null,"began":null,"due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
INSERT INTO flumen.tasks VALUES (1, 'narrow_1', 'running', '{"key":"narrow_1","state":"running","since":"2026-11-26T20:49:52.515648Z","cause":"worker vm-7992-fa27e5 took it","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726192524151,"worker":"vm-7992-fa27e5","began":"2026-11-26T20:49:52.515648Z","due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
INSERT INTO flumen.tasks VALUES (1, 'slow', 'running', '{"key":"slow","state":"running","since":"2026-11-26T20:49:52.515648Z","cause":"worker vm-7992-fa27e5 took it","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726192524152,"worker":"vm-7992-fa27e5","began":"2026-11-26T20:49:52.515648Z","due":"2026-11-26T21:49:52.515648Z","asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
INSERT INTO flumen.tasks VALUES (1, 'morning', 'deferred', '{"key":"morning","state":"deferred","since":"2026-11-26T20:49:52.537634Z","cause":"waits for 2100-01-01 00:00:00 UTC","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726192524153,"worker":"vm-7992-fa27e5","began":"2026-11-26T20:49:52.515648Z","due":"2100-01-01T00:00:00Z","asked":null,"stop":null,"wait":{"on":{"on":"time","at":"2100-01-01T00:00:00Z"}},"items":null,"output":null,"failure":null}');

-- Data for Name: timers; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.timers VALUES (1, '{"task":"slow"}', 1795729792515648, '{"signal":"due","timer":{"task":"slow"},"at":"2026-11-26T21:49:52.515648Z"}');
INSERT INTO flumen.timers VALUES (1, '{"task":"morning"}', 4102444800000000, '{"signal":"due","timer":{"task":"morning"},"at":"2100-01-01T00:00:00Z"}');

-- Data for Name: touched; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: users; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.users VALUES ('ann', false, 1795726192200325, 'SCRAM-SHA-256$4096:AaIZnyrBcUWm17+4yj/Wzg==$iU3T2u8qcJGSLic3d321XVz2TuQZwcHcPXF4COAYJ2s=:VD3kW2BqacwaVsTF2S1ZXiWJwC8RWPHXHSPZA22PBIk=', '$argon2id$v=19$m=19456,t=2,p=1$AaIZnyrBcUWm17+4yj/Wzg$8KBcdym+qtqlja8ZTdUsF4kDMR6+KCgQb08YQVRr7tI');

-- Data for Name: versions; Type: TABLE DATA; Schema: flumen; Owner: -

INSERT INTO flumen.versions VALUES ('6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f', 'night', 1795726202304103, '\x7b2266696c65223a22666c6f77732f6e696768742e796d6c222c2274657874223a22666c6f773a206e696768745c6e706172616d733a5c6e2020636f6c6f723a207b20747970653a20737472696e672c2064656661756c743a2079656c6c6f77207d5c6e7363686564756c653a207b2063726f6e3a205c223020362032202a202a5c222c2074696d657a6f6e653a205554432c2073746172743a20323031392d30312d30312c20656e643a20323031392d30342d30312c20636174636875703a20616c6c207d5c6e6d61785f6163746976655f72756e733a20315c6e7461736b733a5c6e20206c6f61643a5c6e202020207368656c6c3a205c226563686f2068656c6c6f3b206563686f20277b5c5c5c22726f77735c5c5c223a20337d27203e205c5c5c2224464c554d454e5f4f55545055545c5c5c225c225c6e2020736c6f773a5c6e202020206e656564733a205b6c6f61645d5c6e2020202074696d656f75743a2031685c6e202020207368656c6c3a205c22736c656570203330305c225c6e20206e6172726f775f313a207b206e656564733a205b6c6f61645d2c20706f6f6c3a206e6172726f772c207072696f726974793a20352c207368656c6c3a205c22736c656570203330305c22207d5c6e20206e6172726f775f323a207b206e656564733a205b6c6f61645d2c20706f6f6c3a206e6172726f772c207368656c6c3a205c22747275655c22207d5c6e20206d6f726e696e673a207b206e656564733a205b6c6f61645d2c2073656e736f723a207b2074696d653a205c22323130302d30312d30315430303a30303a30305a5c22207d207d5c6e20206c6173743a207b206e656564733a205b736c6f772c206e6172726f775f325d2c207368656c6c3a205c22747275655c22207d5c6e222c2266696c6573223a7b7d7d');

-- Data for Name: waits; Type: TABLE DATA; Schema: flumen; Owner: -

-- Data for Name: workers; Type: TABLE DATA; Schema: flumen; Owner: -

SELECT pg_catalog.setval('flumen.events_id_seq', 12, true);

SELECT pg_catalog.setval('flumen.letters_id_seq', 7, true);

SELECT pg_catalog.setval('flumen.notices_id_seq', 1, false);

SELECT pg_catalog.setval('flumen.queue_id_seq', 5, true);

SELECT pg_catalog.setval('flumen.runs_seq_seq', 1, true);

SELECT pg_catalog.setval('flumen.touched_id_seq', 1, false);

SELECT pg_catalog.setval('flumen.waits_id_seq', 1, false);

ALTER TABLE ONLY flumen._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY flumen.backfills
    ADD CONSTRAINT backfills_pkey PRIMARY KEY (id);

ALTER TABLE ONLY flumen.cursors
    ADD CONSTRAINT cursors_pkey PRIMARY KEY (name);

ALTER TABLE ONLY flumen.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (run, id);

ALTER TABLE ONLY flumen.inboxes
    ADD CONSTRAINT inboxes_pkey PRIMARY KEY (run);

ALTER TABLE ONLY flumen.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (run, key);

ALTER TABLE ONLY flumen.letters
    ADD CONSTRAINT letters_pkey PRIMARY KEY (run, id);

ALTER TABLE ONLY flumen.notices
    ADD CONSTRAINT notices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY flumen.paused
    ADD CONSTRAINT paused_pkey PRIMARY KEY (flow);

ALTER TABLE ONLY flumen.pools
    ADD CONSTRAINT pools_pkey PRIMARY KEY (name);

ALTER TABLE ONLY flumen.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (id);

ALTER TABLE ONLY flumen.queue
    ADD CONSTRAINT queue_run_key_key UNIQUE (run, key);

ALTER TABLE ONLY flumen.runs
    ADD CONSTRAINT runs_id_key UNIQUE (id);

ALTER TABLE ONLY flumen.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY flumen.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (run, key);

ALTER TABLE ONLY flumen.timers
    ADD CONSTRAINT timers_pkey PRIMARY KEY (run, timer);

ALTER TABLE ONLY flumen.touched
    ADD CONSTRAINT touched_pkey PRIMARY KEY (id);

ALTER TABLE ONLY flumen.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (name);

ALTER TABLE ONLY flumen.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (hash);

ALTER TABLE ONLY flumen.waits
    ADD CONSTRAINT waits_pkey PRIMARY KEY (id);

ALTER TABLE ONLY flumen.waits
    ADD CONSTRAINT waits_run_key_key UNIQUE (run, key);

ALTER TABLE ONLY flumen.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX inboxes_first ON flumen.inboxes USING btree (first);

CREATE INDEX leases_expires ON flumen.leases USING btree (expires_us);

CREATE INDEX leases_pool ON flumen.leases USING btree (pool, slots);

CREATE INDEX leases_worker ON flumen.leases USING btree (worker);

CREATE INDEX notices_run ON flumen.notices USING btree (run);

CREATE INDEX queue_order ON flumen.queue USING btree (pool, priority DESC, turn, id);

CREATE INDEX queue_tail ON flumen.queue USING btree (pool, priority, run, turn);

CREATE INDEX runs_backfill ON flumen.runs USING btree (backfill, seq) WHERE (backfill IS NOT NULL);

CREATE INDEX runs_ended ON flumen.runs USING btree (ended_us) WHERE (ended_us IS NOT NULL);

CREATE INDEX runs_line ON flumen.runs USING btree (flow, deployment, start_us, seq);

CREATE UNIQUE INDEX runs_only ON flumen.runs USING btree (flow, deployment, only_text) WHERE (only_text IS NOT NULL);

CREATE INDEX runs_open ON flumen.runs USING btree (flow, begun, seq) WHERE (ended_us IS NULL);

CREATE INDEX runs_state ON flumen.runs USING btree (state, flow);

CREATE INDEX runs_version ON flumen.runs USING btree (version);

CREATE INDEX timers_at ON flumen.timers USING btree (at_us);

CREATE INDEX touched_run ON flumen.touched USING btree (run);

--
-- Migration 3.
--

SET search_path = flumen;

-- Runs whose tasks are given to one worker only. A run may be kept before it is there. What the functions take and give is as before.

-- Variables of templates.
create table variables (name text collate "C" primary key, value text not null);

create table kept_runs (run uuid primary key, worker text collate "C" not null);
create index kept_runs_worker on kept_runs (worker);

-- Takes rows out of the queue: see 0002.
create or replace function claim_rows(
    p_worker text, p_pools text[], p_only uuid[], p_limit bigint, p_now bigint, p_expires bigint, p_letter jsonb, p_channel text
) returns table (number bigint, queued text, run text, again_us bigint) language plpgsql volatile as $$
#variable_conflict use_column
declare
    v_pools text[];
    v_only bigint[];
    -- Runs that are kept for others.
    v_others bigint[];
    -- What each pool allows, by its place in v_pools.
    v_free bigint[];
    v_all bigint[];
    v_span bigint[];
    v_share bigint[];
    v_even bigint[];
    v_shut boolean[];
    v_ids bigint[];
    v_seen bigint;
    v_row record;
    v_place int;
    v_slots bigint;
    v_again bigint;
    v_number bigint;
    -- What is taken.
    v_taken bigint[] := '{}';
    v_widths bigint[] := '{}';
    v_runs bigint[] := '{}';
    v_keys text[] := '{}';
    v_names text[] := '{}';
    v_bodies text[] := '{}';
begin
    if cardinality(p_pools) > 0 then
        select array_agg(pool order by pool) into v_pools
            from (select distinct unnest(p_pools) as pool) as wanted
            where (select true from queue where queue.pool = wanted.pool limit 1);
    else
        with recursive used as (
            (select pool from queue order by pool limit 1)
            union all
            select (select queue.pool from queue where queue.pool > used.pool order by queue.pool limit 1)
                from used where used.pool is not null
        )
        select array_agg(pool order by pool) into v_pools from used where pool is not null;
    end if;
    if v_pools is null or p_limit <= 0 then
        return;
    end if;
    if cardinality(p_only) > 0 then
        select coalesce(array_agg(seq), '{}') into v_only from runs where id = any(p_only);
    end if;
    v_others := array(select seq from runs where id in (select kept_runs.run from kept_runs where worker <> p_worker));
    -- Claims come one after another. That keeps slots, rates and numbers right, and none takes long.
    perform in_turn('claim');
    select array_agg(pools.slots - (
                select coalesce(sum(leases.slots), 0) from leases where leases.pool = name and pools.slots is not null
            ) order by place),
            array_agg(pools.slots order by place),
            array_agg(rate_us order by place),
            array_agg(rate_us / greatest(rate_count, 1) order by place),
            array_agg(even_us order by place),
            array_agg(coalesce(pools.slots = 0, false) order by place)
        into v_free, v_all, v_span, v_share, v_even, v_shut
        from unnest(v_pools) with ordinality as wanted (name, place) left join pools using (name);
    loop
        if v_only is null then
            select array_agg(first.id) into v_ids from unnest(v_pools) as wanted (name), lateral (
                select id from queue where pool = name and not id = any(v_taken) and not run = any(v_others)
                    order by priority desc, turn, id limit p_limit
            ) as first;
        else
            select array_agg(first.id) into v_ids from unnest(v_pools) as wanted (name), lateral (
                select id from queue where run = any(v_only) and pool = name and not id = any(v_taken)
                        and not run = any(v_others)
                    order by priority desc, turn, id limit p_limit
            ) as first;
        end if;
        exit when v_ids is null;
        -- One that leaves the queue unclaimed is waited for.
        perform from queue where id = any(v_ids) order by id for update;
        get diagnostics v_seen = row_count;
        for v_row in
            select id, run, key, pool, slots, body from queue where id = any(v_ids) order by priority desc, turn, id
        loop
            exit when cardinality(v_taken) >= p_limit;
            v_place := array_position(v_pools, v_row.pool);
            continue when v_shut[v_place];
            -- One that wants more than there is gets all.
            v_slots := least(v_row.slots, coalesce(v_all[v_place], v_row.slots));
            if v_slots > v_free[v_place] then
                v_shut[v_place] := true;
                continue;
            end if;
            if v_even[v_place] - (v_span[v_place] - v_share[v_place]) > p_now then
                v_shut[v_place] := true;
                v_again := least(v_again, v_even[v_place] - (v_span[v_place] - v_share[v_place]));
                continue;
            end if;
            v_free[v_place] := v_free[v_place] - v_slots;
            if v_share[v_place] is not null then
                v_even[v_place] := greatest(v_even[v_place], p_now) + v_share[v_place];
            end if;
            v_taken := v_taken || v_row.id;
            v_widths := v_widths || v_slots;
            v_runs := v_runs || v_row.run;
            v_keys := v_keys || v_row.key;
            v_names := v_names || v_row.pool;
            v_bodies := v_bodies || v_row.body;
        end loop;
        -- In the place of those that have left come others.
        exit when v_seen = cardinality(v_ids) or cardinality(v_taken) >= p_limit;
    end loop;
    if cardinality(v_taken) > 0 then
        update pools set even_us = v_even[array_position(v_pools, name)]
            where name = any(v_pools) and even_us is distinct from v_even[array_position(v_pools, name)];
        -- Time is the floor, so that a store that was lost and made anew still gives greater numbers.
        update numbers set last = greatest(
                last + 1, p_now, (extract(epoch from clock_timestamp()) * 1000000)::bigint
            ) + cardinality(v_taken) - 1
            returning last - cardinality(v_taken) into v_number;
        insert into leases (run, key, number, worker, expires_us, pool, slots)
            select run, key, v_number + place, p_worker, p_expires, pool, width
            from unnest(v_runs, v_keys, v_names, v_widths) with ordinality as taken (run, key, pool, width, place);
        delete from queue where id = any(v_taken);
        perform post(v_runs, array(
            select (p_letter || jsonb_build_object('key', key, 'number', v_number + place))::text
            from unnest(v_keys) with ordinality as taken (key, place) order by place
        ));
        perform pg_notify(p_channel, 'i');
        return query select v_number + place, body, (select runs.body from runs where seq = run), null::bigint
            from unnest(v_runs, v_bodies) with ordinality as taken (run, body, place) order by place;
    end if;
    if v_again is not null then
        return query select null::bigint, null::text, null::text, v_again;
    end if;
end $$;

-- Ends leases: see 0002. Runs that were kept for a worker that is lost are everybody's.
create or replace function lose_leases(p_worker text, p_cause text, p_now bigint, p_limit bigint, p_letter jsonb, p_channel text)
    returns table (lost bigint, next_us bigint) language plpgsql volatile as $$
declare
    v_rows tid[];
    v_runs bigint[];
    v_letters text[];
begin
    if p_worker is not null then
        v_rows := array(select ctid from leases where worker = p_worker order by run, key for update);
        delete from kept_runs where worker = p_worker;
        if found then
            perform pg_notify(p_channel, 'q');
        end if;
    else
        -- One that is being ended or renewed just now is looked at the next time.
        v_rows := array(
            select ctid from leases where expires_us <= p_now order by expires_us, run, key limit p_limit for update skip locked
        );
    end if;
    with gone as (
        delete from leases where ctid = any(v_rows) returning run, key, number, worker, expires_us
    ), told as (
        select run, key, expires_us, p_letter || jsonb_build_object('key', key, 'number', number, 'outcome',
            (p_letter -> 'outcome') || jsonb_build_object('worker', worker, 'cause', coalesce(p_cause, format(
                'the lease of worker %s expired %s s ago', worker, (p_now - expires_us) / 1000000)))) as letter
        from gone
    )
    select array_agg(run order by expires_us, run, key), array_agg(letter::text order by expires_us, run, key)
        into v_runs, v_letters from told;
    if v_runs is not null then
        perform post(v_runs, v_letters);
        perform pg_notify(p_channel, 'iq');
    end if;
    return query select coalesce(cardinality(v_runs), 0)::bigint, (select min(expires_us) from leases);
end $$;

-- Forgets runs: see 0002.
create or replace function prune_runs(p_before bigint, p_limit bigint) returns bigint language plpgsql volatile as $$
declare
    v_runs bigint[];
begin
    v_runs := array(
        select seq from runs where ended_us < p_before and state in ('success', 'failed', 'cancelled')
            order by ended_us limit p_limit for update skip locked
    );
    -- With those of runs that were forgotten while somebody wrote to them.
    v_runs := v_runs || array(select run from inboxes where not exists (select from runs where seq = run));
    delete from queue where run = any(v_runs);
    delete from timers where run = any(v_runs);
    delete from leases where run = any(v_runs);
    delete from waits where run = any(v_runs);
    delete from notices where run = any(v_runs);
    delete from touched where run = any(v_runs);
    delete from tasks where run = any(v_runs);
    delete from events where run = any(v_runs);
    delete from inboxes where run = any(v_runs);
    delete from letters where run = any(v_runs);
    delete from versions where saved_us < p_before and not exists (select from runs where runs.version = versions.hash);
    declare
        v_count bigint;
    begin
        delete from kept_runs where run in (select id from runs where seq = any(v_runs));
        delete from runs where seq = any(v_runs);
        get diagnostics v_count = row_count;
        return v_count;
    end;
end $$;

INSERT INTO flumen._sqlx_migrations VALUES (3, 'kept', '2026-11-27 05:20:00+00', true, '\xa0f836946c17961882ce912eb71ff4554e72c10c40677c81d0306c98307b0fc99de7392a0ace2f5214f511260803fcff', 0);
