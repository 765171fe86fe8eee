//! Write Tipstaff policies in Rust.
//!
//! A policy is told of events and answers with metrics, alerts and log lines. It says what it wants
//! to know by the structs that it takes: the agent gives it these fields of these events and
//! nothing else.
//!
//! ```no_run
//! use tipstaff::{Counter, Event, On, Policy};
//!
//! #[derive(Event)]
//! #[event(kind = "exec")]
//! struct Exec<'a> {
//!     path: &'a str,
//!     uid: u32,
//!     #[event(field = "proc.parent.exe")]
//!     parent: Option<&'a str>,
//! }
//!
//! struct Shells(Counter);
//!
//! impl Policy for Shells {
//!     fn configure(_: &[(String, String)]) -> Result<Self, String> {
//!         Ok(Self(Counter::new("shells_total", &[])))
//!     }
//! }
//!
//! impl On<Exec<'_>> for Shells {
//!     fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
//!         if exec.path.ends_with("/sh") && exec.uid != 0 && exec.parent.is_some() {
//!             self.0.add(1);
//!         }
//!     }
//! }
//!
//! tipstaff::export!(Shells: Exec<'_>);
//! ```
//!
//! Built with `cargo build --target wasm32-unknown-unknown` as a `cdylib`, this is all.
//!
//! # Fields
//!
//! A field is bound by its name to the catalogue (`docs/events.md`) when the policy is loaded, so a
//! policy runs unchanged on an agent whose events have more fields. `Option` makes it optional: it is
//! `None` where this kernel, agent or operator does not give it. A field of another type, or a
//! required one that is missing, is an error when the policy is loaded.
//!
//! | Rust | for |
//! |---|---|
//! | `u8` `u16` `u32` `u64` `i32` `i64` | numbers; a wider type than the catalogue's is fine |
//! | `bool` | numbers that are 0 or 1 |
//! | `&str` | strings, invalid bytes shown as U+FFFD; names such as `outcome` |
//! | `&[u8]` | strings, exact bytes |
//! | [`List`] | several strings, such as `args` |
//! | [`IpAddr`](std::net::IpAddr) | addresses |
//!
//! # Settings
//!
//! ```
//! #[derive(tipstaff::Settings)]
//! struct Watch {
//!     /// Path prefixes to watch.
//!     #[setting(default = ["/etc/", "/root/"])]
//!     prefixes: Vec<String>,
//!     /// Alerts about one path are not repeated within this time, in seconds.
//!     #[setting(default = 60)]
//!     quiet: u64,
//! }
//! ```
//!
//! They become part of the manifest with `export!(...; settings = Watch)`, are checked by the agent,
//! and are read with [`Settings::read`] in `configure`.

pub mod alert;
pub mod bindings;
pub mod errno;
mod export;
pub mod field;
pub mod guard;
mod known;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod policy;
pub mod row;
pub mod settings;
pub mod state;
pub mod window;

pub use alert::{Severity, alert};
pub use field::List;
pub use known::Known;
pub use metrics::{Counter, Counters, Gauge, Histogram};
pub use policy::{Event, HandOver, On, OnTick, Policy};
pub use row::{Flags, Gap};
pub use settings::{Setting, Settings};
pub use tipstaff_derive::{Event, Settings};
pub use window::Window;

/// What does not compile, and should say where.
///
/// ```compile_fail,E0277
/// #[derive(tipstaff::Event)]
/// #[event(kind = "exec")]
/// struct Exec { pid: u32, path: String }
/// ```
///
/// ```compile_fail
/// #[derive(tipstaff::Event)]
/// struct NoKind { pid: u32 }
/// ```
///
/// ```compile_fail
/// #[derive(tipstaff::Settings)]
/// struct WrongDefault { #[setting(default = "80")] port: u16 }
/// ```
///
/// ```compile_fail
/// struct Forgetful;
/// # impl tipstaff::Policy for Forgetful {
/// #     fn configure(_: &[(String, String)]) -> Result<Self, String> { Ok(Self) }
/// # }
/// #[derive(tipstaff::Event)]
/// #[event(kind = "exec")]
/// struct Exec { pid: u32 }
/// tipstaff::export!(Forgetful: Exec);
/// ```
#[cfg(doctest)]
pub struct DoesNotCompile;

/// Labels as the bindings take them.
fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
