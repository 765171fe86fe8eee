//! What `wit-bindgen` makes of the package `tipstaff:policy`. Used by this crate's macros; authors
//! use what wraps it.
#![expect(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the WIT files hold the documentation"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "author",
    pub_export_macro: true,
    export_macro_name: "export_author",
    default_bindings_module: "tipstaff::bindings",
});

/// The capability `guard-network`.
pub mod guard_network {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-guard-network",
        pub_export_macro: true,
        default_bindings_module: "tipstaff::bindings::guard_network",
    });
}

/// The capability `guard-signal`.
pub mod guard_signal {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-guard-signal",
        pub_export_macro: true,
        default_bindings_module: "tipstaff::bindings::guard_signal",
    });
}

/// The capability `guard-file`.
pub mod guard_file {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-guard-file",
        pub_export_macro: true,
        default_bindings_module: "tipstaff::bindings::guard_file",
    });
}

/// The capability `guard-exec`.
pub mod guard_exec {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-guard-exec",
        pub_export_macro: true,
        default_bindings_module: "tipstaff::bindings::guard_exec",
    });
}

/// The optional export `ticks`.
pub mod ticks {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-ticks",
        pub_export_macro: true,
        export_macro_name: "export_author_ticks",
        default_bindings_module: "tipstaff::bindings::ticks",
    });
}

/// The optional export `hand-over`.
pub mod hand_over {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "author-hand-over",
        pub_export_macro: true,
        export_macro_name: "export_author_hand_over",
        default_bindings_module: "tipstaff::bindings::hand_over",
    });
}
