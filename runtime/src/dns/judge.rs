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

/// Says what becomes of queries, and learns what the answers were.
pub trait Judge: Send + Sync + 'static {
    /// What becomes of this query. May be dropped when it takes longer than `Limits::decide`.
    fn judge(&self, question: &Question, flow: &Flow) -> impl Future<Output = Verdict> + Send;

    /// The answer to a query that went on, before it is handed to who asked: rules about its addresses
    /// can be there before the first packet to them. Must not block.
    fn answered(&self, question: &Question, answer: &Answer, flow: &Flow);
}
