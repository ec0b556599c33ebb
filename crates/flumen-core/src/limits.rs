//! Every limit has a name, and lives here.

use std::time::Duration;

/// Bytes of text that one worker parses at a time.
pub const TEXT_BLOCK_BYTES: usize = 1 << 20;
/// The longest CSV field or record; a longer one is a stray quote far more often than data.
pub const CSV_RECORD_BYTES: usize = 16 << 20;
/// The most columns that a table may have.
pub const COLUMNS: usize = 10_000;
/// The largest single JSON value (one record).
pub const JSON_VALUE_BYTES: usize = 16 << 20;
/// Rows in a batch made from a columnar format.
pub const BATCH_ROWS: usize = 16_384;
/// Bytes read from the start of a file to find out what it is.
pub const SNIFF_BYTES: usize = 64 << 10;
/// Places in a file from which types are sampled before it is read, and bytes read at each.
pub const SAMPLE_PLACES: usize = 8;
/// Bytes of a sample at one place.
pub const SAMPLE_BYTES: usize = 64 << 10;
/// Bad rows that an error message shows.
pub const BAD_ROWS_SHOWN: usize = 10;
/// Bad rows in one batch for the quarantine.
pub const QUARANTINE_BATCH_ROWS: usize = 1_024;
/// Bytes of bad rows at which a batch of them ends before it has that many.
pub const QUARANTINE_BATCH_BYTES: usize = 1 << 20;
/// Bytes of bad rows that one load keeps in memory; the rest waits on the local disk.
pub const QUARANTINE_MEMORY_BYTES: usize = 16 << 20;
/// The most rows of a Parquet row group that one worker reads at a time.
pub const PARQUET_SPLIT_ROWS: usize = 256 << 10;
/// Rows in a Parquet row group that we write.
pub const ROW_GROUP_ROWS: usize = 1 << 20;
/// The size at which a lake file is closed and the next begun.
pub const LAKE_FILE_BYTES: usize = 256 << 20;
/// Tries for one request to a server that may recover.
pub const REQUEST_TRIES: u32 = 6;
/// The wait before the second try; it doubles from there.
pub const RETRY_DELAY: Duration = Duration::from_millis(250);
/// The longest wait between two tries.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(8);
/// How long a server may be silent before a request counts as failed.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a Postgres server that went away is waited for.
pub const POSTGRES_PATIENCE: Duration = Duration::from_secs(60);
/// Times that a lake commit is tried again when another writer was faster.
pub const COMMIT_TRIES: usize = 100;
/// Commits of a lake table from one checkpoint of its log to the next.
pub const LAKE_CHECKPOINT_COMMITS: u64 = 50;
/// Bytes of one row group in the making, encoded, at which a writer ends it.
pub const ROW_GROUP_BYTES: usize = 48 << 20;
/// Files of different partitions that are kept open at once.
pub const OPEN_PARTITIONS: usize = 128;
/// Bytes of one part of an upload to an object store.
pub const UPLOAD_PART_BYTES: usize = 8 << 20;
/// Folders of a lake that are looked into at once.
pub const LAKE_LISTINGS: usize = 32;
/// Commits of a lake's catalog from one checkpoint of its log to the next.
pub const CATALOG_CHECKPOINT_COMMITS: u64 = 20;
/// Commits of a lake's catalog that are asked for at once.
pub const CATALOG_READ_AHEAD: u64 = 8;
/// Files of a lake that are copied at once.
pub const LAKE_COPIES: usize = 16;
/// How long files that were removed from a lake table, and dropped tables, are kept where nothing else is said.
pub const LAKE_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The age from which a file that no log names, in a place without locks, cannot belong to a load that still runs.
pub const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of files that one step of an optimization makes one.
pub const OPTIMIZE_BIN_BYTES: u64 = 512 << 20;
/// Memory for sorting rows in an optimization; the rest goes to disk.
pub const OPTIMIZE_MEMORY_BYTES: usize = 512 << 20;
/// Small files of a lake table from which it pays to rewrite them.
pub const MAINTAIN_SMALL_FILES: usize = 32;
/// How long nobody must have written to a lake table before it is compacted in the background.
pub const MAINTAIN_QUIET: Duration = Duration::from_secs(60);
/// How often a server looks after its lake.
pub const MAINTAIN_EVERY: Duration = Duration::from_secs(10 * 60);
/// Clients that may be connected to the doors at once, unless told otherwise.
pub const CONNECTIONS: usize = 100;
/// How long a client may take to log in.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server that ends waits for statements that run.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// Prepared statements of one session.
pub const PREPARED_STATEMENTS: usize = 10_000;
/// Portals and cursors of one session that are open at once.
pub const PORTALS: usize = 1_000;
/// Bytes on their way to a client before they are sent.
pub const WIRE_BUFFER_BYTES: usize = 64 << 10;
/// Rows from a client that become one batch.
pub const COPY_BATCH_ROWS: usize = 8_192;
/// Bytes of a single row that a client copies in.
pub const COPY_ROW_BYTES: usize = 64 << 20;
/// Pieces of data from a client that wait to be parsed.
pub const COPY_QUEUE: usize = 16;
/// Characters of a statement that `pg_stat_activity` shows.
pub const ACTIVITY_QUERY_CHARS: usize = 1_024;
/// Messages for a Flight client that are encoded before they can be sent.
pub const FLIGHT_QUEUE: usize = 4;
/// Bytes of one message of a Flight client: a batch of rows for a table is one.
pub const FLIGHT_MESSAGE_BYTES: usize = 256 << 20;
/// Bytes that a Flight client may send before it is told that they have arrived.
pub const FLIGHT_WINDOW_BYTES: u32 = 8 << 20;
/// How long a client of Flight SQL may be silent before it has to log in again.
pub const FLIGHT_IDLE: Duration = Duration::from_secs(30 * 60);
/// Rows that a function in a query about the catalog may give.
pub const CATALOG_ROWS: i64 = 1_000_000;
/// Steps that a query about the catalog may take: joined rows and queries within it.
pub const CATALOG_STEPS: u64 = 50_000_000;
/// Bytes of a line that a task prints, before it is cut in two.
pub const LOG_LINE_BYTES: usize = 16 << 10;
/// How long a program that is to end may take for it before it is killed.
pub const TERMINATION_GRACE: Duration = Duration::from_secs(5);
/// How long the output of a program that has ended is waited for.
pub const LOG_DRAIN: Duration = Duration::from_secs(1);
/// Tables of the catalog that are looked into at once.
pub const CATALOG_TABLES_AT_ONCE: usize = 16;
/// Bytes of lake tables that one round of background work rewrites.
pub const MAINTAIN_BYTES: u64 = 4 << 30;
