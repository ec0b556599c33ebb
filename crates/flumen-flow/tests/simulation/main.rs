//! Thousands of small histories of flows, each from a seed, with everything that can go wrong: schedulers that step the same run
//! at once and crash before and after each commit, workers that vanish, beat too late, or go on after they have lost their
//! lease, letters that come twice, clocks that jump, people who cancel, clear, mark and pause. What must always hold is checked
//! after each of their steps, by [`checks`], which knows the rules in its own words.
//!
//! - `FLUMEN_SEEDS=100000` tries that many, for a night.
//! - `FLUMEN_SEED=17` replays one, and prints what happened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

mod checks;
mod flows;
mod schedulers;
mod workers;
mod world;

use flumen_core::testkit::seeds;
use world::World;

const SEEDS: u64 = 2_000;

/// Plays the history of one seed; fails with what went wrong.
fn play(seed: u64) -> (Vec<String>, Result<(), String>) {
    let mut world = World::new(seed);
    let result = world.play();
    (world.trace, result)
}

#[test]
fn nothing_goes_wrong_whatever_happens() {
    seeds::play_all(SEEDS, play);
}

#[test]
fn a_seed_is_a_history() {
    for seed in [2, 17, 400] {
        let (first, _) = play(seed);
        let (second, _) = play(seed);
        assert!(first.len() > 50, "{first:?}");
        assert_eq!(first, second);
    }
}

#[test]
fn histories_see_all_that_can_happen() {
    let mut all = String::new();
    for seed in 0..100 {
        all += &play(seed).0.join("\n");
    }
    for what in [
        "conflict",
        "crashes before",
        "crashes after",
        "is refused",
        "a letter comes twice",
        "the clock jumps",
        "expired",
        "its process is gone",
        "→ up_for_retry",
        "→ up_for_reschedule",
        "→ deferred",
        "→ paused",
        "→ removed",
        "→ cancelled",
        "→ upstream_failed",
        "→ skipped",
        "went another way",
        "items",
        "run: running → success",
        "run: running → failed",
        "run: running → cancelled",
        "its rule is teardown",
        "there is nothing to do",
        "the run took longer than",
    ] {
        assert!(all.contains(what), "nowhere: {what}");
    }
}
