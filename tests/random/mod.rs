//! Numbers that look random, and are the same for the same seed.

#![allow(dead_code)]

/// A generator of numbers (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins where a seed says.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that `CONVERGE_SEED` names; `now` is one of this moment. It is always the same one otherwise, so that
    /// nobody's change is held up by what it did not bring; and it is printed.
    pub fn seed() -> u64 {
        let seed = match std::env::var("CONVERGE_SEED").ok().as_deref() {
            None => 2026,
            Some("now") => {
                let epoch = std::time::UNIX_EPOCH;
                let now = std::time::SystemTime::now().duration_since(epoch).unwrap();
                u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
            }
            Some(given) => given.parse().unwrap(),
        };
        println!("CONVERGE_SEED={seed}");
        seed
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    /// Whether something is so that is in one of so many cases.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
