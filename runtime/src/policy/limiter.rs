//! How much memory an instance may have.

use wasmtime::ResourceLimiter;

use super::Limits;

/// Counts all memories and tables of an instance together. What exceeds the limit traps: a guest
/// that is refused memory ends soon anyway, and so the reason is known.
#[derive(Debug)]
pub struct Limiter {
    memory: Budget,
    tables: Budget,
    parts: usize,
}

#[derive(Debug)]
struct Budget {
    used: usize,
    limit: usize,
}

/// The guest asked for more than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// All memories together.
    #[error("it needs {needed} bytes of memory, its limit is {limit} (`memory`)")]
    Memory {
        /// Bytes with what was asked for.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// All tables together.
    #[error("it needs {needed} table elements, its limit is {limit} (`table_elements`)")]
    Table {
        /// Elements with what was asked for.
        needed: usize,
        /// Elements allowed.
        limit: usize,
    },
}

impl LimitReached {
    /// Key of the limit in `[limits]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Table { .. } => "table_elements",
        }
    }
}

impl Limiter {
    /// A limiter for one instance.
    pub fn new(limits: &Limits) -> Self {
        Self {
            memory: Budget { used: 0, limit: limits.memory },
            tables: Budget { used: 0, limit: limits.table_elements },
            parts: limits.parts,
        }
    }
}

impl Budget {
    /// Takes the difference; what would be needed, if that is too much.
    fn take(&mut self, current: usize, desired: usize) -> Result<(), usize> {
        let needed = self.used.saturating_add(desired.saturating_sub(current));
        if needed > self.limit {
            return Err(needed);
        }
        self.used = needed;
        Ok(())
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.memory.limit;
        match self.memory.take(current, desired) {
            Ok(()) => Ok(true),
            Err(needed) => Err(LimitReached::Memory { needed, limit }.into()),
        }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.tables.limit;
        match self.tables.take(current, desired) {
            Ok(()) => Ok(true),
            Err(needed) => Err(LimitReached::Table { needed, limit }.into()),
        }
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        self.parts
    }

    fn tables(&self) -> usize {
        self.parts
    }

    fn memories(&self) -> usize {
        self.parts
    }
}
