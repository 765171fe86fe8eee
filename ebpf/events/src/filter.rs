//! Which records of a kind the probe lets through: a condition as data, which the same function
//! tests in the kernel and, for comparison, on the host.
//!
//! A filter is a disjunction of conjunctions of tests, all in one list: a test with [`OR`] begins
//! another conjunction. It may let more through than is wanted, never less: what it cannot express
//! is tested on the host.
#![expect(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "eBPF: one function with few registers; the halves of a word are meant"
)]

use core::mem::offset_of;

use crate::{
    sample::Thinned,
    wire::{Header, Text},
};

/// Most tests in a filter.
pub const MAX_TESTS: usize = 16;
/// Most patterns in a filter.
pub const MAX_PATTERNS: usize = 8;
/// Words of a pattern.
pub const PATTERN_WORDS: usize = 4;
/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = PATTERN_WORDS * 8;

/// Bits of [`Test::form`] that hold the size of a number in bytes.
pub const SIZE: u8 = 0x0f;
/// Bit of [`Test::form`]: the number has a sign. [`Test::value`] is stored with its highest bit
/// inverted, so that all numbers compare without one.
pub const SIGNED: u8 = 0x10;
/// Form: the bytes at the place begin as the pattern whose index is the value.
pub const BYTES: u8 = 0x20;
/// Form: a [`Text`] whose bytes begin as that pattern.
pub const TEXT: u8 = 0x40;

/// Bit of [`Test::flags`]: begins a conjunction.
pub const OR: u8 = 1;
/// Bit of [`Test::flags`]: holds if there is a value and the comparison does not hold.
pub const INVERTED: u8 = 2;
/// Bit of [`Test::flags`]: holds if the whole test does not, thus also where there is no value.
pub const NEGATED: u8 = 4;
/// Bit of [`Test::flags`]: the number is below the value, instead of equal to it.
pub const BELOW: u8 = 8;
/// Bit of [`Test::flags`]: the number is above the value.
pub const ABOVE: u8 = 16;
/// Bit of [`Test::flags`]: the text is no longer than the pattern.
pub const WHOLE: u8 = 32;

/// One comparison.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Test {
    /// What is compared with: a number, or the index of a pattern.
    pub value: u64,
    /// Bit of [`Header::absent`] that says that there is no value.
    pub absent: u32,
    /// Where in the record.
    pub at: u16,
    /// What is there.
    pub form: u8,
    /// How it is compared.
    pub flags: u8,
}

/// Bytes to begin with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// The bytes, as words; 0 where the mask is.
    pub words: [u64; PATTERN_WORDS],
    /// Which bits of each word are compared.
    pub masks: [u64; PATTERN_WORDS],
    /// Length in bytes.
    pub length: u64,
}

impl Pattern {
    /// The pattern of the first `bits` bits of these bytes, of which there are [`MAX_PATTERN`] at
    /// most.
    #[must_use]
    pub fn new(bytes: &[u8], bits: usize) -> Self {
        let mut pattern = Self { length: bytes.len() as u64, ..Self::default() };
        for (index, &byte) in bytes.iter().enumerate().take(MAX_PATTERN) {
            let mask = match bits.saturating_sub(index * 8) {
                0 => 0,
                left @ 1..8 => 0xff << (8 - left),
                _ => 0xff_u8,
            };
            let put = |word: &mut u64, byte: u8| {
                let mut bytes = word.to_ne_bytes();
                bytes[index % 8] = byte;
                *word = u64::from_ne_bytes(bytes);
            };
            put(&mut pattern.words[index / 8], byte & mask);
            put(&mut pattern.masks[index / 8], mask);
        }
        pattern
    }
}

/// See the module's documentation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Number of tests.
    pub count: u64,
    /// How many of those that pass are let through: a [`Thinned`] as a number.
    pub sample: u64,
    /// The tests.
    pub tests: [Test; MAX_TESTS],
    /// What texts and addresses are compared with.
    pub patterns: [Pattern; MAX_PATTERNS],
}

/// Size of a filter in the map.
pub const FILTER_BYTES: usize = size_of::<Filter>();

// Nothing in it is padding: `to_bytes` says all of it.
const _: () =
    assert!(FILTER_BYTES == 16 + MAX_TESTS * 16 + MAX_PATTERNS * (PATTERN_WORDS * 16 + 8));

