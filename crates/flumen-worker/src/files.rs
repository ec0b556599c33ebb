//! Files that flows name: on the local disk or in an object store, by a name or a pattern.

use flumen_core::{Error, Result};
use flumen_project::connections::local::LocalConfig;
use flumen_project::{Project, StoreAt};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use url::Url;

/// What a pattern has that a name has not.
const WILDCARDS: [char; 2] = ['*', '?'];

/// A file that was found.
pub(crate) struct Found {
    /// Where it is, as the flow would name it.
    pub address: String,
    /// What its store says of it.
    pub meta: ObjectMeta,
}

/// The files that `pattern` names, sorted: no more than `limit`.
///
/// Errors: `Invalid` for what is no file, and for credentials that are wrong; those of the store.
pub(crate) async fn find(project: &Project, pattern: &str, limit: usize) -> Result<Vec<Found>> {
    let (scheme, rest) = pattern.split_once("://").map_or((None, pattern), |(scheme, rest)| (Some(scheme), rest));
    if matches!(scheme, Some("http" | "https")) {
        return Err(Error::invalid(format!("'{pattern}' is not an object"))
            .hint("wait for an answer of a web server with 'http'"));
    }
    let begin = rest.find(WILDCARDS).map_or(rest.len(), |at| rest[..at].rfind('/').map_or(0, |slash| slash + 1));
    let (fixed, wild) = rest.split_at(begin);
    let place = match scheme {
        Some(scheme) => {
            let text = format!("{scheme}://{fixed}");
            let url = Url::parse(&text).map_err(|_| Error::invalid(format!("'{text}' is not an address")))?;
            project.object_store_for(&url)?
        }
        None => LocalConfig { root: project.dir().join(fixed) }.object_store()?,
    };
    let parts: Vec<&str> = wild.split('/').filter(|part| !part.is_empty()).collect();
    let mut found = Finds { objects: Vec::new(), limit };
    below(&*place.store, place.path.clone(), &parts, &mut found).await.map_err(|error| failed(pattern, error))?;
    found.objects.sort_by(|a, b| a.location.cmp(&b.location));
    found.objects.truncate(limit);
    let named = |meta: ObjectMeta| Found { address: address(project, &place, scheme, &meta.location), meta };
    Ok(found.objects.into_iter().map(named).collect())
}

/// What was found so far, and how much is wanted.
struct Finds {
    objects: Vec<ObjectMeta>,
    limit: usize,
}

/// A file as the flow would name it.
fn address(project: &Project, place: &StoreAt, scheme: Option<&str>, path: &Path) -> String {
    if scheme.is_some() {
        let mut url = place.url.clone();
        url.set_path(path.as_ref());
        return url.to_string();
    }
    let whole = format!("/{path}");
    let below = whole.strip_prefix(&format!("{}/", project.dir().display())).map(str::to_owned);
    below.unwrap_or(whole)
}

/// The objects below `folder` whose names match `parts`, one part a folder. It looks into no folder that does not.
fn below<'a>(
    store: &'a dyn ObjectStore,
    folder: Path,
    parts: &'a [&'a str],
    found: &'a mut Finds,
) -> BoxFuture<'a, object_store::Result<()>> {
    Box::pin(async move {
        if found.objects.len() >= found.limit {
            return Ok(());
        }
        let Some((part, rest)) = parts.split_first() else {
            match store.head(&folder).await {
                Ok(object) => found.objects.push(object),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        };
        if *part == "**" {
            let mut all = store.list(Some(&folder));
            while let Some(object) = next(all.try_next().await)? {
                let rest: Option<Vec<String>> = object
                    .location
                    .prefix_match(&folder)
                    .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
                if rest.is_some_and(|rest| matches(parts, &rest)) {
                    found.objects.push(object);
                }
                if found.objects.len() >= found.limit {
                    break;
                }
            }
            return Ok(());
        }
        if !part.contains(WILDCARDS) {
            return below(store, folder.join(*part), rest, found).await;
        }
        let Some(listed) = next(store.list_with_delimiter(Some(&folder)).await.map(Some))? else { return Ok(()) };
        let fits = |path: &Path| path.filename().is_some_and(|name| wildcard(part, name));
        if rest.is_empty() {
            found.objects.extend(listed.objects.into_iter().filter(|object| fits(&object.location)));
            return Ok(());
        }
        for below in listed.common_prefixes.into_iter().filter(fits) {
            self::below(store, below, rest, found).await?;
        }
        Ok(())
    })
}

/// What came of listing: nothing, where the folder is not there.
fn next<T>(listed: object_store::Result<Option<T>>) -> object_store::Result<Option<T>> {
    match listed {
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        listed => listed,
    }
}

/// Whether the parts of a path match those of a pattern, in which `**` stands for any number.
fn matches(pattern: &[&str], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), first) => matches(rest, path) || first.is_some_and(|(_, more)| matches(pattern, more)),
        (Some((part, rest)), Some((first, more))) => wildcard(part, first) && matches(rest, more),
        _ => false,
    }
}

/// Whether a name matches a pattern. A hidden file is matched by a pattern that says so alone.
fn wildcard(pattern: &str, name: &str) -> bool {
    fn from(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), first) => from(rest, name) || first.is_some_and(|(_, more)| from(pattern, more)),
            (Some(('?', rest)), Some((_, more))) => from(rest, more),
            (Some((one, rest)), Some((other, more))) => one == other && from(rest, more),
            _ => false,
        }
    }
    let is_hidden = name.starts_with('.') && !pattern.starts_with('.');
    !is_hidden && from(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
}

fn failed(pattern: &str, error: object_store::Error) -> Error {
    let message = format!("{pattern}: {error}");
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::invalid(message).hint("check the credentials in the connection")
        }
        error => Error::unavailable(message).caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, path: &str| {
            let path: Vec<String> = path.split('/').map(str::to_owned).collect();
            matches(&pattern.split('/').collect::<Vec<_>>(), &path)
        };
        for (pattern, path, expect) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a/b.csv", false),
            ("**/*.csv", "a/b/c.csv", true),
            ("**/*.csv", "c.csv", true),
            ("a?c*", "abcdef", true),
            ("a?c*", "ac", false),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("2021-*/x", "2021-01/x", true),
            ("2021-*/x", "2021-01/y", false),
        ] {
            assert_eq!(check(pattern, path), expect, "{pattern} {path}");
        }
    }
}
