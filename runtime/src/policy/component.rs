//! From a file's bytes to a component and its manifest. The part that runs on hostile bytes and may
//! take long: the agent does it in a child process, see [`super::compile`].

use std::{panic, time::Duration};

use wasmtime::{
    Store,
    component::{Component, Linker},
};

use super::{
    bindings::exports::tipstaff::policy::policy::GuestIndices,
    deadline::Deadline,
    error::{CallError, Refusal},
    file,
    host::wasi::{self, Wasi},
    limiter::Limiter,
    limits::Limits,
    ticker::Clocked,
};

/// The interface that makes a component a policy.
const EXPORT: &str = "tipstaff:policy/policy@";

/// The bytes of a component: the file's own, or made of a core module by `wit-component`.
pub fn encode(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let sections = file::sections(bytes)?;
    if sections.is_component {
        return Ok(bytes.to_vec());
    }
    wasmparser::validate(bytes).map_err(|error| file::broken(&error))?;
    if !sections.has_metadata {
        return Err(Refusal::Component(
            "is a core module without the metadata of wit-bindgen, so it is no policy: build it with a Tipstaff SDK, \
             or make it a component of the world tipstaff:policy/author"
                .to_owned(),
        ));
    }
    let encode =
        || wit_component::ComponentEncoder::default().validate(true).module(bytes)?.encode();
    // Metadata that no tool writes makes it panic here and there.
    panic::catch_unwind(encode)
        .map_err(|_| "its metadata is broken".to_owned())
        .and_then(|encoded| encoded.map_err(|error| format!("{error:#}")))
        .map_err(|reason| Refusal::Component(format!("could not be made a component: {reason}")))
}

/// Wall time of `describe`. Much, because the compiler child has a low priority.
const DESCRIBE_WALL: Duration = Duration::from_mins(1);

/// Compiles a component.
pub fn compile(clocked: &Clocked, component: &[u8]) -> Result<Component, Refusal> {
    Component::from_binary(clocked.engine(), component)
        .map_err(|error| Refusal::Component(format!("could not be compiled: {error:#}")))
}

/// The interfaces that a component imports and exports, as it names them.
pub fn interfaces(clocked: &Clocked, component: &Component) -> (Vec<String>, Vec<String>) {
    let ty = component.component_type();
    let imports = ty.imports(clocked.engine()).map(|(name, _)| name.to_owned()).collect();
    let exports = ty.exports(clocked.engine()).map(|(name, _)| name.to_owned()).collect();
    (imports, exports)
}

/// What `describe` says, in an instance without any capability: whatever it calls traps, but for the
/// closed WASI, without which some languages do not start.
pub fn describe(clocked: &Clocked, component: &Component) -> Result<String, Refusal> {
    let (_, exports) = interfaces(clocked, component);
    if !exports.iter().any(|name| name.starts_with(EXPORT)) {
        let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        return Err(Refusal::Component(format!(
            "is a component of another world: it exports {exports}, expected {EXPORT}0.1.0"
        )));
    }
    let limits = Limits::default();
    let mut linker = Linker::<Sandbox>::new(clocked.engine());
    let unusable =
        |error: wasmtime::Error| Refusal::Component(format!("does not fit this agent: {error:#}"));
    wasi::link(&mut linker, component).map_err(unusable)?;
    linker.define_unknown_imports_as_traps(component).map_err(unusable)?;
    let pre = linker.instantiate_pre(component).map_err(unusable)?;
    let indices = GuestIndices::new(&pre).map_err(unusable)?;

    let sandbox = Sandbox {
        limiter: Limiter::new(&limits),
        deadline: Deadline::with_wall(limits.start_up, "start_up", DESCRIBE_WALL),
    };
    let mut store = Store::new(clocked.engine(), sandbox);
    store.limiter(|sandbox| &mut sandbox.limiter);
    store.set_hostcall_fuel(limits.host_call);
    store.epoch_deadline_callback(|context| context.data().deadline.check());
    store.set_epoch_deadline(1);
    let _ticking = clocked.ticking();
    let run = |store: &mut Store<Sandbox>| {
        let instance = pre.instantiate(&mut *store)?;
        let guest = indices.load(&mut *store, &instance)?;
        guest.call_describe(store)
    };
    run(&mut store).map_err(|error| CallError::new("describe", &error).into())
}

/// The state of the instance in which `describe` runs.
struct Sandbox {
    limiter: Limiter,
    deadline: Deadline,
}

/// What it writes goes nowhere.
impl Wasi for Sandbox {
    fn write(&mut self, _: bool, _: &[u8]) {}
}
