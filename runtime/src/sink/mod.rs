//! Where what policies say goes: standard output, and Prometheus over HTTP.

pub mod blocked;
pub mod http;
mod line;
pub mod stdout;
mod summary;

pub use line::Style;
pub use summary::{Totals, summary};
