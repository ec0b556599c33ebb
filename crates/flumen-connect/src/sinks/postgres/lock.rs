//! The lock of a load, the names of its staging tables, and the sweeping of those that were left behind.

use std::time::Duration;

use flumen_core::load::{Fence, LoadId};
use flumen_core::{Error, Result};
use tokio_postgres::Client;

use super::Target;
use crate::postgres::quote;

const STAGE_PREFIX: &str = "_flumen_stage_";

/// The name of a load's staging table `number`.
pub fn stage_name(load: &LoadId, number: usize) -> String {
    format!("{STAGE_PREFIX}{}_{number}", load.short())
}

/// The key of the advisory lock that belongs to the first twelve digits of a load's id: those in its tables' names.
fn key(digits: &str) -> Option<i64> {
    // The upper bits keep clear of the keys that people choose by hand.
    const OURS: i64 = 0x464c << 48;
    i64::from_str_radix(digits, 16).ok().map(|digits| OURS | digits)
}

/// How long the server may take to notice that the process that had a lock was killed.
const NOTICE: Duration = Duration::from_secs(2);

/// Takes the lock of `load` for as long as the connection lasts. An attempt `fence` does not wait for an older one, which may hang for
/// ever: it ends that one's connection.
///
/// Errors: `Conflict` if another connection has it; the message names it.
pub async fn take(client: &Client, target: &Target, load: &LoadId, fence: Fence) -> Result<()> {
    let key = key(load.short()).ok_or_else(|| Error::internal(format!("the id '{load}' is not hexadecimal")))?;
    let taken = async {
        loop {
            let row = client.query_one("select pg_catalog.pg_try_advisory_lock($1)", &[&key]).await?;
            if row.get(0) {
                return Ok(());
            }
            if fence.0 > 0 {
                end_older(client, key, load, fence).await;
            }
            tokio::time::sleep(NOTICE / 20).await;
        }
    };
    if let Ok(taken) = tokio::time::timeout(NOTICE.min(target.options.lock_timeout), taken).await {
        return taken.map_err(|error| target.failed(error));
    }
    let holder = client
        .query_opt(
            "select a.pid, a.usename::text, coalesce(a.client_addr::text, 'this machine'), \
                    to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS') \
             from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid \
             where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
               and l.database = (select oid from pg_catalog.pg_database where datname = current_database()) \
               and (l.classid::bigint << 32 | l.objid::bigint) = $1",
            &[&key],
        )
        .await
        .ok()
        .flatten();
    let who = holder.map_or_else(String::new, |row| {
        let (pid, user, host, since): (i32, Option<String>, Option<String>, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        format!(
            " (process {pid} of the server, user {}, from {}, since {} UTC)",
            user.unwrap_or_default(),
            host.unwrap_or_default(),
            since.unwrap_or_default()
        )
    });
    Err(Error::conflict(format!("{}: load {} is running already{who}", target.name(), load.short()))
        .hint("wait for it to end; what it loads is then in the ledger"))
}

/// Ends the connections of the attempt that holds the lock with this key, if it claimed the load with a number below `fence`: that one,
/// and those that write into its staging tables.
async fn end_older(client: &Client, key: i64, load: &LoadId, fence: Fence) {
    let stages = format!("{STAGE_PREFIX}{}_", load.short());
    // Where there are no claims yet, or the connection is another user's, it stays: then the lock is waited for.
    let _ = client
        .execute(
            "with holders as ( \
                 select distinct l.pid from pg_catalog.pg_locks l \
                 left join pg_catalog.pg_class c on l.locktype = 'relation' and c.oid = l.relation \
                 where l.granted and l.pid <> pg_backend_pid() \
                   and l.database = (select oid from pg_catalog.pg_database where datname = current_database()) \
                   and (starts_with(c.relname, $4) or l.locktype = 'advisory' and l.objsubid = 1 \
                        and (l.classid::bigint << 32 | l.objid::bigint) = $1)) \
             select pg_catalog.pg_terminate_backend(pid) from holders \
             where exists (select from _flumen.claims where load = $2 and fence < $3 and not done)",
            &[&key, &load.as_str(), &fence.0, &stages],
        )
        .await;
}

/// Gives the lock back before the connection ends: the same load may begin again at once.
pub async fn release(client: &Client) {
    // A connection that is gone has no locks.
    let _ = client.batch_execute("select pg_catalog.pg_advisory_unlock_all()").await;
}

/// Drops the staging tables in the table's schema that no running load owns, and those of `load`, whose lock is held.
pub async fn sweep(client: &Client, target: &Target, load: &LoadId) -> Result<()> {
    let left = client
        .query(
            "select c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = $1 and c.relkind = 'r' and starts_with(c.relname, $2)",
            &[&target.table.namespace, &STAGE_PREFIX],
        )
        .await
        .map_err(|error| target.failed(error))?;
    for row in left {
        let name: String = row.get(0);
        let digits = name.trim_start_matches(STAGE_PREFIX).split('_').next().unwrap_or_default();
        let table = format!("{}.{}", quote(&target.table.namespace), quote(&name));
        if digits == load.short() {
            client.batch_execute(&format!("drop table if exists {table}")).await.map_err(|e| target.failed(e))?;
        } else if let Some(key) = key(digits) {
            // Somebody else's: gone if its lock is free and it is ours to drop, otherwise it does not matter here.
            let block = format!(
                "do $$ begin if pg_catalog.pg_try_advisory_xact_lock({key}) then drop table if exists {table}; end if; \
                 exception when insufficient_privilege or lock_not_available then null; end $$"
            );
            let _ = client.batch_execute(&block).await;
        }
    }
    Ok(())
}
