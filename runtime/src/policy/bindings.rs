//! What Wasmtime makes of the package `tipstaff:policy`, one module per world.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "author",
    imports: { default: trappable },
    with: {
        "tipstaff:policy/metrics.counter": crate::outcome::Counter,
        "tipstaff:policy/metrics.gauge": crate::outcome::Gauge,
        "tipstaff:policy/metrics.histogram": crate::outcome::Histogram,
    },
});

/// The capability `guard-network`.
pub mod guard_network {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "author-guard-network",
        imports: { default: trappable },
    });
}

/// The capability `guard-signal`.
pub mod guard_signal {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "author-guard-signal",
        imports: { default: trappable },
    });
}

/// The capability `guard-file`.
pub mod guard_file {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "author-guard-file",
        imports: { default: trappable },
    });
}

/// The capability `guard-exec`.
pub mod guard_exec {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "author-guard-exec",
        imports: { default: trappable },
    });
}

/// The optional export `ticks`.
pub mod ticks {
    wasmtime::component::bindgen!({ path: "../wit", world: "author-ticks" });
}

/// The optional export `hand-over`.
pub mod hand_over {
    wasmtime::component::bindgen!({ path: "../wit", world: "author-hand-over" });
}
