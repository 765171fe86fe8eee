//! Tipstaff's host runtime, in the order in which an event travels:
//!
//! | module | what happens there |
//! |---|---|
//! | [`kind`] | what events there are: the catalogue, kinds known only at run time, enriched fields |
//! | [`probe`] | eBPF programs are loaded, attached and told what is wanted (the only user of `aya`) |
//! | [`source`] | records come from the rings, or events from a file of JSON Lines |
//! | [`process`], [`enrich`] | the process table and the other tables that enriched fields are read from; [`resolver`] fills them |
//! | [`plan`] | subscriptions are bound by name to fields: what is wanted, and how a row is made |
//! | [`predicate`] | events that nobody wants are left out |
//! | [`project`] | a record becomes a row, laid out as the policy asked |
//! | [`batch`], [`feed`] | rows are collected, sorted by time, closed, and given to whoever asked for them |
//! | [`reader`] | the one thread that does all of the above, by way of [`intake`] |
//! | [`fold`] | rows of aggregated kinds are added up by the keys that were asked for |
//! | [`dns`] | what guarded scopes ask DNS servers is judged and sent on |
//! | [`decode`] | rows are printed, for `tipstaff events` |
//! | [`policy`] | components are compiled, instantiated and called (the only user of `wasmtime`) |
//! | [`guard`] | what policies may have done to the machine, within the limits of the operator |
//! | [`outcome`] | what policies say: metrics, alerts, log lines |
//! | [`sink`] | where it goes: standard output, Prometheus |
//! | [`exec`] | one command in a cgroup of its own, for `tipstaff exec` |
//! | [`agent`] | puts all of it together; [`config`], [`trust`], [`watch`], [`control`] tell it what to do |
#![deny(unsafe_code)]

pub mod agent;
pub mod batch;
pub mod clock;
pub mod config;
pub mod container;
pub mod control;
pub mod decode;
pub mod dns;
pub mod enrich;
pub mod escape;
pub mod exec;
pub mod feed;
pub mod fold;
pub mod guard;
pub mod intake;
pub mod kind;
pub mod manifest;
pub mod mountinfo;
pub mod nearest;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod predicate;
pub mod probe;
pub mod process;
pub mod project;
pub mod queue;
pub mod reader;
pub mod record;
pub mod resolver;
pub mod sink;
pub mod source;
pub mod spare;
mod sys;
pub mod trust;
pub mod waker;
pub mod watch;
