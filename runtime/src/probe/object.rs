//! The embedded eBPF objects, loaded with this kernel's constants and the shared maps.

use std::collections::HashMap;

use aya::{Ebpf, EbpfLoader};
use object::{Object as _, ObjectSymbol as _};
use tipstaff_events::wire::ABSENT;

use super::{aggregate, btf::Btf, error::ProbeError, family::Family, shared::Shared};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/objects.rs"));
}

/// The object of that name as it was built.
pub(super) fn bytes(name: &str) -> Result<&'static [u8], ProbeError> {
    if let Some(missing) = embedded::MISSING {
        return Err(ProbeError::NotBuilt { missing });
    }
    let (_, bytes) = embedded::OBJECTS
        .iter()
        .find(|(object, _)| *object == name)
        .expect("each family's object is in ebpf/probes/src/bin");
    Ok(bytes)
}

/// An object with everything that it is loaded with.
pub(super) struct Prepared {
    name: &'static str,
    bytes: &'static [u8],
    /// Values by symbol.
    constants: HashMap<String, Vec<u32>>,
    /// Entries of maps whose sizes are decided here.
    entries: Vec<(&'static str, u32)>,
}

impl Prepared {
    /// The object of that name with this kernel's constants, and further ones by symbol.
    pub(super) fn new(
        name: &'static str,
        btf: &Btf,
        more: &[(&str, Vec<u32>)],
    ) -> Result<Self, ProbeError> {
        let bytes = bytes(name)?;
        let mut constants = constants(bytes, btf);
        constants
            .extend(more.iter().map(|(symbol, values)| ((*symbol).to_owned(), values.clone())));
        Ok(Self { name, bytes, constants, entries: Vec::new() })
    }

    /// The object of a family, whose maps get room for so many keys.
    pub(super) fn of(family: &Family, btf: &Btf, keys: u32) -> Result<Self, ProbeError> {
        let sized = family.maps.iter();
        let entries = sized.map(|map| (map.name, aggregate::entries(map, keys))).collect();
        Ok(Self { entries, ..Self::new(family.object, btf, &[])? })
    }
}

/// Loads objects: their maps are made or shared; their programs are not loaded yet.
pub(super) fn load<'a>(
    objects: &'a [Prepared],
    shared: &'a Shared,
) -> Vec<Result<Ebpf, ProbeError>> {
    if objects.is_empty() {
        return Vec::new();
    }
    // One loader for all, because a new one parses the kernel's BTF (13 ms), which nothing needs.
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    shared.prepare(&mut loader);
    objects
        .iter()
        .map(|object| {
            for (symbol, values) in &object.constants {
                // Not every object has what one before it had.
                loader.override_global(symbol, values.as_slice(), false);
            }
            for &(map, entries) in &object.entries {
                loader.map_max_entries(map, entries);
            }
            let ebpf = loader.load(object.bytes).map_err(|source| ProbeError::Object {
                object: object.name.to_owned(),
                source: Box::new(source),
            })?;
            shared.check(&ebpf)?;
            Ok(ebpf)
        })
        .collect()
}

/// The constants that an object asks for by the names of its symbols, with their values here.
fn constants(bytes: &[u8], btf: &Btf) -> HashMap<String, Vec<u32>> {
    let Ok(file) = object::File::parse(bytes) else { return HashMap::new() };
    file.symbols()
        .filter_map(|symbol| {
            let symbol = symbol.name().ok()?;
            let value = Constant::named(symbol)?.look_up(btf).unwrap_or_else(|| {
                tracing::debug!(symbol, "not in this kernel");
                ABSENT
            });
            Some((symbol.to_owned(), vec![value]))
        })
        .collect()
}

/// What a symbol asks for, as `ebpf/probes/src/kernel.rs` names it.
enum Constant<'a> {
    Offset { structure: &'a str, member: &'a str },
    Size { structure: &'a str },
    Value { enumeration: &'a str, name: &'a str },
}

impl<'a> Constant<'a> {
    fn named(symbol: &'a str) -> Option<Self> {
        let (sort, rest) = symbol.split_once("__")?;
        match sort {
            "OFFSET" => {
                rest.split_once("__").map(|(structure, member)| Self::Offset { structure, member })
            }
            "SIZE" => Some(Self::Size { structure: rest }),
            "VALUE" => {
                rest.split_once("__").map(|(enumeration, name)| Self::Value { enumeration, name })
            }
            _ => None,
        }
    }

    /// `None` if this kernel does not have it.
    fn look_up(&self, btf: &Btf) -> Option<u32> {
        match *self {
            Self::Offset { structure, member } => btf.member_offset(structure, member),
            Self::Size { structure } => btf.size(structure),
            Self::Value { enumeration, name } => btf.enumerator(enumeration, name),
        }
    }
}

#[cfg(test)]
mod tests;
