//! A closed WASI 0.2, for tool chains that insist on one: Python's components import all of it.
//!
//! There are clocks, randomness, and standard output and error, which go to the policy's log. There
//! are no files, no network, no environment, no arguments and no waiting: looking for them finds
//! nothing, and whatever else is called ends the instance with the name of the function.

mod lines;

use std::time::{Duration, SystemTime};

use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};
use wasmtime::component::{
    Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType,
    types::ComponentItem,
};

pub use lines::Lines;

/// Most random bytes of one call.
const MAX_RANDOM: u64 = 64 << 10;
/// Bytes that standard output takes at once.
const WRITABLE: u64 = 4096;

/// Who has such a WASI.
pub trait Wasi: 'static {
    /// The guest wrote to standard output, or to standard error.
    fn write(&mut self, is_error: bool, bytes: &[u8]);
}

/// A resource of WASI. Streams are told apart by their number, others need not be.
enum Closed {}

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// A function that there is not.
#[derive(Debug, thiserror::Error)]
#[error(
    "it called `{0}`: a policy has no files, no network and no environment, and cannot wait or exit"
)]
struct NotHere(String);

/// Name of the interface without package version, if it is one of this WASI: `cli/environment`.
#[must_use]
pub fn interface(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    let package = interface.split('/').next()?;
    let is_known = ["cli", "clocks", "filesystem", "io", "random", "sockets"].contains(&package);
    (is_known && version.starts_with("0.2.")).then_some(interface)
}

/// Defines what the component imports of WASI, and nothing if it imports none.
pub fn link<T: Wasi>(linker: &mut Linker<T>, component: &Component) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    for (name, item) in component.component_type().imports(&engine) {
        let (Some(interface), ComponentItem::ComponentInstance(ty)) = (interface(name), item.ty)
        else {
            continue;
        };
        let mut instance = linker.instance(name)?;
        for (export, item) in ty.exports(&engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    instance.resource(export, ResourceType::host::<Closed>(), |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) => define(&mut instance, interface, export)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn define<T: Wasi>(
    instance: &mut LinkerInstance<'_, T>,
    interface: &str,
    function: &str,
) -> wasmtime::Result<()> {
    match (interface, function) {
        ("cli/environment", "get-environment") => {
            instance.func_wrap(function, |_, (): ()| Ok((Vec::<(String, String)>::new(),)))
        }
        ("cli/environment", "get-arguments") => {
            instance.func_wrap(function, |_, (): ()| Ok((Vec::<String>::new(),)))
        }
        ("cli/environment", "initial-cwd") => {
            instance.func_wrap(function, |_, (): ()| Ok((None::<String>,)))
        }
        ("cli/stdin", "get-stdin") => stream(instance, function, 0),
        ("cli/stdout", "get-stdout") => stream(instance, function, STDOUT),
        ("cli/stderr", "get-stderr") => stream(instance, function, STDERR),
        (
            "cli/terminal-stdin" | "cli/terminal-stdout" | "cli/terminal-stderr",
            "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr",
        ) => instance.func_wrap(function, |_, (): ()| Ok((None::<Resource<Closed>>,))),
        ("filesystem/preopens", "get-directories") => instance
            .func_wrap(function, |_, (): ()| Ok((Vec::<(Resource<Closed>, String)>::new(),))),
        ("clocks/monotonic-clock", "now") => instance.func_wrap(function, |_, (): ()| {
            let now: Duration = clock_gettime(ClockId::Monotonic).try_into()?;
            Ok((u64::try_from(now.as_nanos())?,))
        }),
        ("clocks/monotonic-clock", "resolution") => {
            instance.func_wrap(function, |_, (): ()| Ok((1u64,)))
        }
        ("clocks/wall-clock", "now") => instance.func_wrap(function, |_, (): ()| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
        }),
        ("clocks/wall-clock", "resolution") => {
            instance.func_wrap(function, |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))
        }
        ("random/random", "get-random-bytes")
        | ("random/insecure", "get-insecure-random-bytes") => {
            instance.func_wrap(function, |_, (length,): (u64,)| {
                wasmtime::ensure!(
                    length <= MAX_RANDOM,
                    "it asked for {length} random bytes at once, {MAX_RANDOM} are allowed"
                );
                Ok((random(usize::try_from(length)?)?,))
            })
        }
        ("random/random", "get-random-u64") | ("random/insecure", "get-insecure-random-u64") => {
            instance.func_wrap(function, |_, (): ()| Ok((random_number()?,)))
        }
        ("random/insecure-seed", "insecure-seed") => {
            instance.func_wrap(function, |_, (): ()| Ok(((random_number()?, random_number()?),)))
        }
        // What is written is there at once, so that nobody waits.
        ("io/streams", "[method]output-stream.check-write") => instance
            .func_wrap(function, |_, (_,): (Resource<Closed>,)| {
                Ok((Ok::<_, StreamError>(WRITABLE),))
            }),
        (
            "io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => instance.func_wrap(
            function,
            |mut context, (stream, bytes): (Resource<Closed>, Vec<u8>)| {
                context.data_mut().write(stream.rep() == STDERR, &bytes);
                Ok((Ok::<_, StreamError>(()),))
            },
        ),
        ("io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => {
            instance
                .func_wrap(function, |_, (_,): (Resource<Closed>,)| Ok((Ok::<_, StreamError>(()),)))
        }
        ("io/streams", "[method]output-stream.subscribe") => instance
            .func_wrap(function, |_, (_,): (Resource<Closed>,)| {
                Ok((Resource::<Closed>::new_own(0),))
            }),
        ("io/poll", "[method]pollable.ready") => {
            instance.func_wrap(function, |_, (_,): (Resource<Closed>,)| Ok((true,)))
        }
        ("io/poll", "[method]pollable.block") => {
            instance.func_wrap(function, |_, (_,): (Resource<Closed>,)| Ok(()))
        }
        ("io/poll", "poll") => {
            instance.func_wrap(function, |_, (pollables,): (Vec<Resource<Closed>>,)| {
                Ok(((0u32..).take(pollables.len()).collect::<Vec<_>>(),))
            })
        }
        _ => {
            let name = format!("wasi:{interface}#{function}");
            instance.func_new(function, move |_, _, _, _| Err(NotHere(name.clone()).into()))
        }
    }
}

/// Defines a function that returns the stream of this number.
fn stream<T: Wasi>(
    instance: &mut LinkerInstance<'_, T>,
    function: &str,
    number: u32,
) -> wasmtime::Result<()> {
    instance.func_wrap(function, move |_, (): ()| Ok((Resource::<Closed>::new_own(number),)))
}

#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "writing to the log does not fail")]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<Closed>),
    #[component(name = "closed")]
    Closed,
}

fn random(length: usize) -> wasmtime::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn random_number() -> wasmtime::Result<u64> {
    let bytes = random(8)?;
    Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_packages_of_wasi_0_2_are_there() {
        assert_eq!(interface("wasi:cli/environment@0.2.9"), Some("cli/environment"));
        for other in [
            "wasi:cli/environment@0.3.0",
            "wasi:cli/environment",
            "wasi:http/outgoing-handler@0.2.9",
            "tipstaff:policy/log@0.2.0",
        ] {
            assert_eq!(interface(other), None, "{other}");
        }
    }
}
