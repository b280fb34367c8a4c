//! Chance that is the same each time, so that two plans are equal: Python's `random.Random` with a
//! seed, as Ansible's filters use it.

use minijinja::{Error, Value};
use sha2::{Digest, Sha512};

use super::{Arguments, Filter, filter, list, wrong};

/// Filters of chance.
pub(super) const FILTERS: &[Filter] = &[
    filter("random", &["start", "step", "seed"], random),
    filter("shuffle", &["seed"], |value, arguments| {
        let mut chance = Chance::new("shuffle", arguments)?;
        let mut items = items("shuffle", value)?;
        for last in (1..items.len()).rev() {
            items.swap(last, chance.index(last + 1));
        }
        Ok(Value::from(items))
    }),
];

/// The items of a list, or the characters of a text.
fn items(what: &str, value: &Value) -> Result<Vec<Value>, Error> {
    match value.as_str() {
        Some(text) => Ok(text.chars().map(Value::from).collect()),
        None => list(what, value),
    }
}

fn random(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut chance = Chance::new("random", arguments)?;
    let nothing = || wrong("`random` has nothing to choose from");
    if value.is_integer() {
        let start = arguments.integer("start")?.unwrap_or(0);
        let step = arguments.integer("step")?.filter(|step| *step != 0).unwrap_or(1);
        let end = i64::try_from(value.clone())?;
        let span = if step > 0 { end.checked_sub(start) } else { start.checked_sub(end) };
        let span = span.and_then(|span| u64::try_from(span).ok()).ok_or_else(nothing)?;
        let steps = span.div_ceil(step.unsigned_abs());
        if steps == 0 {
            return Err(nothing());
        }
        let chosen = i64::try_from(chance.below(steps)).unwrap_or(0);
        return Ok(Value::from(start.saturating_add(chosen.saturating_mul(step))));
    }
    let given = |name| arguments.get(name).is_some_and(|given| given.is_true());
    if given("start") || given("step") {
        return Err(wrong("`start` and `step` are for a number"));
    }
    let items = items("random", value)?;
    if items.is_empty() {
        return Err(nothing());
    }
    let index = chance.index(items.len());
    Ok(items.into_iter().nth(index).unwrap_or_default())
}

/// The numbers of MT19937 (Matsumoto and Nishimura 1998).
struct Chance {
    state: [u32; SIZE],
    next: usize,
}

const SIZE: usize = 624;

impl Chance {
    fn new(what: &str, arguments: &Arguments) -> Result<Self, Error> {
        let seed = arguments.get("seed").filter(|seed| !seed.is_none()).ok_or_else(|| {
            wrong(format!(
                "`{what}` needs a `seed` here, or no two plans would agree: \
                 `{what}(seed=inventory_hostname)`"
            ))
        })?;
        // Python takes a text as the big-endian number of its bytes and their digest.
        let mut bytes = match (seed.as_str(), i128::try_from(seed.clone())) {
            (Some(text), _) => [text.as_bytes(), &Sha512::digest(text)[..]].concat(),
            (None, Ok(number)) => number.unsigned_abs().to_be_bytes().to_vec(),
            _ => return Err(wrong("a `seed` is a text or a whole number")),
        };
        bytes.reverse();
        let mut words: Vec<u32> = bytes
            .chunks(4)
            .map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
            .collect();
        while words.len() > 1 && words.last() == Some(&0) {
            words.pop();
        }
        Ok(Self::seeded(&words))
    }

    fn seeded(key: &[u32]) -> Self {
        let mixed = |before: u32| before ^ before >> 30;
        let mut state = [19_650_218_u32; SIZE];
        for at in 1..SIZE {
            // The index is below 2^10.
            state[at] = mixed(state[at - 1]).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        let mut at = 1;
        let mut step =
            |state: &mut [u32; SIZE], factor: u32, change: &dyn Fn(u32, usize) -> u32| {
                let word = state[at] ^ mixed(state[at - 1]).wrapping_mul(factor);
                state[at] = change(word, at);
                at += 1;
                if at == SIZE {
                    state[0] = state[SIZE - 1];
                    at = 1;
                }
            };
        for index in (0..key.len()).cycle().take(SIZE.max(key.len())) {
            let added = key[index].wrapping_add(index as u32);
            step(&mut state, 1_664_525, &|word, _| word.wrapping_add(added));
        }
        for _ in 1..SIZE {
            step(&mut state, 1_566_083_941, &|word, at| word.wrapping_sub(at as u32));
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE }
    }

    fn word(&mut self) -> u32 {
        if self.next == SIZE {
            for at in 0..SIZE {
                let both = self.state[at] & 0x8000_0000 | self.state[(at + 1) % SIZE] & 0x7fff_ffff;
                let twist = if both & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[at] = self.state[(at + 397) % SIZE] ^ both >> 1 ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: u64) -> u64 {
        let bits = u64::BITS - bound.leading_zeros();
        loop {
            let low = u64::from(self.word());
            let number = if bits <= 32 {
                low >> (32 - bits)
            } else {
                low | u64::from(self.word()) >> (64 - bits) << 32
            };
            if number < bound {
                return number;
            }
        }
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}
