-- The changes that look first and write then. Each is one statement for its caller: a client that is cut off in the middle holds no
-- lock, and there is one round trip.
--
-- Locks are taken in this order, so that nobody waits for somebody who waits for them: the turn (to claim, to begin runs of a flow),
-- the run, rows of the queue by their ids, timers, leases by run and key, the line of ids, inboxes by the numbers of their runs.
--
-- Plans are kept for a long time, and tables grow and shrink: so what one statement finds reaches the next one in an array, and is
-- looked up by an index whatever the planner believes of the sizes.
--
-- Older versions of Flumen may be at work beside newer ones: what a function takes and gives never changes; one that has to gets
-- another name.

-- Waits until all that can be seen is on the disk. What is emitted is read by nobody.
create function settle() returns void language sql volatile as $$
    select set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'flumen', '')
        where pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn();
$$;

-- Makes whoever changes `what` wait for the others, until the end of the transaction.
create function in_turn(what text) returns void language sql volatile as $$
    select pg_advisory_xact_lock(hashtextextended(current_schema() || '.' || what, 0));
$$;

-- Puts letters into inboxes, in the order in which they are given; whoever calls wakes those who listen.
create function post(p_runs bigint[], p_bodies text[]) returns void language plpgsql volatile as $$
begin
    with told as (
        insert into letters (run, body)
            select run, body from unnest(p_runs, p_bodies) with ordinality as given (run, body, place) order by place
            returning run, id
    )
    insert into inboxes as there (run, first) select run, min(id) from told group by run order by run
        on conflict (run) do update set first = least(there.first, excluded.first);
end $$;

-- Begins the oldest runs of a flow that were not told to begin, within the limit.
create function start_runs(p_flow text, p_limit bigint, p_letter text, p_channel text)
    returns setof uuid language plpgsql volatile as $$
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

-- Writes what a step decided. Errors: FL404, there is no such run; FL409, it was changed meanwhile; FL500, the task that the message
-- names is queued or leased already.
create function commit_step(
    p_run uuid, p_step bigint, p_state text, p_ended bigint, p_version text, p_body text, p_read bigint[],
    p_task_keys text[], p_task_states text[], p_task_bodies text[], p_events text[], p_dequeue text[],
    p_keys text[], p_pools text[], p_priorities int[], p_slots bigint[], p_queued text[],
    p_timers text[], p_timer_times bigint[], p_timer_letters text[],
    p_stop_keys text[], p_stop_numbers bigint[], p_stop_causes text[],
    p_wait_keys text[], p_wait_numbers bigint[], p_wait_bodies text[],
    p_notices text[], p_touched text[], p_next text[], p_channel text
) returns bigint language plpgsql volatile as $$
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

-- Takes rows out of the queue and gives leases on them. The letter is one to which the task and the number are added. In the last row
-- of the answer stands nothing but when more may begin, if only a rate holds it back.
create function claim_rows(
    p_worker text, p_pools text[], p_only uuid[], p_limit bigint, p_now bigint, p_expires bigint, p_letter jsonb, p_channel text
) returns table (number bigint, queued text, run text, again_us bigint) language plpgsql volatile as $$
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

-- Ends a lease; false where it is not held.
create function finish_lease(p_run uuid, p_key text, p_number bigint, p_letter text, p_channel text)
    returns boolean language plpgsql volatile as $$
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

-- Ends the leases of a worker, or where none is named those that ended at `p_now` or before. The letter is one to which the task, the
-- number, the worker and the cause are added. Answers with their number, and with the time when the next one ends.
create function lose_leases(p_worker text, p_cause text, p_now bigint, p_limit bigint, p_letter jsonb, p_channel text)
    returns table (lost bigint, next_us bigint) language plpgsql volatile as $$
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

-- Rings timers that were set to `p_now` or before. Answers with their number, and with the time of the next one.
create function ring_timers(p_now bigint, p_limit bigint, p_channel text)
    returns table (rung bigint, next_us bigint) language plpgsql volatile as $$
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

-- Makes runs, in order, and moves the cursor of a schedule on, if one is named. Answers with those that are new, and, unless all are,
-- with the runs that there are now, in order. Errors: FL409, where the cursor is not where the caller believes it to be.
create function make_runs(
    p_schedule text, p_from text, p_to text,
    p_ids uuid[], p_flows text[], p_deployments text[], p_versions text[], p_starts bigint[], p_texts text[], p_backfills text[],
    p_begun boolean[], p_bodies text[], p_letter text, p_channel text
) returns table (run uuid, made boolean) language plpgsql volatile as $$
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

-- Forgets runs that ended before `p_before`, with all that belongs to them, and versions that no run keeps.
create function prune_runs(p_before bigint, p_limit bigint) returns bigint language plpgsql volatile as $$
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

-- Renews leases; a row for each, in order: whether it is held, and why its holder is to stop.
create function renew_leases(p_worker text, p_runs uuid[], p_keys text[], p_numbers bigint[], p_expires bigint)
    returns table (held boolean, stop text) language plpgsql volatile as $$
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
