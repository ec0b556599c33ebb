//! Replacing a table by a staging table that was made like it: what hung on the old one hangs on the new one after.
//!
//! Only a plain table is swapped. Where anything depends on the table that would be lost with it (a view, a foreign
//! key, a trigger, a policy, …), its rows are replaced instead, by the path of [`super::modes`].

use flumen_core::{Error, Result};
use tokio_postgres::{Client, GenericClient, Transaction};

use super::Target;
use super::publish::{built_name, free_name, index_name};
use super::session::Plan;
use crate::postgres::catalog::{Table, read_table};
use crate::postgres::types::column_type;
use crate::postgres::{literal, quote, quote_all};

/// Whether the table with this number can be swapped without losing anything.
pub async fn is_possible(client: &impl GenericClient, target: &Target, table: u32) -> Result<bool> {
    let row = client
        .query_one(
            "select c.relkind = 'r' and c.relpersistence = 'p' and not c.relispartition and not c.relrowsecurity \
                and c.reltablespace = 0 and c.relreplident = 'd' and c.reloftype = 0 \
                and pg_catalog.pg_has_role(c.relowner, 'USAGE') \
                and pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE') \
                and not exists (select from pg_catalog.pg_inherits where inhparent = c.oid or inhrelid = c.oid) \
                and not exists (select from pg_catalog.pg_constraint where contype not in ('c', 'n', 'p', 'u') \
                                and (conrelid = c.oid or confrelid = c.oid)) \
                and not exists (select from pg_catalog.pg_trigger where tgrelid = c.oid and not tgisinternal) \
                and not exists (select from pg_catalog.pg_policy where polrelid = c.oid) \
                and not exists (select from pg_catalog.pg_publication_rel where prrelid = c.oid) \
                and not exists (select from pg_catalog.pg_statistic_ext where stxrelid = c.oid) \
                and not exists (select from pg_catalog.pg_seclabel where objoid = c.oid) \
                and not exists (select from pg_catalog.pg_attribute where attrelid = c.oid and attacl is not null) \
                and not exists (select from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid \
                                where i.indrelid = c.oid and (not i.indisvalid or i.indisclustered \
                                      or x.reltablespace <> 0)) \
                and not exists (select from pg_catalog.pg_rewrite where ev_class = c.oid) \
                and not exists (select from pg_catalog.pg_depend d \
                                where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = c.oid \
                                  and d.deptype = 'n' and not (d.classid = 'pg_catalog.pg_constraint'::regclass \
                                  and exists (select from pg_catalog.pg_constraint k \
                                              where k.oid = d.objid and k.conrelid = c.oid))) \
                and not exists (select from pg_catalog.pg_depend d \
                                join pg_catalog.pg_type t on t.oid = d.refobjid and t.oid in (c.reltype, \
                                  (select r.typarray from pg_catalog.pg_type r where r.oid = c.reltype)) \
                                where d.refclassid = 'pg_catalog.pg_type'::regclass and d.deptype = 'n') \
             from pg_catalog.pg_class c where c.oid = $1",
            &[&table],
        )
        .await
        .map_err(|error| target.failed(error))?;
    Ok(row.get(0))
}

/// Makes the staging table like the table, without its indexes, with the columns that the load adds.
pub async fn make_stage(client: &Client, target: &Target, plan: &Plan) -> Result<()> {
    let before = plan.before.as_ref().ok_or_else(|| Error::internal("nothing is there to be swapped"))?;
    let stage = target.beside(&plan.stage);
    let mut sql =
        format!("create table {stage} (like {} including all excluding indexes excluding statistics);", target.sql());
    for field in plan.fields() {
        let name = quote(field.name());
        let (sql_type, _) = column_type(field.data_type())?;
        match before.column(field.name()) {
            None => sql.push_str(&format!("alter table {stage} add column {name} {sql_type};")),
            Some(column) if column.pg_type.wire(field.data_type()).is_none() => sql.push_str(&format!(
                "alter table {stage} alter column {name} drop default, alter column {name} type {sql_type} using null;"
            )),
            Some(_) => {}
        }
    }
    client.batch_execute(&sql).await.map_err(|error| target.failed(error))?;
    let settings = client
        .query_one(
            "select pg_catalog.pg_get_userbyid(relowner)::text, pg_catalog.pg_get_userbyid(relowner) = current_user, \
                    array_to_string(reloptions, ', ') \
             from pg_catalog.pg_class where oid = $1",
            &[&before.oid],
        )
        .await
        .map_err(|error| target.failed(error))?;
    let (owner, is_ours, options): (String, bool, Option<String>) = (settings.get(0), settings.get(1), settings.get(2));
    let mut sql = String::new();
    if !is_ours {
        sql.push_str(&format!("alter table {stage} owner to {};", quote(&owner)));
    }
    if let Some(options) = options {
        sql.push_str(&format!("alter table {stage} set ({options});"));
    }
    client.batch_execute(&sql).await.map_err(|error| target.failed(error))
}

