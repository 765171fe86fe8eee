//! The maps of one guard, in terms of what they mean.

use std::{io, os::fd::AsFd as _};

use aya::{Ebpf, maps::Map};
use tipstaff_events::guard::{
    BY_DEFAULT, CONTROL, COUNT_BYTES, COUNTS, COUNTS_OF_TABLE, Count, GENERATION_BITS, NODE_BYTES,
    NODES, Node, PLACE_BITS,
};

use crate::{guard::Prefix, sys::bpf::Table};

/// Bytes of a key of [`NODES`]: the length in bits, then the place.
const KEY_BYTES: usize = 4 + PLACE_BITS as usize / 8;

/// A node's key as bytes.
pub(super) type Key = [u8; KEY_BYTES];

/// See the module's documentation.
pub(super) struct Maps {
    control: Table,
    nodes: Table,
    counts: Table,
}

impl Maps {
    pub(super) fn of(ebpf: &Ebpf) -> io::Result<Self> {
        Ok(Self {
            control: table(ebpf, CONTROL, 4, 8)?,
            nodes: table(ebpf, NODES, KEY_BYTES, NODE_BYTES)?,
            counts: table(ebpf, COUNTS, 4, COUNT_BYTES)?,
        })
    }

    /// Changes one word of [`CONTROL`], which programs read at once.
    pub(super) fn set(&self, word: u32, value: u64) -> io::Result<()> {
        self.control.put(&word.to_ne_bytes(), &value.to_ne_bytes())
    }

    pub(super) fn put(&self, key: &Key, node: &Node) -> io::Result<()> {
        self.nodes.put(key, &node.to_bytes())
    }

    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        self.nodes.remove(key)
    }

    /// What was counted under a rule of this generation, [`BY_DEFAULT`] for its default.
    pub(super) fn count(&self, generation: u64, rule: u16) -> io::Result<Count> {
        let value = self.counts.get(&index(generation, rule))?;
        let word = |at: usize| {
            let bytes = value.get(at * 8..).and_then(|rest| rest.first_chunk());
            bytes.copied().map_or(0, u64::from_ne_bytes)
        };
        Ok(Count {
            denied: word(0),
            would_deny: word(1),
            suppressed: word(2),
            second: word(3),
            records: word(4),
        })
    }

    /// Nothing was counted. Only for a generation that no program uses.
    pub(super) fn clear(&self, generation: u64, rule: u16) -> io::Result<()> {
        self.counts.put(&index(generation, rule), &[0; COUNT_BYTES])
    }
}

/// Where a node is.
pub(super) fn key(generation: u64, prefix: Prefix) -> Key {
    let mut key = [0; KEY_BYTES];
    let bits = GENERATION_BITS + u32::from(prefix.length());
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4..12].copy_from_slice(&generation.to_ne_bytes());
    key[12..].copy_from_slice(&prefix.address().octets());
    key
}

fn index(generation: u64, rule: u16) -> [u8; 4] {
    let part = if generation & 1 == 0 { 0 } else { COUNTS_OF_TABLE };
    (part + u32::from(rule.min(BY_DEFAULT))).to_ne_bytes()
}

pub(super) fn table(ebpf: &Ebpf, name: &str, key: usize, value: usize) -> io::Result<Table> {
    let map = ebpf.map(name).ok_or_else(|| io::Error::other(format!("no map {name}")))?;
    let (Map::Array(data) | Map::LpmTrie(data) | Map::HashMap(data)) = map else {
        return Err(io::Error::other(format!("{name} is of another type")));
    };
    let fd = data.fd().as_fd().try_clone_to_owned()?;
    Table::new(fd, key, value, 1)
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}
