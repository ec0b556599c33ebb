//! Files on web servers. One GET a file: what it is, and which version, is in the answer's headers.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use flumen_core::{Error, Result, limits};
use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap};
use url::Url;

use crate::download::{Answer, Failure, Remote, Version, ends_early};

/// What stands in an address in place of a credential.
const MASK: &str = "***";
/// Parameters of a query that carry credentials: those of signed addresses, and what people call theirs.
const SECRET_PARAMETERS: &[&str] = &["signature", "credential", "token", "key", "secret", "password", "auth"];

/// One file on a web server.
pub struct WebFile {
    client: reqwest::Client,
    url: Url,
    address: String,
}

impl WebFile {
    /// The file at `url`, fetched by `client`.
    pub fn new(client: reqwest::Client, url: Url) -> Self {
        let address = public_address(&url);
        Self { client, url, address }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let address = &self.address;
        let after = header_text(headers, header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        let again = |error: Error| Failure::Again { error, after: after.map(Duration::from_secs) };
        match status.as_u16() {
            404 | 410 => Failure::Final(
                Error::not_found(format!("there is nothing at {address} ({})", status.as_u16()))
                    .hint("check the address"),
            ),
            401 | 407 => Failure::Final(
                Error::invalid(format!("{address}: the server asks for credentials ({})", status.as_u16()))
                    .hint("set user and password, or a token, in a connection of kind http"),
            ),
            // Some servers, the one of the TLC among them, say 403 when they mean 429.
            403 => again(
                Error::invalid(format!("{address}: the server refuses (403)"))
                    .hint("check the address and the credentials; if both are right, try again later"),
            ),
            429 => again(Error::unavailable(format!("{address}: too many requests (429)")).hint("try again later")),
            408 | 425 | 500..=599 => {
                again(Error::unavailable(format!("{address}: the server answers {status}")).hint("try again later"))
            }
            _ => Failure::Final(
                Error::invalid(format!("{address}: the server answers {status}")).hint("check the address"),
            ),
        }
    }

    fn broken(&self, error: reqwest::Error) -> Failure {
        let error = flumen_project::connections::http::http_error(&self.url, error);
        match error.kind() {
            flumen_core::ErrorKind::Unavailable => Failure::again(error),
            _ => Failure::Final(error),
        }
    }
}

#[async_trait]
impl Remote for WebFile {
    fn address(&self) -> &str {
        &self.address
    }

    async fn get(&self, from: u64, version: Option<&Version>) -> Result<Answer, Failure> {
        let mut request = self.client.get(self.url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let (1.., Some(etag)) = (from, version.and_then(|version| version.etag.as_deref())) {
            request = request.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, etag);
        }
        let answer = tokio::time::timeout(limits::READ_TIMEOUT, request.send()).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| self.broken(error))?,
            Err(_) => {
                let error = Error::unavailable(format!("{}: the server does not answer", self.address));
                return Err(Failure::again(error.hint("check the address and the network, then try again")));
            }
        };
        let headers = answer.headers();
        let length = answer.content_length();
        let (start, size) = match answer.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT => content_range(headers).ok_or_else(|| {
                Error::unavailable(format!("{}: the server does not say which part it sends", self.address))
            })?,
            status => return Err(self.refused(status, headers)),
        };
        let version = version_of(headers);
        let (address, whole) = (self.address.clone(), size);
        let mut at = start;
        let body = answer.bytes_stream().map(move |chunk| match chunk {
            Ok(bytes) => {
                at += bytes.len() as u64;
                Ok(bytes)
            }
            Err(error) => Err(Failure::again(match whole {
                Some(whole) if at < whole => ends_early(&address, at, whole).caused_by(error.without_url()),
                _ => Error::unavailable(format!("{address} ends early: the connection broke after {at} bytes"))
                    .hint("check the network and the server, then run the same command again")
                    .caused_by(error.without_url()),
            })),
        });
        Ok(Answer { start, size, version, body: body.boxed() })
    }
}

fn header_text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `bytes 100-199/1000`: the first byte, and the size of the whole.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, size) = header_text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, size.trim().parse().ok()))
}

/// What the headers say about the version of the file.
fn version_of(headers: &HeaderMap) -> Version {
    let etag = header_text(headers, header::ETAG).filter(|etag| etag.starts_with('"')).map(str::to_owned);
    let ranges = header_text(headers, header::ACCEPT_RANGES).is_some_and(|units| units.contains("bytes"))
        || headers.contains_key(header::CONTENT_RANGE);
    let (google, crc32c, google_md5) = google_hash(headers);
    // The digest of a part is not that of the whole.
    let is_part = headers.contains_key(header::CONTENT_RANGE);
    let content_md5 = header_text(headers, "content-md5").filter(|_| !is_part);
    let md5 = google_md5.or_else(|| content_md5.and_then(md5_of)).or_else(|| amazon_md5(headers, etag.as_deref()));
    let validator = google
        .or_else(|| content_md5.map(|md5| format!("md5:{md5}")))
        .or_else(|| etag.as_ref().map(|etag| format!("etag:{etag}")));
    Version { validator, etag, ranges, md5, crc32c }
}

