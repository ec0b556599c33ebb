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
CREATE TABLE users (
    name text not null primary key,
    read_only integer not null,
    created_us integer not null,
    scram text not null,
    web text not null
) strict, without rowid;
INSERT INTO "users" VALUES('ann',0,1795726143673148,'SCRAM-SHA-256$4096:AaIZnm1bdAGAHxkF2npjcA==$UxifEfXtRHccN/ZiRnyd78yPT7uITAo19jbFv/Chf/E=:dWjv52vvm4O5/e0/3SNxdDuKCvtD+KhSB/x3dc3xSWo=','$argon2id$v=19$m=19456,t=2,p=1$AaIZnm1bdAGAHxkF2npjcA$P9gVsQMtnLz/2symdsr/xaLRXNBI3AQ/7XANizXhR3A');
COMMIT;
