//! The maps that tell running programs what is wanted.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use tipstaff_events::{
    filter::{FILTER_BYTES, Filter},
    wire::{self, FILTER_BIT, FILTER_SLOT_BIT},
};

use super::{error::ProbeError, shared::wrong};
use crate::sys::programs;

/// What is wanted of each kind right now.
pub(super) struct WantedMap {
    words: Array<MapData, u64>,
    filters: Array<MapData, [u8; FILTER_BYTES]>,
    now: BTreeMap<u16, Now>,
}

/// What stands in the maps about a kind.
#[derive(Default)]
struct Now {
    word: u64,
    /// What each slot holds; a slot that no word ever named holds nothing.
    slots: [Option<Filter>; wire::FILTER_SLOTS as usize],
    /// The slot that a word named last.
    slot: u16,
}

impl WantedMap {
    pub(super) fn new(
        words: Array<MapData, u64>,
        filters: Array<MapData, [u8; FILTER_BYTES]>,
    ) -> Self {
        Self { words, filters, now: BTreeMap::new() }
    }

    /// Sets the word of a kind and its filter, if they are others than now. Records that pass the
    /// old filter or the new one may come while this goes on, and only such.
    pub(super) fn set(
        &mut self,
        kind: u16,
        word: u64,
        filter: Option<&Filter>,
    ) -> Result<(), ProbeError> {
        if word == 0 && !self.now.contains_key(&kind) {
            return Ok(());
        }
        let now = self.now.entry(kind).or_default();
        let mut word = word & !(FILTER_BIT | FILTER_SLOT_BIT);
        if let Some(filter) = filter.filter(|_| word != 0) {
            if now.slots[usize::from(now.slot)].as_ref() != Some(filter) {
                now.slot = 1 - now.slot;
                if now.slots[usize::from(now.slot)].is_some() {
                    // A program that began under the word before may still be reading it.
                    programs::wait();
                }
                let index = u32::from(kind) * u32::from(wire::FILTER_SLOTS) + u32::from(now.slot);
                self.filters
                    .set(index, filter.to_bytes(), 0)
                    .map_err(|error| wrong(wire::FILTER, error))?;
                now.slots[usize::from(now.slot)] = Some(*filter);
            }
            word |= FILTER_BIT | if now.slot == 1 { FILTER_SLOT_BIT } else { 0 };
        }
        if now.word != word {
            self.words.set(u32::from(kind), word, 0).map_err(|error| wrong(wire::WANTED, error))?;
            now.word = word;
        }
        Ok(())
    }
}
