//! The maps that all objects share, pinned in a bpffs that nobody else sees.

use std::{
    fmt::Display,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, MapType},
};
use tipstaff_events::{
    budget::{BUCKETS, BUDGET, BUDGET_ENTRIES, Bucket, MOST_BUCKETS},
    filter::FILTER_BYTES,
    wire,
};

use super::{budget::Budgets, error::ProbeError, mount::Detached, ring::Ring, wanted::WantedMap};
use crate::sys::bpf::Table;

/// Sizes of the rings in bytes: powers of two, at least a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSizes {
    /// fork, exec, exit.
    pub life: u32,
    /// Kinds on which an enforcing policy waits.
    pub urgent: u32,
    /// Everything else.
    pub bulk: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        // An exec record has up to 20 KiB; 2 M records of 64 bytes per second fill 8 MiB in 50 ms.
        Self { life: 2 << 20, urgent: 1 << 20, bulk: 8 << 20 }
    }
}

/// A map as every object must have it: type, bytes of key and value, entries. The kernel would
/// share any map of that name.
struct Shape {
    name: &'static str,
    ty: MapType,
    key: u32,
    value: u32,
    entries: u32,
}

/// Scratch buffers are shared to save memory. Name and shape as in `ebpf/probes/src/record.rs`.
const SCRATCH: Shape =
    Shape { name: "SCRATCH", ty: MapType::PerCpuArray, key: 4, value: 24 << 10, entries: 3 };

/// Constant of every object: id of the cgroup that all is about; 0: the whole machine. Name as in
/// `ebpf/probes/src/task.rs`.
const SCOPE: &str = "SCOPE";

/// The bpffs and the maps in it.
pub(super) struct Shared {
    mount: Detached,
    shapes: Vec<Shape>,
    /// See [`SCOPE`].
    scope: u64,
}

impl Shared {
    pub(super) fn new(sizes: RingSizes, scope: Option<u64>) -> Result<Self, ProbeError> {
        let ring = |name, entries| Shape { name, ty: MapType::RingBuf, key: 0, value: 0, entries };
        let (kinds, causes) = (u32::from(wire::MAX_KINDS), u32::from(wire::CAUSES));
        Ok(Self {
            mount: Detached::bpffs()?,
            shapes: vec![
                Shape { name: wire::WANTED, ty: MapType::Array, key: 4, value: 8, entries: kinds },
                Shape {
                    name: wire::LOST,
                    ty: MapType::Array,
                    key: 4,
                    value: 8,
                    entries: kinds * causes,
                },
                Shape {
                    name: wire::FILTER,
                    ty: MapType::Array,
                    key: 4,
                    value: u32::try_from(FILTER_BYTES).unwrap_or(u32::MAX),
                    entries: kinds * u32::from(wire::FILTER_SLOTS),
                },
                Shape {
                    name: wire::SAMPLED,
                    ty: MapType::PerCpuArray,
                    key: 4,
                    value: 8,
                    entries: kinds,
                },
                Shape {
                    name: wire::HIDDEN,
                    ty: MapType::Hash,
                    key: 4,
                    value: 1,
                    entries: wire::MAX_HIDDEN,
                },
                Shape {
                    name: BUCKETS,
                    ty: MapType::Hash,
                    key: 8,
                    value: u32::try_from(size_of::<Bucket>()).unwrap_or(u32::MAX),
                    entries: MOST_BUCKETS,
                },
                Shape {
                    name: BUDGET,
                    ty: MapType::Array,
                    key: 4,
                    value: 8,
                    entries: BUDGET_ENTRIES,
                },
                ring(wire::LIFE, sizes.life),
                ring(wire::URGENT, sizes.urgent),
                ring(wire::BULK, sizes.bulk),
                SCRATCH,
            ],
            scope: scope.unwrap_or(0),
        })
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// Lets the object that is loaded next use the shared maps; the first one makes them. Tells it the
    /// scope.
    pub(super) fn prepare<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        // Who reports no process has none.
        loader.override_global(SCOPE, &self.scope, false);
        for shape in &self.shapes {
            loader.map_pin_path(shape.name, self.pin(shape.name));
            loader.map_max_entries(shape.name, shape.entries);
        }
    }

