//! Histories from seeds: what is random in a test comes from a number, so that a failure can be played again.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Chance, from a seed.
///
/// Source: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub struct Random(u64);

impl Random {
    /// Chance that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        first + (self.number() % (last - first + 1) as u64) as i64
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, of_hundred: u64) -> bool {
        self.number() % 100 < of_hundred
    }

    /// One of `from`.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// An id.
    pub fn uuid(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(self.number()) << 64 | u128::from(self.number()))
    }
}

/// Plays the histories of `seeds` seeds, by as many threads as there are cores, until one goes wrong: what happened in it and
/// what went wrong are told then. `FLUMEN_SEEDS` is another number of them; `FLUMEN_SEED` replays one, and prints what happened.
#[allow(clippy::print_stdout, reason = "what happened in the history that was asked for, or that went wrong")]
pub fn play_all(seeds: u64, play: impl Fn(u64) -> (Vec<String>, Result<(), String>) + Sync) {
    if let Some(seed) = setting("FLUMEN_SEED") {
        let (trace, result) = play(seed);
        println!("{}", trace.join("\n"));
        return result.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    let seeds = setting("FLUMEN_SEEDS").unwrap_or(seeds);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return None;
                }
                if let (trace, Err(wrong)) = play(seed) {
                    next.store(seeds, Ordering::Relaxed);
                    return Some((seed, trace, wrong));
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min_by_key(|(seed, ..)| *seed)
    });
    if let Some((seed, trace, wrong)) = failed {
        println!("{}", trace.join("\n"));
        panic!("seed {seed}: {wrong}\nFLUMEN_SEED={seed} replays it");
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} should be a number")))
}
