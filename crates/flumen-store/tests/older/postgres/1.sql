
CREATE SCHEMA flumen;

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

