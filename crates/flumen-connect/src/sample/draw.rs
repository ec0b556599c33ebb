//! Chance without state: numbers drawn for a row depend on a key and the row's number, on nothing else, and everything
//! is done in integers, so that every machine draws the same.

/// The step of splitmix64: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the bits of `x` over the whole word; the finisher of splitmix64.
pub(super) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The numbers drawn for one row.
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    /// Those of row `row` under `key`.
    pub(super) fn new(key: u64, row: u64) -> Self {
        Self(mix(key.wrapping_add(mix(row.wrapping_add(1).wrapping_mul(STEP)))))
    }

    /// 32 bits, all equally likely.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0) >> 32
    }

    /// A number from 0 to `limit` - 1; `limit` is at most 2^32.
    pub(super) fn below(&mut self, limit: u64) -> i64 {
        ((self.bits() * limit) >> 32) as i64
    }

    /// True `per_million` times in a million.
    pub(super) fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million as i64
    }
}

/// Picks one of some values, each as often as its weight says, to one part in 65,536.
#[derive(Debug, Clone)]
pub(super) struct Pick(Vec<u16>);

impl Pick {
    const SLOTS: u64 = 1 << 16;

    /// From values and their weights, which must not all be zero.
    pub(super) fn new(weights: impl IntoIterator<Item = (u16, u64)> + Clone) -> Self {
        let total: u64 = weights.clone().into_iter().map(|(_, weight)| weight).sum::<u64>().max(1);
        let mut slots = Vec::with_capacity(Self::SLOTS as usize);
        let (mut before, mut last) = (0, 0);
        for (value, weight) in weights {
            before += weight;
            slots.resize((before * Self::SLOTS / total) as usize, value);
            last = value;
        }
        slots.resize(Self::SLOTS as usize, last);
        Self(slots)
    }

    /// One value.
    pub(super) fn draw(&self, draw: &mut Draw) -> i64 {
        i64::from(self.0[(draw.bits() >> 16) as usize])
    }
}

/// A value whose quantiles, at equal steps from the least to the greatest, are `knots`.
pub(super) fn quantile(knots: &[i64], draw: &mut Draw) -> i64 {
    let place = draw.bits() * (knots.len() as u64 - 1);
    let (knot, part) = ((place >> 32) as usize, (place & 0xffff_ffff) as i64);
    knots[knot] + (((knots[knot + 1] - knots[knot]) * part) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_follow_their_weights() {
        let pick = Pick::new([(7, 3), (8, 1)]);
        let sevens = (0..100_000).filter(|row| pick.draw(&mut Draw::new(1, *row)) == 7).count();
        assert!((74_000..76_000).contains(&sevens), "{sevens}");
    }

    #[test]
    fn quantiles_stay_between_their_ends() {
        let values: Vec<i64> = (0..100_000).map(|row| quantile(&[0, 10, 100], &mut Draw::new(2, row))).collect();
        assert!(values.iter().all(|value| (0..100).contains(value)));
        let low = values.iter().filter(|value| **value < 10).count();
        assert!((49_000..51_000).contains(&low), "{low}");
    }
}