impl Default for Filter {
    /// Lets everything through.
    fn default() -> Self {
        Self {
            count: 0,
            sample: 0,
            tests: [Test::default(); MAX_TESTS],
            patterns: [Pattern::default(); MAX_PATTERNS],
        }
    }
}

impl Filter {
    /// Whether a record may be wanted. `read` gives the 8 bytes at an offset of it; where they are
    /// beyond its end, anything.
    #[inline(always)]
    pub fn passes(&self, read: impl Fn(usize) -> u64) -> bool {
        let absent = read(offset_of!(Header, absent)) as u32;
        let mut holds = true;
        let mut index = 0;
        while index < MAX_TESTS {
            if index as u64 >= self.count {
                break;
            }
            let test = &self.tests[index];
            if test.flags & OR != 0 {
                if holds {
                    return true;
                }
                holds = true;
            }
            if holds {
                let found = absent & test.absent == 0 && self.compare(test, &read);
                // Known, it would give the loop several ends, and kernels before 6.8 refuse a loop one
                // of whose ends comes back without a jump.
                holds = core::hint::black_box(found != (test.flags & NEGATED != 0));
            }
            index += 1;
        }
        holds
    }

    #[inline(always)]
    fn compare(&self, test: &Test, read: &impl Fn(usize) -> u64) -> bool {
        let at = usize::from(test.at);
        let holds = if test.form & (BYTES | TEXT) == 0 {
            let found = number(read(at), test.form);
            if test.flags & BELOW != 0 {
                found < test.value
            } else if test.flags & ABOVE != 0 {
                found > test.value
            } else {
                found == test.value
            }
        } else {
            let pattern = &self.patterns[test.value as usize % MAX_PATTERNS];
            let mut start = at;
            let mut fits = true;
            if test.form & TEXT != 0 {
                let word = read(at) as u32;
                let found = Text { offset: word as u16, length: (word >> 16) as u16 };
                if found.offset == 0 {
                    // Not collected: there is no value.
                    return false;
                }
                start = usize::from(found.offset);
                let length = u64::from(found.len());
                fits = length >= pattern.length
                    && (test.flags & WHOLE == 0 || length == pattern.length);
            }
            fits && begins_as(pattern, start, read)
        };
        holds != (test.flags & INVERTED != 0)
    }

    /// How many of those that pass are let through.
    #[inline(always)]
    #[must_use]
    pub fn sample(&self) -> Thinned {
        Thinned::from_number(self.sample as u32)
    }

    /// As the kernel reads it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FILTER_BYTES] {
        let mut bytes = [0; FILTER_BYTES];
        let mut at = 0;
        let mut put = |word: u64| {
            bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
            at += 8;
        };
        put(self.count);
        put(self.sample);
        for test in &self.tests {
            put(test.value);
            let mut rest = [0; 8];
            rest[..4].copy_from_slice(&test.absent.to_ne_bytes());
            rest[4..6].copy_from_slice(&test.at.to_ne_bytes());
            rest[6..].copy_from_slice(&[test.form, test.flags]);
            put(u64::from_ne_bytes(rest));
        }
        for pattern in &self.patterns {
            pattern.words.into_iter().chain(pattern.masks).for_each(&mut put);
            put(pattern.length);
        }
        bytes
    }
}

/// The first bytes of `word` as a number that compares without a sign.
#[inline(always)]
fn number(word: u64, form: u8) -> u64 {
    let shift = 64 - (u32::from(form & SIZE) * 8).clamp(8, 64);
    // The first bytes are the low ones: eBPF and the host are little-endian.
    let high = word << shift;
    if form & SIGNED == 0 {
        high >> shift
    } else {
        (high.cast_signed() >> shift).cast_unsigned() ^ 1 << 63
    }
}

#[inline(always)]
fn begins_as(pattern: &Pattern, start: usize, read: &impl Fn(usize) -> u64) -> bool {
    let mut differ = 0;
    let mut index = 0;
    while index < PATTERN_WORDS {
        let mask = pattern.masks[index];
        if mask != 0 {
            differ |= (read(start + index * 8) & mask) ^ pattern.words[index];
        }
        index += 1;
    }
    differ == 0
}
