//! What memory the maps of probes take, as the kernel counts it.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

/// A map that is there while something is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapReport {
    /// Its name.
    pub name: String,
    /// The object that it is of; one that objects share is told with the first of them.
    pub object: &'static str,
    /// Most entries, or bytes of a ring.
    pub entries: u64,
    /// Memory, as the kernel charges it.
    pub bytes: u64,
    /// Number in the kernel.
    pub(super) id: u64,
}

/// The maps of an object.
pub(super) fn of<'a>(
    object: &'static str,
    ebpf: &'a Ebpf,
) -> impl Iterator<Item = MapReport> + use<'a> {
    ebpf.maps().filter_map(move |(name, map)| {
        let descriptor = data(map)?.fd().as_fd().as_raw_fd();
        let said = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
        let number = |key: &str| {
            said.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        Some(MapReport {
            name: name.to_owned(),
            object,
            entries: number("max_entries:")?,
            bytes: number("memlock:")?,
            id: number("map_id:")?,
        })
    })
}

/// The types of maps that the objects have.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