    /// Whether the object's maps are what they should be.
    pub(super) fn check(&self, ebpf: &Ebpf) -> Result<(), ProbeError> {
        for shape in self.shapes.iter().filter(|shape| ebpf.map(shape.name).is_some()) {
            let info = MapInfo::from_pin(self.pin(shape.name))
                .map_err(|error| wrong(shape.name, error))?;
            let found =
                (info.map_type().ok(), info.key_size(), info.value_size(), info.max_entries());
            let expected = (Some(shape.ty), shape.key, shape.value, shape.entries);
            if found != expected {
                return Err(wrong(
                    shape.name,
                    format!("type, key, value and entries are {found:?}, expected {expected:?}"),
                ));
            }
        }
        Ok(())
    }

    fn open(&self, name: &'static str) -> Result<Map, ProbeError> {
        let data = MapData::from_pin(self.pin(name)).map_err(|error| wrong(name, error))?;
        Map::from_map_data(data).map_err(|error| wrong(name, error))
    }

    pub(super) fn ring(&self, name: &'static str) -> Result<Ring, ProbeError> {
        Ring::new(self.open(name)?).map_err(|error| wrong(name, error))
    }

    pub(super) fn wanted(&self) -> Result<WantedMap, ProbeError> {
        Ok(WantedMap::new(self.array(wire::WANTED)?, self.array(wire::FILTER)?))
    }

    pub(super) fn lost(&self) -> Result<Array<MapData, u64>, ProbeError> {
        self.array(wire::LOST)
    }

    pub(super) fn budgets(&self) -> Result<Budgets, ProbeError> {
        let buckets =
            MapData::from_pin(self.pin(BUCKETS)).map_err(|error| wrong(BUCKETS, error))?;
        let table = buckets
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|map| Table::new(map, size_of::<u64>(), size_of::<Bucket>(), 1))
            .map_err(|error| wrong(BUCKETS, error))?;
        Ok(Budgets::new(self.array(BUDGET)?, table))
    }

    fn array<V: Pod>(&self, name: &'static str) -> Result<Array<MapData, V>, ProbeError> {
        self.open(name)?.try_into().map_err(|error: MapError| wrong(name, error))
    }

    pub(super) fn hidden(&self) -> Result<Hidden, ProbeError> {
        let map = self
            .open(wire::HIDDEN)?
            .try_into()
            .map_err(|error: MapError| wrong(wire::HIDDEN, error))?;
        Ok(Hidden(Arc::new(Mutex::new(map))))
    }
}

pub(super) fn wrong(map: &'static str, reason: impl Display) -> ProbeError {
    ProbeError::Map { map, reason: reason.to_string() }
}

/// Processes whose events are not reported: the agent and its children. Cheap to clone.
#[derive(Clone)]
pub struct Hidden(Arc<Mutex<HashMap<MapData, u32, u8>>>);

impl Hidden {
    /// Hides a process (thread group id as eBPF sees it; a child's pid where the agent runs in the
    /// initial pid namespace). Fails when 1,024 are hidden.
    pub fn hide(&self, pid: u32) -> Result<(), ProbeError> {
        self.set(pid, wire::HIDE)
    }

    /// Hides a process and its children, these from their first moment.
    pub fn hide_with_children(&self, pid: u32) -> Result<(), ProbeError> {
        self.set(pid, wire::HIDE_CHILDREN)
    }

    fn set(&self, pid: u32, what: u8) -> Result<(), ProbeError> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(pid, what, 0).map_err(|error| wrong(wire::HIDDEN, error))
    }

    /// Shows it again: call this when a hidden child was waited for, or the next process of that
    /// number stays hidden.
    pub fn show(&self, pid: u32) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Not there is as good as removed.
        let _ = map.remove(&pid);
    }
}
