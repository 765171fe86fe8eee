//! Lines for the agent's log.

use crate::bindings::tipstaff::policy::log::line;

/// Something is wrong.
pub fn error(text: &str) {
    line(0, text);
}

/// Something may be wrong.
pub fn warning(text: &str) {
    line(1, text);
}

/// Something that an operator may want to know.
pub fn info(text: &str) {
    line(2, text);
}

/// Something that helps to find a fault in the policy.
pub fn debug(text: &str) {
    line(3, text);
}
