-- Whether a run was told to begin, so that those of its flow can be counted and the next one found.
alter table runs add column begun integer not null default 1;
create index runs_open on runs (flow, begun, seq) where ended_us is null;
