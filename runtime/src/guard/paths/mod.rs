//! Rules about files and programs: what the command of `tipstaff exec` may read, write and execute.
//!
//! They are kept by Landlock, which knows what is *allowed* in a hierarchy and nothing of what is denied.
//! So a [`PathTable`] is first [`resolved`](Resolved), once, before the command starts: its paths become
//! those of the files that they lead to. Then it is [`spread`]: what is allowed, but for something below it, becomes
//! what is beside the way there (decision 0018).

mod ask;
mod resolve;
mod rule;
mod spread;
mod table;

pub use ask::{DeniedPath, HeldPaths, PathAsk, action};
pub use resolve::{Home, PathsError, Resolved};
pub use rule::{Access, Accesses, PathRule};
pub use spread::{MOST_SPREAD, spread};
pub use table::PathTable;
