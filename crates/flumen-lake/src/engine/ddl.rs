//! Statements about names rather than rows: views, external tables, namespaces, comments, keys, renames, drops. Each is one
//! commit of the catalog; in a block, they are committed with it.

use arrow::datatypes::DataType;
use datafusion::catalog::SchemaProvider;
use datafusion::sql::parser::CreateExternalTable;
use datafusion::sql::sqlparser::ast::{
    AlterTableOperation, ColumnOption, CommentDef, CommentObject, CreateTable, Expr, Ident, IndexColumn, ObjectName,
    ObjectType, Owner, RenameTableNameKind, SchemaName, Statement as Sql, TableConstraint,
};
use flumen_core::dataset::TableName;
use flumen_core::sql::Answer;
use flumen_core::{Error, Result};

use super::commands::parts;
use super::write::{declared, name_of, name_of_ident, refuse};
use super::{Engine, columns, external, file_options, system};
use crate::catalog::{
    About, Action, Entry, ExternalEntry, ForeignKey, Key, Kind, Located, Namespace, State, TableEntry, columns_of,
};
use crate::lake::Table;

impl Engine {
    /// Does a statement about names; none for one about tables of the session.
    ///
    /// Errors: those of the statement.
    pub(super) async fn change_catalog(&self, sql: &str, statement: &Sql) -> Result<Option<Answer>> {
        match statement {
            Sql::CreateView(create) => self.create_view(sql, create).await,
            Sql::CreateSchema { schema_name, if_not_exists, .. } => {
                self.create_schema(schema_name, *if_not_exists).await.map(Some)
            }
            Sql::Drop { object_type, if_exists, names, cascade, .. } => {
                self.drop_names(*object_type, names, *if_exists, *cascade).await
            }
            Sql::Comment { object_type, object_name, comment, .. } => {
                self.comment(*object_type, object_name, comment.as_deref()).await.map(Some)
            }
            other => refuse(&other.to_string(), "make the namespace anew, and rename its tables"),
        }
    }

    /// Changes the catalog, in the block that has begun or at once.
    pub(super) async fn decide(
        &self,
        reason: &str,
        mut decide: impl FnMut(&State) -> Result<Vec<Action>> + Send,
    ) -> Result<()> {
        self.check_may_write()?;
        let catalog = self.tables.catalog(reason)?;
        let mut guard = self.tables.block.lock().await;
        if let Some(block) = guard.as_mut() {
            let state = block.state(catalog).await?;
            let actions = decide(&state)?;
            return block.change(catalog, actions).await;
        }
        drop(guard);
        catalog.change(reason, decide).await.map(drop)
    }

    /// The entry of a table that the catalog does not know, if it is there.
    async fn unregistered(&self, name: &TableName) -> Result<Option<TableEntry>> {
        match self.tables.locate(name).await? {
            Some(Located::Table { table, entry: None, .. }) if self.tables.exists(name).await? => {
                Ok(Some(self.tables.catalog(name)?.new_entry(table.location())))
            }
            _ => Ok(None),
        }
    }

    /// Changes what the catalog says about `name`.
    async fn edit(&self, name: &TableName, edit: impl Fn(&mut Entry) -> Result<()> + Send + Sync) -> Result<()> {
        let environment = self.tables.environment();
        let unregistered = self.unregistered(name).await?;
        self.decide(&format!("about {name}"), |state| {
            let before = state.entry(&environment, name)?;
            let mut entry = match (&before, &unregistered) {
                (Some(entry), _) => entry.clone(),
                (None, Some(entry)) => Entry::Table(entry.clone()),
                (None, None) => return Err(Error::not_found(format!("there is no table '{name}'"))),
            };
            edit(&mut entry)?;
            if before.as_ref() == Some(&entry) {
                return Ok(Vec::new());
            }
            Ok(vec![state.put(&environment, name, entry)?])
        })
        .await
    }

    pub(super) async fn edit_table(
        &self,
        name: &TableName,
        edit: impl Fn(&mut TableEntry) -> Result<()> + Send + Sync,
    ) -> Result<()> {
        self.edit(name, |entry| match entry {
            Entry::Table(table) => edit(table),
            other => Err(Error::invalid(format!("'{name}' is a {}, not a table", other.kind().name()))),
        })
        .await
    }

