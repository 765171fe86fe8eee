//! Who we are, as eBPF sees it.
//!
//! A program that filters by our own pid matches nothing inside a pid namespace. So a program that
//! sits on no hook is run once by hand, and says which thread group it ran in.

use std::{fs, process};

use aya::{
    Ebpf,
    maps::Array,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};

use super::{attach::reason, error::ProbeError};

/// Name of the object, its program, and its map.
pub(super) const OBJECT: &str = "handshake";
const PROGRAM: &str = "shake";
const MAP: &str = "SEEN";

/// Thread group id of this process in the initial pid namespace, after checking that /proc lists
/// processes by the same numbers.
pub(super) fn shake(ebpf: &mut Ebpf) -> Result<u32, ProbeError> {
    let failed = |reason: String| ProbeError::Handshake { reason };
    let program = ebpf.program_mut(PROGRAM).ok_or_else(|| failed("no program".to_owned()))?;
    let program: &mut RawTracePoint = program.try_into().map_err(|error| failed(reason(error)))?;
    program.load().map_err(|error| failed(reason(error)))?;
    program.test_run(RawTracePointRunOptions::new()).map_err(|error| failed(reason(error)))?;
    let map = ebpf.map(MAP).ok_or_else(|| failed("no map".to_owned()))?;
    let seen: u32 = Array::try_from(map)
        .and_then(|map: Array<_, u32>| map.get(&0, 0))
        .map_err(|error| failed(error.to_string()))?;
    if seen == 0 {
        return Err(failed("the program did not run".to_owned()));
    }
    if seen != process::id() {
        let listed = fs::read_link("/proc/self").unwrap_or_default().display().to_string();
        if listed != seen.to_string() {
            return Err(ProbeError::ForeignProc { seen, listed });
        }
    }
    Ok(seen)
}
