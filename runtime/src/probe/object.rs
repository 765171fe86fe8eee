//! The embedded eBPF objects, loaded with this kernel's constants and the shared maps.

use std::collections::HashMap;

use aya::{Ebpf, EbpfLoader};
use object::{Object as _, ObjectSymbol as _};

use super::{btf::Btf, error::ProbeError, shared::Shared};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/objects.rs"));
}

/// Stands for what this kernel does not have.
const ABSENT: u32 = u32::MAX;

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
        Ok(Self { name, bytes, constants })
    }
}

/// Loads objects: their maps are made or shared; their programs are not loaded yet.
pub(super) fn load<'a>(
    objects: &'a [Prepared],
    shared: &'a Shared,
) -> Result<Vec<Ebpf>, ProbeError> {
    if objects.is_empty() {
        return Ok(Vec::new());
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
            let ebpf = loader
                .load(object.bytes)
                .map_err(|source| ProbeError::Object { object: object.name.to_owned(), source })?;
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
            let value = constant(symbol, btf)?.unwrap_or_else(|| {
                tracing::debug!(symbol, "not in this kernel");
                ABSENT
            });
            Some((symbol.to_owned(), vec![value]))
        })
        .collect()
}

/// `None` if the symbol is none of ours, `Some(None)` if this kernel does not have it.
fn constant(symbol: &str, btf: &Btf) -> Option<Option<u32>> {
    if let Some(structure) = symbol.strip_prefix("SIZE__") {
        return Some(btf.size(structure));
    }
    let (look_up, name): (fn(&Btf, &str, &str) -> Option<u32>, _) =
        match (symbol.strip_prefix("OFFSET__"), symbol.strip_prefix("VALUE__")) {
            (Some(name), _) => (Btf::member_offset, name),
            (_, Some(name)) => (Btf::enumerator, name),
            _ => return None,
        };
    let (of, what) = name.split_once("__")?;
    Some(look_up(btf, of, what))
}