    /// Makes `entry` what `name` means.
    pub(super) async fn put_new(&self, name: &TableName, entry: Entry, replace: bool, keep: bool) -> Result<()> {
        let environment = self.tables.environment();
        let unregistered = self.unregistered(name).await?;
        let kind = entry.kind();
        self.decide(&format!("create {name}"), |state| {
            let there = state.entry(&environment, name)?;
            let taken = there.as_ref().map(Entry::kind).or(unregistered.as_ref().map(|_| Kind::Table));
            match taken {
                Some(_) if keep => return Ok(Vec::new()),
                Some(of) if !replace || of != kind => {
                    return Err(Error::conflict(format!("there is a {} '{name}' already", of.name())).hint(
                        if of == kind {
                            "write create or replace"
                        } else {
                            "choose another name, or drop that one first"
                        },
                    ));
                }
                _ => {}
            }
            let mut entry = entry.clone();
            if let (Some(before), true) = (&there, entry.about().is_empty()) {
                entry.about_mut().clone_from(before.about());
            }
            Ok(vec![state.put(&environment, name, entry)?])
        })
        .await
    }

    /// Makes an external table.
    pub(super) async fn create_external(&self, create: &CreateExternalTable) -> Result<Option<Answer>> {
        if create.temporary || self.tables.catalog.is_none() {
            return refuse(
                "create temporary external table",
                "create temporary view t as select * from 'file.parquet'",
            );
        }
        let format = create.file_type.to_lowercase();
        if !external::FORMATS.contains(&format.as_str()) {
            return Err(Error::invalid(format!("an external table cannot be stored as '{format}'"))
                .hint(format!("there are: {}", external::FORMATS.join(", "))));
        }
        let [location] = create.locations.as_slice() else {
            return refuse("an external table in several places", "write one pattern, such as 'data/*.csv'");
        };
        if create.unbounded || !create.constraints.is_empty() {
            return refuse("this form of create external table", "leave constraints out: files say what they hold");
        }
        if !self.external_tables {
            return Err(Error::invalid("external tables cannot be made in this session")
                .hint("whoever runs the server can make them with 'flumen sql' on the machine itself"));
        }
        self.check_file_access(location)?;
        let name = self.name_for(&create.name)?;
        let fields = create.columns.iter().map(|column| {
            let data_type = self.sql_type("", &column.data_type)?;
            Ok(arrow::datatypes::Field::new(name_of_ident(&column.name), data_type, true))
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let of_folders = |name: &str| create.table_partition_cols.iter().any(|of| of.eq_ignore_ascii_case(name));
        let texts = fields.iter().filter(|field| {
            of_folders(field.name()) && matches!(field.data_type(), DataType::Utf8 | DataType::Utf8View)
        });
        let texts: Vec<&str> = texts.map(|field| field.name().as_str()).collect();
        let folder_text = (!texts.is_empty()).then(|| (file_options::FOLDER_TEXT.to_owned(), texts.join(",")));
        // 'partitioned by (year int)' declares nothing of what is in the files.
        let has_own = fields.iter().any(|field| !of_folders(field.name()));
        let declared = has_own.then(|| columns_of(&arrow::datatypes::Schema::new(fields.clone())));
        let options = create
            .options
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into_string().unwrap_or_else(|| value.to_string())));
        let location = self.tables.files.register(location, &format)?;
        let entry = ExternalEntry {
            id: self.writers.ids.next(),
            format,
            location,
            options: options.chain(folder_text).collect(),
            columns: declared,
            about: About::default(),
            column_notes: Default::default(),
            created: self.writers.clock.now(),
        };
        // What cannot be read now is a mistake, not a table.
        let columns = external::open(&self.tables, &name, &entry).await?.schema();
        for column in &create.table_partition_cols {
            columns::spelled(&columns, &column.to_lowercase(), "the data").map_err(|error| {
                error.hint(format!("no folder is called {column}=…, or columns are listed without it"))
            })?;
        }
        self.put_new(&name, Entry::External(entry), create.or_replace, create.if_not_exists).await?;
        Ok(Some(Answer::done("CREATE TABLE", None)))
    }

