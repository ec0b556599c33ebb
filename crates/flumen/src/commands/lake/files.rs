//! `flumen lake put | get | ls | rm`: files in volumes.

use std::path::PathBuf;

use flumen_core::dataset::TableName;
use flumen_core::{Error, Result};
use flumen_lake::ops::volume::PutOptions;
use futures::StreamExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, bytes, counted};

/// Put files (pictures, logs, archives) into a volume beside the tables
#[derive(Debug, clap::Args)]
pub struct PutCommand {
    /// Local files, or folders with all that is in them; and before or behind them where to: lake.NAMESPACE.VOLUME/PATH
    #[arg(required = true, num_args = 2.., value_names = ["FILE", "ADDRESS"])]
    paths: Vec<String>,
    /// What is in them, such as image/png [default: by the ending]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// A tag for each; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// What they are
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Get a file out of a volume
#[derive(Debug, clap::Args)]
pub struct GetCommand {
    /// lake.NAMESPACE.VOLUME/PATH
    address: String,
    /// Where to [default: its name, here]; - for standard output
    to: Option<PathBuf>,
}

/// List the files of a volume
#[derive(Debug, clap::Args)]
pub struct LsCommand {
    /// lake.NAMESPACE.VOLUME, with the beginning of a path behind it
    address: String,
}

/// Remove files from a volume: one, all below a path that ends with /, or the volume
#[derive(Debug, clap::Args)]
pub struct RmCommand {
    /// lake.NAMESPACE.VOLUME/PATH
    address: String,
}

/// The volume and the path in `lake.files.images/2024/cat.png`.
fn parse(address: &str) -> Result<(TableName, &str)> {
    let (volume, path) = address.split_once('/').unwrap_or((address, ""));
    Ok((lake_table(volume)?, path))
}

impl PutCommand {
    /// Where to, and what.
    fn places(&self) -> Result<(&str, &[String])> {
        match self.paths.as_slice() {
            [sources @ .., to] if to.starts_with("lake.") => Ok((to, sources)),
            [to, sources @ ..] if to.starts_with("lake.") => Ok((to, sources)),
            _ => Err(Error::invalid("it is not said which volume to put this into")
                .hint("write lake.NAMESPACE.VOLUME/ behind the files: flumen lake put cat.png lake.files.images/")),
        }
    }

    pub async fn run(self, context: &Context) -> Result<()> {
        let (to, sources) = self.places()?;
        let (volume, prefix) = parse(to)?;
        let mut files = Vec::new();
        for source in sources {
            collect(source.as_ref(), &mut files)?;
        }
        let one = files.len() == 1 && !prefix.is_empty() && !prefix.ends_with('/');
        if !one && !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(Error::invalid(format!("'{to}' names one file, and there are several to put"))
                .hint("end the address with a slash"));
        }
        let named = |(source, name): (PathBuf, String)| {
            if one { (source, prefix.to_owned()) } else { (source, format!("{prefix}{name}")) }
        };
        let files: Vec<(PathBuf, String)> = files.into_iter().map(named).collect();
        let options = PutOptions {
            media_type: self.media_type.clone(),
            description: self.description.clone(),
            tags: self.tags.iter().cloned().collect(),
        };
        let put = destination::catalog(context)?.put_files(&volume, &files, &options).await?;
        if context.output.json {
            let shown = files.iter().zip(&put).map(|((_, path), file)| {
                json!({ "path": path, "size": file.size, "checksum": file.checksum, "media_type": file.media_type })
            });
            return context.output.json(&shown.collect::<Vec<_>>());
        }
        let size = put.iter().map(|file| file.size).sum();
        context.output.note(format_args!(
            "put {}, {}, into lake.{volume}",
            counted(put.len() as u64, "file"),
            bytes(size)
        ));
        Ok(())
    }
}

/// The files at `source`, with the paths that they are to have.
fn collect(source: &std::path::Path, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let failed = |error| Error::io(source.display(), error);
    let name = source.file_name().map(|name| name.to_string_lossy().into_owned());
    let metadata = std::fs::metadata(source).map_err(failed)?;
    if !metadata.is_dir() {
        let name = name.ok_or_else(|| Error::invalid(format!("{}: a file without a name", source.display())))?;
        files.push((source.to_owned(), name));
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(source)
        .map_err(failed)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .map_err(failed)?;
    entries.sort();
    for entry in entries {
        let mut below = Vec::new();
        collect(&entry, &mut below)?;
        let within =
            entry.is_dir().then(|| entry.file_name().map(|name| name.to_string_lossy().into_owned())).flatten();
        files.extend(below.into_iter().map(|(path, name)| match &within {
            Some(folder) => (path, format!("{folder}/{name}")),
            None => (path, name),
        }));
    }
    Ok(())
}

impl GetCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (volume, path) = parse(&self.address)?;
        let (file, mut stream) = destination::catalog(context)?.get_file(&volume, path).await?;
        let name = path.rsplit('/').next().unwrap_or(path);
        let target = match self.to {
            Some(target) if target.as_os_str() == "-" => {
                while let Some(bytes) = stream.next().await {
                    context.output.bytes(&bytes?)?;
                }
                return Ok(());
            }
            Some(target) if target.is_dir() => target.join(name),
            Some(target) => target,
            None => PathBuf::from(name),
        };
        let failed = |error| Error::io(target.display(), error);
        let mut partial = target.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut output = tokio::fs::File::create(&partial).await.map_err(failed)?;
        while let Some(bytes) = stream.next().await {
            output.write_all(&bytes?).await.map_err(failed)?;
        }
        output.flush().await.map_err(failed)?;
        std::fs::rename(&partial, &target).map_err(failed)?;
        if context.output.json {
            return context.output.json(&json!({ "file": target, "size": file.size, "checksum": file.checksum }));
        }
        context.output.note(format_args!("{}: {}", target.display(), bytes(file.size)));
        Ok(())
    }
}

impl LsCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (name, prefix) = parse(&self.address)?;
        let state = destination::catalog(context)?.read().await?;
        let volume = state.volumes.get(&name).ok_or_else(|| {
            let known: Vec<String> = state.volumes.keys().map(ToString::to_string).collect();
            Error::not_found(format!("there is no volume '{name}'"))
                .did_you_mean(&name.to_string(), known.iter().map(String::as_str))
        })?;
        let files = volume.files.iter().filter(|(path, _)| path.starts_with(prefix));
        if context.output.json {
            let shown = files.map(|(path, file)| {
                json!({
                    "path": path, "size": file.size, "media_type": file.media_type, "checksum": file.checksum,
                    "created": file.created, "tags": file.about.tags, "description": file.about.description,
                })
            });
            return context.output.json(&shown.collect::<Vec<_>>());
        }
        let mut table = Table::new(["path", "size", "type", "created", "tags", "description"]);
        for (path, file) in files {
            table.row([
                path.clone(),
                bytes(file.size),
                file.media_type.clone(),
                file.created.format("%Y-%m-%d %H:%M:%S").to_string(),
                file.about.tags.iter().cloned().collect::<Vec<_>>().join(" "),
                file.about.description.clone().unwrap_or_default(),
            ]);
        }
        context.output.table(&table)
    }
}

impl RmCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (volume, path) = parse(&self.address)?;
        let gone = destination::catalog(context)?.remove_files(&volume, path).await?;
        if context.output.json {
            return context.output.json(&json!({ "removed": gone }));
        }
        context.output.note(format_args!("removed {} from lake.{volume}", counted(gone.len() as u64, "file")));
        Ok(())
    }
}
