//! Who says what goes on.

use super::{Answer, Flow, Question};

/// What becomes of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It is answered with REFUSED.
    Refuse,
}

/// What becomes of a query, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether it is refused for the server that it is sent to, and not for its name.
    pub is_for_server: bool,
    /// Number of the guard whose table says so; 0: none does.
    pub guard: u32,
    /// Index of the rule about names in it; `u32::MAX`: its default.
    pub rule: u32,
}

impl From<Verdict> for Ruling {
    /// No table says so.
    fn from(verdict: Verdict) -> Self {
        Self { verdict, is_for_server: false, guard: 0, rule: u32::MAX }
    }
}

/// Says what becomes of queries, and learns what the answers were.
pub trait Judge: Send + Sync + 'static {
    /// What becomes of this query. May be dropped when it takes longer than `Limits::decide`.
    fn judge(&self, question: &Question, flow: &Flow) -> impl Future<Output = Ruling> + Send;

    /// The answer to a query that went on, before it is handed to who asked: rules about its addresses
    /// can be there before the first packet to them. Must not block.
    fn answered(&self, question: &Question, answer: &Answer, flow: &Flow);
}