    async fn create_schema(&self, name: &SchemaName, if_not_exists: bool) -> Result<Answer> {
        let (SchemaName::Simple(name) | SchemaName::NamedAuthorization(name, _)) = name else {
            return refuse("create schema authorization", "create schema name");
        };
        let name = name_of(name)?;
        TableName::new(name.as_str(), "t")?;
        if matches!(name.as_str(), system::NAMESPACE | "information_schema" | "pg_catalog") {
            return Err(Error::conflict(format!("there is a schema '{name}' already")));
        }
        let known = self.tables.listed().await?.iter().any(|listed| listed.name.namespace == name);
        let created = self.writers.clock.now();
        self.decide(&format!("create schema {name}"), |state| {
            if known || state.namespaces.contains_key(&name) {
                return match if_not_exists {
                    true => Ok(Vec::new()),
                    false => Err(Error::conflict(format!("there is a schema '{name}' already"))
                        .hint("write create schema if not exists")),
                };
            }
            Ok(vec![Action::PutNamespace {
                name: name.clone(),
                namespace: Namespace { about: About::default(), created },
            }])
        })
        .await?;
        Ok(Answer::done("CREATE SCHEMA", None))
    }

    async fn drop_names(
        &self,
        object: ObjectType,
        names: &[ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Option<Answer>> {
        let of_session = |name: &ObjectName| match name.0.as_slice() {
            [part] => part.as_ident().is_some_and(|ident| self.tables.session.table_exist(&name_of_ident(ident))),
            _ => false,
        };
        let kinds: &[Kind] = match object {
            _ if names.iter().all(of_session) || self.tables.catalog.is_none() => return Ok(None),
            ObjectType::Table => &[Kind::Table, Kind::External],
            ObjectType::View | ObjectType::MaterializedView => &[Kind::View],
            ObjectType::Schema => {
                for name in names {
                    self.drop_schema(&name_of(name)?, if_exists, cascade).await?;
                }
                return Ok(Some(Answer::done("DROP SCHEMA", None)));
            }
            other => return refuse(&format!("drop {other}"), "drop tables, views and schemas"),
        };
        let mut found = Vec::new();
        for name in names {
            match self.tables.existing(&parts(name)?).await {
                Ok(name) => {
                    let kind = match self.tables.locate(&name).await? {
                        Some(Located::View(_)) => Kind::View,
                        Some(Located::External(_)) => Kind::External,
                        _ => Kind::Table,
                    };
                    if !kinds.contains(&kind) {
                        return Err(Error::invalid(format!("'{name}' is a {}", kind.name()))
                            .hint(format!("write drop {} {name}", if kind == Kind::View { "view" } else { "table" })));
                    }
                    found.push(name);
                }
                Err(error) if if_exists && error.kind() == flumen_core::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.drop_entries(&found).await?;
        let tag = if object == ObjectType::Table { "DROP TABLE" } else { "DROP VIEW" };
        Ok(Some(Answer::done(tag, None)))
    }

    async fn drop_entries(&self, names: &[TableName]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let environment = self.tables.environment();
        let mut entries = Vec::new();
        for name in names {
            entries.push((name, self.unregistered(name).await?));
        }
        let at = self.writers.clock.now();
        let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.decide(&format!("drop {list}"), |state| {
            let mut actions = Vec::new();
            for (name, unregistered) in &entries {
                actions.extend(state.remove(&environment, name, unregistered.as_ref(), at, "dropped")?);
            }
            Ok(actions)
        })
        .await
    }

    async fn drop_schema(&self, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
        let listed = self.tables.listed().await?;
        let inside: Vec<TableName> =
            listed.into_iter().map(|listed| listed.name).filter(|of| of.namespace == name).collect();
        let catalog = self.tables.catalog(name)?;
        let registered = self.tables.state(catalog).await?.namespaces.contains_key(name);
        if inside.is_empty() && !registered {
            return match if_exists {
                true => Ok(()),
                false => Err(Error::not_found(format!("there is no schema '{name}'"))),
            };
        }
        if !inside.is_empty() && !cascade {
            let names: Vec<&str> = inside.iter().map(|name| name.table.as_str()).collect();
            return Err(Error::conflict(format!(
                "the schema '{name}' is not empty: it has {}",
                super::errors::list(&names)
            ))
            .hint("write drop schema … cascade to drop what is in it, too"));
        }
        self.drop_entries(&inside).await?;
        self.decide(&format!("drop schema {name}"), |state| {
            let there = state.namespaces.contains_key(name);
            Ok(there.then(|| Action::RemoveNamespace { name: name.to_owned() }).into_iter().collect())
        })
        .await
    }

    async fn comment(&self, object: CommentObject, name: &ObjectName, comment: Option<&str>) -> Result<Answer> {
        let comment = comment.map(str::to_owned);
        match object {
            CommentObject::Table | CommentObject::View => {
                let name = self.tables.existing(&parts(name)?).await?;
                self.edit(&name, |entry| {
                    entry.about_mut().description.clone_from(&comment);
                    Ok(())
                })
                .await?;
            }
            CommentObject::Column => {
                let mut of_table = name.clone();
                let last = of_table.0.pop().filter(|_| !of_table.0.is_empty());
                let column = last.and_then(|part| part.as_ident().map(name_of_ident)).ok_or_else(|| {
                    Error::invalid(format!("'{name}' is not the name of a column")).hint("write table.column")
                })?;
                let table = self.tables.existing(&parts(&of_table)?).await?;
                let schema = self
                    .columns(&format!("{}.{}", columns::quoted(&table.namespace), columns::quoted(&table.table)))
                    .await?;
                let column = columns::spelled(&schema, &column, &table.to_string())?;
                self.edit(&table, |entry| {
                    let about = entry.columns_mut().entry(column.clone()).or_default();
                    about.description.clone_from(&comment);
                    if about.is_empty() {
                        entry.columns_mut().remove(&column);
                    }
                    Ok(())
                })
                .await?;
            }
            CommentObject::Schema => {
                let name = name_of(name)?;
                let created = self.writers.clock.now();
                self.decide(&format!("about {name}"), |state| {
                    let mut namespace =
                        state.namespaces.get(&name).cloned().unwrap_or(Namespace { about: About::default(), created });
                    namespace.about.description.clone_from(&comment);
                    Ok(vec![Action::PutNamespace { name: name.clone(), namespace }])
                })
                .await?;
            }
            other => return refuse(&format!("comment on {other}"), "comment on tables, views, columns and schemas"),
        }
        Ok(Answer::done("COMMENT", None))
    }

    /// Does an ALTER TABLE that is about names; none for one that is about the table itself.
    ///
    /// Errors: `Invalid` where both are mixed.
    pub(super) async fn alter_entry(
        &self,
        name: &ObjectName,
        operations: &[AlterTableOperation],
    ) -> Result<Option<Answer>> {
        let about_names = |operation: &AlterTableOperation| match operation {
            AlterTableOperation::RenameTable { .. }
            | AlterTableOperation::OwnerTo { .. }
            | AlterTableOperation::ClusterBy { .. }
            | AlterTableOperation::DropClusteringKey
            | AlterTableOperation::DropPrimaryKey { .. } => true,
            AlterTableOperation::AddConstraint { constraint, .. } => !matches!(constraint, TableConstraint::Check(_)),
            _ => false,
        };
        if !operations.iter().any(about_names) {
            return self.drop_declared(name, operations).await;
        }
        let [operation] = operations else {
            return refuse("alter table with several changes at once", "write one alter table for each");
        };
        let table = self.tables.existing(&parts(name)?).await?;
        match operation {
            AlterTableOperation::RenameTable { table_name } => {
                let (RenameTableNameKind::As(new) | RenameTableNameKind::To(new)) = table_name;
                let new = match parts(new)?.as_slice() {
                    [only] => TableName::new(table.namespace.as_str(), only.as_str())?,
                    _ => self.name_for(new)?,
                };
                let environment = self.tables.environment();
                let unregistered = self.unregistered(&table).await?;
                if self.tables.exists(&new).await? {
                    return Err(Error::conflict(format!("there is a '{new}' already"))
                        .hint("choose another name, or drop that one first"));
                }
                self.decide(&format!("rename {table} to {new}"), |state| {
                    state.rename(&environment, &table, &new, unregistered.as_ref())
                })
                .await?;
            }
            AlterTableOperation::OwnerTo { new_owner } => {
                let owner = match new_owner {
                    Owner::Ident(ident) => name_of_ident(ident),
                    other => other.to_string(),
                };
                self.edit(&table, |entry| {
                    entry.about_mut().owner = Some(owner.clone());
                    Ok(())
                })
                .await?;
            }
            AlterTableOperation::ClusterBy { exprs } => {
                let names = exprs.iter().map(column_name).collect::<Result<Vec<_>>>()?;
                let names = self.spelled(&table, &names).await?;
                self.edit_table(&table, |entry| {
                    entry.clustering.clone_from(&names);
                    Ok(())
                })
                .await?;
            }
            AlterTableOperation::DropClusteringKey => {
                self.edit_table(&table, |entry| {
                    entry.clustering.clear();
                    Ok(())
                })
                .await?;
            }
            AlterTableOperation::DropPrimaryKey { .. } => {
                self.edit_table(&table, |entry| {
                    entry.primary_key = None;
                    Ok(())
                })
                .await?;
            }
            AlterTableOperation::AddConstraint { constraint, .. } => {
                let mut keys = Keys::default();
                keys.add(&table, constraint)?;
                let keys = self.checked(&table, keys).await?;
                self.edit_table(&table, |entry| keys.put(entry)).await?;
            }
            other => return refuse(&format!("alter table {other}"), "see docs/sql.md for what can be altered"),
        }
        Ok(Some(Answer::done("ALTER TABLE", None)))
    }

    /// Drops a declared key by its name, if that is what is asked for.
    async fn drop_declared(&self, name: &ObjectName, operations: &[AlterTableOperation]) -> Result<Option<Answer>> {
        let [AlterTableOperation::DropConstraint { name: constraint, .. }] = operations else { return Ok(None) };
        let table = self.tables.existing(&parts(name)?).await?;
        let Some(Located::Table { entry: Some(entry), .. }) = self.tables.locate(&table).await? else {
            return Ok(None);
        };
        let wanted = name_of_ident(constraint);
        let keys = entry.primary_key.iter().chain(&entry.unique).map(|key| &key.name);
        if !keys.chain(entry.foreign_keys.iter().map(|key| &key.name)).any(|name| *name == wanted) {
            return Ok(None);
        }
        self.edit_table(&table, |entry| {
            entry.primary_key.take_if(|key| key.name == wanted);
            entry.unique.retain(|key| key.name != wanted);
            entry.foreign_keys.retain(|key| key.name != wanted);
            Ok(())
        })
        .await?;
        Ok(Some(Answer::done("ALTER TABLE", None)))
    }

    async fn spelled(&self, table: &TableName, names: &[String]) -> Result<Vec<String>> {
        let quoted = format!("{}.{}", columns::quoted(&table.namespace), columns::quoted(&table.table));
        let schema = self.columns(&quoted).await?;
        names.iter().map(|name| columns::spelled(&schema, name, &table.to_string())).collect()
    }

    /// `keys`, with columns as the table spells them.
    async fn checked(&self, table: &TableName, mut keys: Keys) -> Result<Keys> {
        for key in keys.primary.iter_mut().chain(&mut keys.unique) {
            key.columns = self.spelled(table, &key.columns).await?;
        }
        for key in &mut keys.foreign {
            key.columns = self.spelled(table, &key.columns).await?;
            let of = [key.table.namespace.clone(), key.table.table.clone()];
            if key.table != *table {
                let of = if key.table.namespace.is_empty() { &of[1..] } else { &of[..] };
                key.table = self.tables.existing(of).await?;
            }
        }
        Ok(keys)
    }

    /// Notes in the catalog what a CREATE TABLE that was done says about keys, comments and clustering.
    pub(super) async fn declare(&self, table: &Table, create: &CreateTable) -> Result<()> {
        let name = table.name();
        let mut keys = Keys::default();
        for constraint in &create.constraints {
            keys.add(name, constraint)?;
        }
        let mut notes = Vec::new();
        for column in &create.columns {
            let own = name_of_ident(&column.name);
            for option in &column.options {
                keys.add_option(name, &own, &option.option, option.name.as_ref())?;
                if let ColumnOption::Comment(comment) = &option.option {
                    notes.push((own.clone(), comment.clone()));
                }
            }
        }
        let clustering = declared(create)?.cluster_by;
        let description = create.comment.as_ref().map(|comment| match comment {
            CommentDef::WithEq(text) | CommentDef::WithoutEq(text) => text.clone(),
        });
        let nothing = keys.is_empty() && notes.is_empty() && clustering.is_empty() && description.is_none();
        if nothing && !create.or_replace {
            return Ok(());
        }
        let keys = self.checked(name, keys).await?;
        let clustering = self.spelled(name, &clustering).await?;
        if nothing && self.tables.locate(name).await?.is_none_or(|of| matches!(of, Located::Table { entry: None, .. }))
        {
            return Ok(());
        }
        self.edit_table(name, |entry| {
            (entry.primary_key, entry.unique, entry.foreign_keys) = (None, Vec::new(), Vec::new());
            keys.put(entry)?;
            entry.clustering.clone_from(&clustering);
            entry.columns.clear();
            for (column, comment) in &notes {
                entry.columns.entry(column.clone()).or_default().description = Some(comment.clone());
            }
            if description.is_some() {
                entry.about.description.clone_from(&description);
            }
            Ok(())
        })
        .await
    }

    /// Errors: `NotFound` if there is no such environment.
    pub(super) async fn check_environment(&self, environment: &str) -> Result<()> {
        let catalog = self.tables.catalog(environment)?;
        catalog.read().await?.environment(environment).map(drop)
    }
}

/// Declared keys. Nobody checks them on writing.
#[derive(Default)]
struct Keys {
    primary: Option<Key>,
    unique: Vec<Key>,
    foreign: Vec<ForeignKey>,
}

impl Keys {
    fn is_empty(&self) -> bool {
        self.primary.is_none() && self.unique.is_empty() && self.foreign.is_empty()
    }

    fn add(&mut self, table: &TableName, constraint: &TableConstraint) -> Result<()> {
        let list = |columns: &[IndexColumn]| {
            columns.iter().map(|column| column_name(&column.column.expr)).collect::<Result<Vec<_>>>()
        };
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                let columns = list(&key.columns)?;
                self.primary(Key { name: named(key.name.as_ref(), table, "pkey", &[]), columns })?;
            }
            TableConstraint::Unique(key) => {
                let columns = list(&key.columns)?;
                self.unique.push(Key { name: named(key.name.as_ref(), table, "key", &columns), columns });
            }
            TableConstraint::ForeignKey(key) => {
                let columns: Vec<String> = key.columns.iter().map(name_of_ident).collect();
                self.foreign.push(ForeignKey {
                    name: named(key.name.as_ref(), table, "fkey", &columns),
                    columns,
                    table: referred(&key.foreign_table)?,
                    references: key.referred_columns.iter().map(name_of_ident).collect(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn add_option(
        &mut self,
        table: &TableName,
        column: &str,
        option: &ColumnOption,
        name: Option<&Ident>,
    ) -> Result<()> {
        let columns = vec![column.to_owned()];
        match option {
            ColumnOption::PrimaryKey(_) => self.primary(Key { name: named(name, table, "pkey", &[]), columns })?,
            ColumnOption::Unique(_) => self.unique.push(Key { name: named(name, table, "key", &columns), columns }),
            ColumnOption::ForeignKey(key) => self.foreign.push(ForeignKey {
                name: named(name, table, "fkey", &columns),
                columns,
                table: referred(&key.foreign_table)?,
                references: key.referred_columns.iter().map(name_of_ident).collect(),
            }),
            _ => {}
        }
        Ok(())
    }

    fn primary(&mut self, key: Key) -> Result<()> {
        match self.primary.replace(key) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("a table has one primary key").hint("list its columns: primary key (a, b)")),
        }
    }

    fn put(&self, entry: &mut TableEntry) -> Result<()> {
        if let Some(key) = &self.primary {
            if entry.primary_key.as_ref().is_some_and(|there| there.columns != key.columns) {
                return Err(Error::conflict("the table has a primary key already")
                    .hint("drop it first: alter table … drop primary key"));
            }
            entry.primary_key = Some(key.clone());
        }
        entry.unique.extend(self.unique.iter().cloned());
        entry.foreign_keys.extend(self.foreign.iter().cloned());
        Ok(())
    }
}

/// The name of a constraint, as Postgres would make it up.
fn named(name: Option<&Ident>, table: &TableName, ending: &str, columns: &[String]) -> String {
    let made = || std::iter::once(table.table.as_str()).chain(columns.iter().map(String::as_str)).chain([ending]);
    name.map_or_else(|| made().collect::<Vec<_>>().join("_"), name_of_ident)
}

/// A table that a foreign key refers to; without a namespace, it is yet to be found.
fn referred(name: &ObjectName) -> Result<TableName> {
    match parts(name)?.as_slice() {
        [table] => Ok(TableName { namespace: String::new(), table: table.clone() }),
        [namespace, table] => TableName::new(namespace.as_str(), table.as_str()),
        _ => Err(Error::invalid(format!("'{name}' is not the name of a table"))),
    }
}

fn column_name(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Identifier(ident) => Ok(name_of_ident(ident)),
        other => Err(Error::invalid(format!("'{other}' is not a column"))),
    }
}