fn md5_of(base64: &str) -> Option<[u8; 16]> {
    BASE64.decode(base64.trim()).ok()?.try_into().ok()
}

/// `x-goog-hash: crc32c=…, md5=…`, of the object as it is stored.
fn google_hash(headers: &HeaderMap) -> (Option<String>, Option<u32>, Option<[u8; 16]>) {
    let hashes: Vec<(&str, &str)> = headers
        .get_all("x-goog-hash")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|hash| hash.trim().split_once('='))
        .collect();
    let find = |kind: &str| hashes.iter().find(|(name, _)| *name == kind).map(|(_, value)| *value);
    let validator =
        find("md5").map(|md5| format!("md5:{md5}")).or_else(|| find("crc32c").map(|crc| format!("crc32c:{crc}")));
    // Google unpacks what is stored with gzip, unless asked not to: the hash is then not that of what comes.
    let unpacked = header_text(headers, "x-goog-stored-content-encoding") == Some("gzip")
        && header_text(headers, header::CONTENT_ENCODING) != Some("gzip");
    if unpacked {
        return (validator, None, None);
    }
    let crc32c = find("crc32c").and_then(|crc| BASE64.decode(crc).ok()?.try_into().ok()).map(u32::from_be_bytes);
    (validator, crc32c, find("md5").and_then(md5_of))
}

/// The ETag of S3 is the MD5 of the content, but for what was uploaded in parts or is encrypted with a key of its own.
fn amazon_md5(headers: &HeaderMap, etag: Option<&str>) -> Option<[u8; 16]> {
    let is_s3 = header_text(headers, header::SERVER) == Some("AmazonS3");
    let keyed = header_text(headers, "x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
    let digits = etag?.trim_matches('"');
    if !is_s3 || keyed || digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut md5 = [0; 16];
    for (byte, pair) in md5.iter_mut().zip(0..16) {
        *byte = u8::from_str_radix(&digits[2 * pair..2 * pair + 2], 16).ok()?;
    }
    Some(md5)
}

/// The address of `url` as it may be shown: without user, password, and what a query carries of the kind.
pub fn public_address(url: &Url) -> String {
    let mut shown = url.clone();
    // Only addresses without a host refuse to be changed, and those have no user either.
    let _ = shown.set_username("").and_then(|()| shown.set_password(None));
    shown.set_fragment(None);
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        name == "sig" || SECRET_PARAMETERS.iter().any(|part| name.contains(part))
    };
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let masked = pairs.iter().map(|(name, value)| (name, if is_secret(name) { MASK } else { value.as_str() }));
        shown.query_pairs_mut().clear().extend_pairs(masked);
    }
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn addresses_show_no_credentials() {
        let shown = |url: &str| public_address(&url.parse().unwrap());
        assert_eq!(shown("https://me:pw@host/x.csv?a=1#f"), "https://host/x.csv?a=1");
        assert_eq!(shown("https://h/x?X-Amz-Signature=abc&b=2"), "https://h/x?X-Amz-Signature=***&b=2");
        assert_eq!(shown("https://h/x?sig=abc"), "https://h/x?sig=***");
    }

    #[test]
    fn the_strongest_validator_wins() {
        let md5 = "XrY7u+Ae7tCTyyK7j1rNww==";
        let all = headers(&[
            ("etag", "\"e\""),
            ("content-md5", md5),
            ("x-goog-hash", "crc32c=yZRlqg==,md5=XrY7u+Ae7tCTyyK7j1rNww=="),
        ]);
        let version = version_of(&all);
        assert_eq!(version.validator.as_deref(), Some("md5:XrY7u+Ae7tCTyyK7j1rNww=="));
        assert_eq!(version.crc32c, Some(0xc994_65aa));
        assert!(version.md5.is_some());
        let weak = version_of(&headers(&[("etag", "W/\"e\""), ("accept-ranges", "bytes")]));
        assert_eq!(weak, Version { ranges: true, ..Version::default() });
        let s3 = headers(&[("etag", "\"5eb63bbbe01eeed093cb22bb8f5acdc3\""), ("server", "AmazonS3")]);
        assert_eq!(version_of(&s3).md5, md5_of(md5));
        assert_eq!(version_of(&headers(&[("etag", "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"")])).md5, None);
    }
}
