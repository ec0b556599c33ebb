BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'users','2026-11-26 20:48:39',1,X'392927FE878C2382311F30D197E7C265F67DA61C64A848545422B6622ECE9A160B285D98B9F12929A8561096E951687C',5653706);
INSERT INTO "_sqlx_migrations" VALUES(2,'runs','2026-11-26 20:48:39',1,X'B236C943B2F1DC6A8081C3C7FEED3D27DDC3D42BF1D30AE298F419ACF03751BA21F761681DB67DFA66425EA0E5315770',11555187);
INSERT INTO "_sqlx_migrations" VALUES(3,'begun','2026-11-26 20:48:39',1,X'E83DFD188CDCA6238CA6CA2AE635E43CF033977297FBB7E94B0825ACB81B1939D11C992CB6B7ADE3AA8D6F30C9D629CC',1518266);
INSERT INTO "_sqlx_migrations" VALUES(4,'kept','2026-11-27 05:20:00',1,X'909C4971E579517C670D5EC5D0DB67E536BDCA027A030F342B77B9ECF429BAEFF3FB78AA3C1AC4C56F4622DD8F473831',0);
CREATE TABLE backfills (id text primary key, created_us integer not null, body text not null) without rowid;
INSERT INTO "backfills" VALUES('01a2199e4f91730b8c54b741742ed607',1795726135180588,'{"id":"01a2199e4f91730b8c54b741742ed607","flow":"night","version":"6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f","deployment":null,"from":"2019-02-01T00:00:00Z","to":"2019-03-31T23:59:59.999999Z","reprocess":"none","reverse":false,"max_active":1,"params":{"color":"yellow"},"state":"running","total":2,"by":"somebody","created":"2026-11-26T20:48:55.180588Z"}');
CREATE TABLE cursors (name text primary key, value text not null) without rowid;
CREATE TABLE events (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
INSERT INTO "events" VALUES(1,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.105150Z","change":{"of":"run","from":"queued","to":"running"},"cause":"its turn came","by":"scheduler"}');
INSERT INTO "events" VALUES(2,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.105150Z","change":{"of":"task","key":"load","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO "events" VALUES(3,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.108214Z","change":{"of":"task","key":"load","from":"queued","to":"running","attempt":1,"number":1795726120108214},"cause":"worker laptop-1 took it","by":"worker laptop-1"}');
INSERT INTO "events" VALUES(4,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.169580Z","change":{"of":"task","key":"load","from":"running","to":"success","attempt":1,"number":1795726120108214},"cause":"it did what it should","by":"worker laptop-1"}');
INSERT INTO "events" VALUES(5,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.169580Z","change":{"of":"task","key":"slow","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO "events" VALUES(6,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.169580Z","change":{"of":"task","key":"narrow_1","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO "events" VALUES(7,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.169580Z","change":{"of":"task","key":"narrow_2","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO "events" VALUES(8,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.169580Z","change":{"of":"task","key":"morning","from":"none","to":"queued","attempt":1,"number":0},"cause":"nothing before it holds it back","by":"scheduler"}');
INSERT INTO "events" VALUES(9,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.188349Z","change":{"of":"task","key":"narrow_1","from":"queued","to":"running","attempt":1,"number":1795726120188349},"cause":"worker laptop-1 took it","by":"worker laptop-1"}');
INSERT INTO "events" VALUES(10,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.188349Z","change":{"of":"task","key":"slow","from":"queued","to":"running","attempt":1,"number":1795726120188350},"cause":"worker laptop-1 took it","by":"worker laptop-1"}');
INSERT INTO "events" VALUES(11,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.188349Z","change":{"of":"task","key":"morning","from":"queued","to":"running","attempt":1,"number":1795726120188351},"cause":"worker laptop-1 took it","by":"worker laptop-1"}');
INSERT INTO "events" VALUES(12,1,'{"run":"7fcf3ef7c96aa07d01a2199e148177eb","at":"2026-11-26T20:48:40.199104Z","change":{"of":"task","key":"morning","from":"running","to":"deferred","attempt":1,"number":1795726120188351},"cause":"waits for 2100-01-01 00:00:00 UTC","by":"worker laptop-1"}');
CREATE TABLE kept_runs (run blob primary key, worker text not null) without rowid;
CREATE TABLE leases (
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
INSERT INTO "leases" VALUES(1,'narrow_1',1795726120188349,'laptop-1',1795726160093430,'narrow',1,NULL);
INSERT INTO "leases" VALUES(1,'slow',1795726120188350,'laptop-1',1795726160093430,'default',1,NULL);
CREATE TABLE letters (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
CREATE TABLE notices (
    id integer primary key autoincrement,
    run integer not null,
    held_us integer,
    body text not null
);
CREATE TABLE numbers (last integer not null);
INSERT INTO "numbers" VALUES(1795726120188351);
CREATE TABLE paused (flow text primary key) without rowid;
INSERT INTO "paused" VALUES('night');
CREATE TABLE pools (
    name text primary key,
    slots integer,
    rate_count integer,
    rate_us integer,
    -- When the next task run would begin if they came evenly.
    even_us integer
) without rowid;
INSERT INTO "pools" VALUES('marts',1,NULL,NULL,NULL);
INSERT INTO "pools" VALUES('narrow',1,NULL,NULL,NULL);
CREATE TABLE queue (
    id integer primary key autoincrement,
    run integer not null,
    key text not null,
    pool text not null,
    priority integer not null,
    turn integer not null,
    body text not null,
    unique (run, key)
);
INSERT INTO "queue" VALUES(4,1,'narrow_2','narrow',0,0,'{"key":"narrow_2","attempt":1,"lists":false,"item":null,"pool":"narrow","slots":1,"priority":0}');
CREATE TABLE runs (
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
, begun integer not null default 1);
INSERT INTO "runs" VALUES(1,X'7FCF3EF7C96AA07D01A2199E148177EB','night','','6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f',1546408800000000,'running',NULL,NULL,NULL,5,NULL,NULL,'{"id":"7fcf3ef7c96aa07d01a2199e148177eb","flow":"night","version":"6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f","deployment":null,"interval":{"start":"2019-01-02T06:00:00Z","end":"2019-02-02T06:00:00Z"},"params":{"color":"yellow"},"origin":{"origin":"person","name":"somebody"},"state":"running","cause":"its turn came","cancelling":null,"timed_out":false,"stop_at":null,"created":"2026-11-26T20:48:40.072531Z","started":"2026-11-26T20:48:40.105150Z","ended":null}',1);
CREATE TABLE tasks (
    run integer not null,
    key text not null,
    state text not null,
    body text not null,
    primary key (run, key)
) without rowid;
INSERT INTO "tasks" VALUES(1,'load','success','{"key":"load","state":"success","since":"2026-11-26T20:48:40.169580Z","cause":"it did what it should","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726120108214,"worker":"laptop-1","began":"2026-11-26T20:48:40.108214Z","due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":{"rows":3},"failure":null}');
INSERT INTO "tasks" VALUES(1,'morning','deferred','{"key":"morning","state":"deferred","since":"2026-11-26T20:48:40.199104Z","cause":"waits for 2100-01-01 00:00:00 UTC","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726120188351,"worker":"laptop-1","began":"2026-11-26T20:48:40.188349Z","due":"2100-01-01T00:00:00Z","asked":null,"stop":null,"wait":{"on":{"on":"time","at":"2100-01-01T00:00:00Z"}},"items":null,"output":null,"failure":null}');
INSERT INTO "tasks" VALUES(1,'narrow_1','running','{"key":"narrow_1","state":"running","since":"2026-11-26T20:48:40.188349Z","cause":"worker laptop-1 took it","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726120188349,"worker":"laptop-1","began":"2026-11-26T20:48:40.188349Z","due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
INSERT INTO "tasks" VALUES(1,'narrow_2','queued','{"key":"narrow_2","state":"queued","since":"2026-11-26T20:48:40.169580Z","cause":"nothing before it holds it back","attempt":1,"spared":0,"lost":0,"resume":false,"number":0,"worker":null,"began":null,"due":null,"asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
INSERT INTO "tasks" VALUES(1,'slow','running','{"key":"slow","state":"running","since":"2026-11-26T20:48:40.188349Z","cause":"worker laptop-1 took it","attempt":1,"spared":0,"lost":0,"resume":false,"number":1795726120188350,"worker":"laptop-1","began":"2026-11-26T20:48:40.188349Z","due":"2026-11-26T21:48:40.188349Z","asked":null,"stop":null,"wait":null,"items":null,"output":null,"failure":null}');
CREATE TABLE timers (
    run integer not null,
    timer text not null,
    at_us integer not null,
    primary key (run, timer)
) without rowid;
INSERT INTO "timers" VALUES(1,'{"task":"slow"}',1795729720188349);
INSERT INTO "timers" VALUES(1,'{"task":"morning"}',4102444800000000);
CREATE TABLE touched (
    id integer primary key autoincrement,
    run integer not null,
    body text not null
);
CREATE TABLE users (
    name text not null primary key,
    read_only integer not null,
    created_us integer not null,
    scram text not null,
    web text not null
) strict, without rowid;
INSERT INTO "users" VALUES('ann',0,1795726143673148,'SCRAM-SHA-256$4096:AaIZnm1bdAGAHxkF2npjcA==$UxifEfXtRHccN/ZiRnyd78yPT7uITAo19jbFv/Chf/E=:dWjv52vvm4O5/e0/3SNxdDuKCvtD+KhSB/x3dc3xSWo=','$argon2id$v=19$m=19456,t=2,p=1$AaIZnm1bdAGAHxkF2npjcA$P9gVsQMtnLz/2symdsr/xaLRXNBI3AQ/7XANizXhR3A');
CREATE TABLE variables (name text primary key, value text not null) without rowid;
CREATE TABLE versions (hash text primary key, flow text not null, saved_us integer not null, content blob not null);
INSERT INTO "versions" VALUES('6133e5b5ab5e11f5c717c0a93ec52dafef5cf8fe39ead44814f4f20b512fb46f','night',1795726135160066,X'7B2266696C65223A22666C6F77732F6E696768742E796D6C222C2274657874223A22666C6F773A206E696768745C6E706172616D733A5C6E2020636F6C6F723A207B20747970653A20737472696E672C2064656661756C743A2079656C6C6F77207D5C6E7363686564756C653A207B2063726F6E3A205C223020362032202A202A5C222C2074696D657A6F6E653A205554432C2073746172743A20323031392D30312D30312C20656E643A20323031392D30342D30312C20636174636875703A20616C6C207D5C6E6D61785F6163746976655F72756E733A20315C6E7461736B733A5C6E20206C6F61643A5C6E202020207368656C6C3A205C226563686F2068656C6C6F3B206563686F20277B5C5C5C22726F77735C5C5C223A20337D27203E205C5C5C2224464C554D454E5F4F55545055545C5C5C225C225C6E2020736C6F773A5C6E202020206E656564733A205B6C6F61645D5C6E2020202074696D656F75743A2031685C6E202020207368656C6C3A205C22736C656570203330305C225C6E20206E6172726F775F313A207B206E656564733A205B6C6F61645D2C20706F6F6C3A206E6172726F772C207072696F726974793A20352C207368656C6C3A205C22736C656570203330305C22207D5C6E20206E6172726F775F323A207B206E656564733A205B6C6F61645D2C20706F6F6C3A206E6172726F772C207368656C6C3A205C22747275655C22207D5C6E20206D6F726E696E673A207B206E656564733A205B6C6F61645D2C2073656E736F723A207B2074696D653A205C22323130302D30312D30315430303A30303A30305A5C22207D207D5C6E20206C6173743A207B206E656564733A205B736C6F772C206E6172726F775F325D2C207368656C6C3A205C22747275655C22207D5C6E222C2266696C6573223A7B7D7D');
CREATE TABLE waits (
    id integer primary key autoincrement,
    run integer not null,
    key text not null,
    number integer not null,
    body text not null,
    unique (run, key)
);
CREATE TABLE workers (id text primary key, seen_us integer not null, body text not null) without rowid;
CREATE UNIQUE INDEX runs_only on runs (flow, deployment, only_text) where only_text is not null;
CREATE INDEX runs_line on runs (flow, deployment, start_us, seq);
CREATE INDEX runs_state on runs (state, flow);
CREATE INDEX runs_ended on runs (ended_us) where ended_us is not null;
CREATE INDEX runs_pending on runs (pending) where pending is not null;
CREATE INDEX runs_backfill on runs (backfill, seq) where backfill is not null;
CREATE INDEX runs_version on runs (version);
CREATE INDEX events_run on events (run, id);
CREATE INDEX letters_run on letters (run, id);
CREATE INDEX queue_order on queue (pool, priority desc, turn, id);
CREATE INDEX queue_tail on queue (run, pool, priority, turn);
CREATE INDEX leases_expires on leases (expires_us);
CREATE INDEX leases_worker on leases (worker);
CREATE INDEX leases_pool on leases (pool, slots);
CREATE INDEX timers_at on timers (at_us);
CREATE INDEX notices_run on notices (run);
CREATE INDEX touched_run on touched (run);
CREATE INDEX runs_open on runs (flow, begun, seq) where ended_us is null;
CREATE INDEX kept_runs_worker on kept_runs (worker);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('letters',7);
INSERT INTO "sqlite_sequence" VALUES('events',12);
INSERT INTO "sqlite_sequence" VALUES('queue',5);
COMMIT;
