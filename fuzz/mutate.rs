//! Inputs made of others, as fuzzers make them.

/// Longest input, in bytes.
const MOST: usize = 4096;
/// Numbers at which programs go wrong.
const ODD: &[u64] =
    &[0, 1, 7, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// See the module's documentation. The same seed gives the same inputs.
pub struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Makes inputs of these.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { state: seed, seeds }
    }

    /// A number below `end`, by splitmix64.
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// The next input.
    pub fn next(&mut self) -> Vec<u8> {
        let seed = self.below(self.seeds.len());
        let mut bytes = self.seeds[seed].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes);
        }
        bytes.truncate(MOST.max(self.seeds[seed].len()));
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let rest = bytes.len() - at;
        match self.below(8) {
            0 if rest > 0 => bytes[at] ^= 1 << self.below(8),
            1 if rest > 0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            2 => {
                let end = at + self.below(rest.min(64) + 1);
                bytes.drain(at..end);
            }
            // A part once more, perhaps many times.
            3 => {
                let part = bytes[at..at + self.below(rest.min(32) + 1)].to_vec();
                let times = if self.below(16) == 0 { 64 } else { 1 + self.below(3) };
                bytes.splice(at..at, part.repeat(times));
            }
            // A part of another input.
            4 | 5 => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len());
                let length = self.below((self.seeds[other].len() - from).min(64) + 1);
                let part = self.seeds[other][from..from + length].to_vec();
                let over = if self.below(2) == 0 { 0 } else { length.min(rest) };
                bytes.splice(at..at + over, part);
            }
            6 => {
                let size = 1 << self.below(4);
                let odd = ODD[self.below(ODD.len())].to_le_bytes();
                let over = size.min(rest);
                bytes[at..at + over].copy_from_slice(&odd[..over]);
            }
            _ => {
                let byte = u8::try_from(self.below(256)).unwrap();
                bytes.insert(at, byte);
            }
        }
    }
}
