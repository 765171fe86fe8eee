//! Guardrails: what a policy asks to be done to the machine. Each module is a capability that the
//! operator has to grant (`grants = ["guard-network"]` in `[policy.NAME]`): a policy that uses one and
//! is not granted it does not load.

pub mod network;
pub mod signal;
