//! What the runtime tells the one program that every tracepoint of the configuration has.

/// Largest record of a tracepoint, without what its `__data_loc` fields point at.
pub const MAX_BYTES: u16 = 2048;
/// Fields whose bytes lie behind the record.
pub const MAX_LOCATIONS: usize = 8;
/// Bit of a place: it counts from behind the field (`__rel_loc`).
pub const RELATIVE: u32 = 1 << 16;