/// An index of the old table.
struct Index {
    name: String,
    unique: bool,
    /// What follows the table's name in its definition: `USING btree (id)`.
    rest: String,
    /// `primary key` or `unique`, if a constraint owns the index, and what makes it deferrable.
    constraint: Option<(&'static str, &'static str)>,
    comment: Option<String>,
}

async fn indexes(client: &impl GenericClient, target: &Target, table: u32) -> Result<Vec<Index>> {
    let rows = client
        .query(
            "select x.relname::text, i.indisunique, pg_catalog.pg_get_indexdef(x.oid), \
                    format('%I', x.relname), format('%I.%I', n.nspname, c.relname), \
                    k.contype::text, k.condeferrable, k.condeferred, \
                    coalesce(pg_catalog.obj_description(k.oid, 'pg_constraint'), \
                             pg_catalog.obj_description(x.oid, 'pg_class')) \
             from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid \
             join pg_catalog.pg_class c on c.oid = i.indrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             left join pg_catalog.pg_constraint k on k.conindid = x.oid and k.conrelid = c.oid and k.contype in ('p', 'u') \
             where i.indrelid = $1 order by x.oid",
            &[&table],
        )
        .await
        .map_err(|error| target.failed(error))?;
    rows.iter()
        .map(|row| {
            let (unique, definition): (bool, String) = (row.get(1), row.get(2));
            let (index, table): (String, String) = (row.get(3), row.get(4));
            let head = format!("CREATE {}INDEX {index} ON {table} ", if unique { "UNIQUE " } else { "" });
            let rest = definition.strip_prefix(&head).ok_or_else(|| {
                Error::internal(format!("{}: the index {index} cannot be made again: {definition}", target.name()))
            })?;
            let deferred = match (row.get::<_, Option<bool>>(6), row.get::<_, Option<bool>>(7)) {
                (Some(true), Some(true)) => " deferrable initially deferred",
                (Some(true), _) => " deferrable",
                _ => "",
            };
            let constraint = match row.get::<_, Option<String>>(5).as_deref() {
                Some("p") => Some(("primary key", deferred)),
                Some(_) => Some(("unique", deferred)),
                None => None,
            };
            Ok(Index { name: row.get(0), unique, rest: rest.to_owned(), constraint, comment: row.get(8) })
        })
        .collect()
}

/// The indexes that were asked for beyond those that the old table has.
fn asked_for<'a>(plan: &'a Plan, old: &[Index]) -> Vec<&'a Vec<String>> {
    let is_new = |columns: &&Vec<String>| {
        let list = quote_all(columns.iter().map(String::as_str));
        let bare = columns.join(", ");
        !old.iter()
            .any(|index| index.rest.ends_with(&format!("({list})")) || index.rest.ends_with(&format!("({bare})")))
    };
    plan.request.indexes.iter().filter(is_new).collect()
}

/// Builds the indexes on the staging table, before the table is locked.
pub async fn make_indexes(client: &Client, target: &Target, plan: &Plan) -> Result<()> {
    let Some(before) = &plan.before else { return Ok(()) };
    let old = indexes(client, target, before.oid).await?;
    let stage = target.beside(&plan.stage);
    let mut sql = String::new();
    for (number, index) in old.iter().enumerate() {
        let unique = if index.unique { "unique " } else { "" };
        let name = quote(&built_name(plan, number));
        sql.push_str(&format!("create {unique}index if not exists {name} on {stage} {};", index.rest));
    }
    for (number, columns) in asked_for(plan, &old).into_iter().enumerate() {
        let name = quote(&built_name(plan, old.len() + number));
        let list = quote_all(columns.iter().map(String::as_str));
        sql.push_str(&format!("create index if not exists {name} on {stage} ({list});"));
    }
    client.batch_execute(&sql).await.map_err(|error| target.failed(error))
}

/// Locks the table, and looks whether it is still the one that the staging table was made like.
pub async fn still_possible(tx: &Transaction<'_>, target: &Target, plan: &Plan, now: &Table) -> Result<bool> {
    let lock = format!("lock table {} in access exclusive mode", target.sql());
    tx.batch_execute(&lock).await.map_err(|error| target.failed(error))?;
    let Some(before) = &plan.before else { return Ok(false) };
    let same = before.oid == now.oid
        && read_table(tx, &target.table).await?.is_some_and(|locked| locked.columns == before.columns);
    if !same {
        return Err(Error::conflict(format!("{} was altered while it was loaded; it is as it was", target.name()))
            .hint("run the same command again"));
    }
    is_possible(tx, target, now.oid).await
}

