//! What a task prints, on its way to whoever keeps it: in lines, with secrets masked.

use flumen_core::limits::LOG_LINE_BYTES;
use flumen_core::secret::MASK;

/// Secrets shorter than this are not masked: they would be found everywhere.
const SHORTEST_SECRET: usize = 4;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Not by the task: Flumen says it.
    Note,
}

/// Takes what a task prints. Called from several threads.
pub trait Log: Send + Sync {
    /// A line, without its end.
    fn line(&self, stream: Stream, text: &str);

    /// Something that Flumen says and that stays also where the rest of a look is dropped.
    fn news(&self, text: &str) {
        self.line(Stream::Note, text);
    }
}

/// Secrets, found in text. The longest are looked for first: one may contain another.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    secrets: Vec<Hidden>,
}

/// A secret that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

impl Masks {
    /// Masks each of `secrets`, but those of less than four characters. A secret of several lines is masked line by line, as it
    /// is printed.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found: Vec<Hidden> = secrets
            .into_iter()
            .flat_map(|secret| std::iter::once(secret).chain(secret.lines()))
            .map(str::trim)
            .filter(|secret| secret.chars().count() >= SHORTEST_SECRET)
            .map(|secret| Hidden(secret.to_owned()))
            .collect();
        found.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        found.dedup();
        Self { secrets: found }
    }

    /// `text` with stars in place of the secrets.
    pub fn apply<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        let mut masked = std::borrow::Cow::Borrowed(text);
        for Hidden(secret) in &self.secrets {
            if masked.contains(secret.as_str()) {
                masked = std::borrow::Cow::Owned(masked.replace(secret.as_str(), MASK));
            }
        }
        masked
    }

    /// Bytes at the end of a piece of text in which a secret may have begun.
    fn overlap(&self) -> usize {
        self.secrets.first().map_or(0, |Hidden(longest)| longest.len().saturating_sub(1))
    }
}

/// Cuts bytes into lines, masked. A line that does not end is cut where it gets too long, but never within a secret.
#[derive(Debug)]
pub struct Lines {
    masks: Masks,
    rest: Vec<u8>,
}

impl Lines {
    /// Nothing yet.
    pub fn new(masks: Masks) -> Self {
        Self { masks, rest: Vec::new() }
    }

    /// Takes `bytes`, and gives each line that is complete to `line`. A carriage return ends a line too: progress bars use it.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = begin + length;
            let is_pair = self.rest[end] == b'\r' && self.rest.get(end + 1) == Some(&b'\n');
            if self.rest[end] == b'\r' && end + 1 == self.rest.len() {
                // Whether a line feed follows shows with the next bytes.
                break;
            }
            line(&self.masks.apply(&String::from_utf8_lossy(&self.rest[begin..end])));
            begin = end + 1 + usize::from(is_pair);
        }
        self.rest.drain(..begin);
        while self.rest.len() > LOG_LINE_BYTES + self.masks.overlap() {
            // What is before the cut is masked with what follows it, as a secret may lie across.
            let whole = String::from_utf8_lossy(&self.rest).into_owned();
            let masked = self.masks.apply(&whole);
            let cut = floor_char_boundary(&masked, LOG_LINE_BYTES);
            line(&masked[..cut]);
            self.rest = masked[cut..].as_bytes().to_vec();
        }
    }

    /// Gives what is left, where the last line had no end.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            let rest = rest.strip_suffix(b"\r").unwrap_or(&rest);
            line(&self.masks.apply(&String::from_utf8_lossy(rest)));
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(secrets: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(Masks::new(secrets.iter().copied()));
        let mut seen = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn bytes_become_lines() {
        assert_eq!(lines(&[], &[b"a\nb", b"c\r\nd\re", b"\n\nf"]), ["a", "bc", "d", "e", "", "f"]);
        assert_eq!(lines(&[], &[b"a\r", b"\nb\r", b"c"]), ["a", "b", "c"]);
        assert_eq!(lines(&[], &[b"\xff\n"]), ["\u{fffd}"]);
        assert_eq!(lines(&[], &[]), Vec::<String>::new());
    }

    #[test]
    fn secrets_are_masked_wherever_they_are_cut() {
        let secrets = ["hunter2", "hunter2-long", "abc", "one line\nanother line"];
        assert_eq!(lines(&secrets, &[b"x hun", b"ter2 y hunter2-long\nabc"]), ["x *** y ***", "abc"]);
        assert_eq!(lines(&secrets, &[b"another line\n"]), ["***"]);
        // A line that is too long is cut; a secret across the cut stays hidden.
        let long = "z".repeat(LOG_LINE_BYTES - 3) + "hunter2" + &"y".repeat(100);
        let seen = lines(&["hunter2"], &[long.as_bytes()]).concat();
        assert_eq!(seen, "z".repeat(LOG_LINE_BYTES - 3) + MASK + &"y".repeat(100));
        assert!(format!("{:?}", Masks::new(["hunter2"])).contains("***"));
    }
}
