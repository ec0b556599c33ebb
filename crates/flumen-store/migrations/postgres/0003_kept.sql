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