/// Puts the staging table in the table's place. Returns 1 if the old one had rows.
pub async fn swap(tx: &Transaction<'_>, target: &Target, plan: &Plan, now: &Table) -> Result<i64> {
    let failed = |error| target.failed(error);
    let (table, stage) = (target.sql(), target.beside(&plan.stage));
    let old = indexes(tx, target, now.oid).await?;
    let sequences = Sequences::read(tx, target, plan, now).await?;
    let row = tx
        .query_one(
            &format!(
                "select exists (select from {table}), pg_catalog.obj_description($1, 'pg_class'), \
                 array(select format('grant %s on table {} to %s%s', a.privilege_type, \
                         case when a.grantee = 0 then 'public' else quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end, \
                         case when a.is_grantable then ' with grant option' else '' end) \
                       from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a where c.oid = $1)",
                table.replace('\'', "''").replace('%', "%%")
            ),
            &[&now.oid],
        )
        .await
        .map_err(failed)?;
    let (had_rows, comment, grants): (bool, Option<String>, Vec<String>) = (row.get(0), row.get(1), row.get(2));

    let mut sql = sequences.before_drop.clone();
    sql.push_str(&format!("drop table {table}; alter table {stage} rename to {};", quote(&target.table.table)));
    sql.push_str(&sequences.after_drop);
    for (number, index) in old.iter().enumerate() {
        let (built, name) = (built_name(plan, number), quote(&index.name));
        match index.constraint {
            Some((kind, deferred)) => {
                let built = quote(&built);
                sql.push_str(&format!(
                    "alter table {table} add constraint {name} {kind} using index {built}{deferred};"
                ));
                if let Some(comment) = &index.comment {
                    sql.push_str(&format!("comment on constraint {name} on {table} is {};", literal(comment)));
                }
            }
            None => {
                sql.push_str(&format!("alter index {} rename to {name};", target.beside(&built)));
                if let Some(comment) = &index.comment {
                    let index = target.beside(&index.name);
                    sql.push_str(&format!("comment on index {index} is {};", literal(comment)));
                }
            }
        }
    }
    if let Some(comment) = comment {
        sql.push_str(&format!("comment on table {table} is {};", literal(&comment)));
    }
    for grant in grants {
        sql.push_str(&grant);
        sql.push(';');
    }
    tx.batch_execute(&sql).await.map_err(failed)?;
    for (number, columns) in asked_for(plan, &old).into_iter().enumerate() {
        let name = free_name(tx, target, &index_name(target, columns)).await?;
        let built = target.beside(&built_name(plan, old.len() + number));
        tx.batch_execute(&format!("alter index {built} rename to {}", quote(&name))).await.map_err(failed)?;
    }
    Ok(i64::from(had_rows))
}

/// What becomes of the sequences of the old table's columns.
struct Sequences {
    before_drop: String,
    after_drop: String,
}

impl Sequences {
    async fn read(tx: &Transaction<'_>, target: &Target, plan: &Plan, now: &Table) -> Result<Self> {
        let failed = |error| target.failed(error);
        let stage = target.beside(&plan.stage);
        let rows = tx
            .query(
                "select a.attname::text, d.deptype::text, s.relname::text, format('%I.%I', n.nspname, s.relname) \
                 from pg_catalog.pg_depend d join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S' \
                 join pg_catalog.pg_namespace n on n.oid = s.relnamespace \
                 join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
                 where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass \
                   and d.refobjid = $1 and d.deptype in ('a', 'i')",
                &[&now.oid],
            )
            .await
            .map_err(failed)?;
        let mut made = Self { before_drop: String::new(), after_drop: String::new() };
        for row in rows {
            let (column, kind, name, sequence): (String, String, String, String) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            if kind == "a" {
                // serial: the default goes on to use the same sequence.
                made.before_drop.push_str(&format!("alter sequence {sequence} owned by {stage}.{};", quote(&column)));
                continue;
            }
            let new: Option<String> = tx
                .query_one("select pg_catalog.pg_get_serial_sequence($1, $2)", &[&stage, &column])
                .await
                .map_err(failed)?
                .get(0);
            let Some(new) = new else { continue };
            made.before_drop.push_str(&format!(
                "select pg_catalog.setval({}::regclass, last_value, is_called) from {sequence};",
                literal(&new)
            ));
            made.after_drop.push_str(&format!("alter sequence {new} rename to {};", quote(&name)));
        }
        Ok(made)
    }
}
