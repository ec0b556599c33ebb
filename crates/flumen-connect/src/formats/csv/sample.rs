//! Guesses the columns' types from samples, so that later surprises are rare: from the beginning of the file, and, where
//! one can seek, from places all over it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use flumen_core::limits;
use flumen_core::text::{TextOptions, TypeSet, classify};
use memchr::{memchr, memrchr};

use super::dialect::{Dialect, records, unquoted};
use crate::blob::Blob;

/// Narrows `types` by the records in `text`, which begins with one. The last is left out unless the text `ended`.
pub(super) fn add(text: &[u8], ended: bool, dialect: &Dialect, options: &TextOptions, types: &mut [TypeSet]) {
    let quote = dialect.marks.quote;
    records(text, ended, dialect.marks, |fields| {
        if fields.len() < types.len() {
            return true;
        }
        for (types, field) in types.iter_mut().zip(fields) {
            let value = unquoted(field, quote);
            let value = value.trim_ascii();
            if *types != TypeSet::TEXT && !options.is_null(value) {
                *types = types.and(classify(value, options));
            }
        }
        true
    });
}

/// Narrows `types` by samples from all over a local file. False: this is none, or it cannot be read.
pub(super) fn add_places(blob: &dyn Blob, dialect: &Dialect, options: &TextOptions, types: &mut [TypeSet]) -> bool {
    // The whole of a remote file would have to be there first.
    if blob.address().contains("://") {
        return false;
    }
    let (Some(size), Ok(path)) = (blob.size(), blob.local_file()) else { return false };
    let Ok(mut file) = File::open(path) else { return false };
    let places = limits::SAMPLE_PLACES as u64;
    let mut text = Vec::with_capacity(limits::SAMPLE_BYTES);
    for place in 1..=places {
        let last = place == places;
        let from = if last { size.saturating_sub(limits::SAMPLE_BYTES as u64) } else { size / places * place };
        text.clear();
        if file.seek(SeekFrom::Start(from)).is_err()
            || file.by_ref().take(limits::SAMPLE_BYTES as u64).read_to_end(&mut text).is_err()
        {
            return false;
        }
        add_place(&text, last, dialect, options, types);
    }
    true
}

fn add_place(text: &[u8], last: bool, dialect: &Dialect, options: &TextOptions, types: &mut [TypeSet]) {
    let Some(begin) = memchr(b'\n', text) else { return };
    let text = &text[begin + 1..];
    let whole = if last { text.len() } else { memrchr(b'\n', text).map_or(0, |at| at + 1) };
    // The newline may have been one inside quotes: then the rows do not have the shape that rows of this file have, and
    // the place says nothing.
    let mut seen = vec![TypeSet::ANY; types.len()];
    let (mut right, mut wrong) = (0, 0);
    let quote = dialect.marks.quote;
    records(&text[..whole], true, dialect.marks, |fields| {
        if fields.len() != dialect.usual_width {
            wrong += 1;
            return true;
        }
        right += 1;
        for (seen, field) in seen.iter_mut().zip(fields) {
            let value = unquoted(field, quote);
            let value = value.trim_ascii();
            if *seen != TypeSet::TEXT && !options.is_null(value) {
                *seen = seen.and(classify(value, options));
            }
        }
        true
    });
    if right > 10 * wrong {
        for (types, seen) in types.iter_mut().zip(seen) {
            *types = types.and(seen);
        }
    }
}
