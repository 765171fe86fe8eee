//! Modes, as they change while policies run.

use std::collections::BTreeMap;

use super::{Active, Policies, PolicyMode, shown};
use crate::{
    config::Config,
    guard::Mode,
    policy::{Digest, Loaded, MAX_FILE, grants},
    trust::Trust,
};

impl Policies {
    pub(super) fn modes(&self) -> BTreeMap<String, Mode> {
        self.active.keys().map(|name| (name.clone(), self.guards.mode(name))).collect()
    }

    /// Makes another generation of policies that may act now and could not before: the one that runs was
    /// refused what it asked for when it was given its settings.
    pub(super) fn wake(&mut self, before: &BTreeMap<String, Mode>, config: &Config) {
        for (name, _) in before.iter().filter(|(_, mode)| **mode == Mode::Observe) {
            let Some(active) = self.active.get(name) else { continue };
            let asks = grants(&active.loaded.imports).next().is_some();
            if self.guards.mode(name) == Mode::Observe || !asks {
                continue;
            }
            let (loaded, section) = (active.loaded.clone(), config.policy(name));
            let path = loaded.path.clone();
            if let Err(error) = self.run(name, loaded, section, config) {
                self.refuse(path, &error);
            }
        }
    }

    /// Says of which policies the grant is to no digest, where that matters.
    pub(super) fn warn_of_unpinned(&self, config: &Config) {
        for (name, active) in &self.active {
            let section = config.policy(name);
            let mode = config.agent.mode.min(section.mode);
            if let Err(error) = active.loaded.check_grants(&section, mode) {
                tracing::error!(policy = name, "{error}");
            }
        }
    }

    /// Ends policies whose files are not to be trusted in the mode of now.
    pub(super) fn end_distrusted(&mut self) {
        for name in self.active.keys().cloned().collect::<Vec<_>>() {
            let trusted = self.active.get(&name).map(|active| {
                (active.loaded.path.clone(), still_trusted(&active.loaded, self.guards.mode(&name)))
            });
            if let Some((path, Err(error))) = trusted {
                self.remove(&name, "its file is not to be trusted in this mode");
                self.refuse(path, &error);
            }
        }
    }

    /// How far the agent goes, and how all policies stand.
    pub fn standing(&self) -> (Mode, Vec<PolicyMode>) {
        (self.guards.agent_mode(), self.guards.modes())
    }

    /// Lets the operator say how far the agent, or one policy, goes. Nothing is changed where that would
    /// need what is not there: a file that is root's, or a grant to a digest.
    pub fn set_mode(
        &mut self,
        policy: Option<&str>,
        mode: Mode,
        config: &Config,
    ) -> Result<(), String> {
        let concerned =
            |(name, _): &(&String, &Active)| policy.is_none_or(|policy| policy == *name);
        for (name, Active { loaded, section, .. }) in self.active.iter().filter(concerned) {
            still_trusted(loaded, mode)?;
            let own = if policy.is_some() { mode } else { mode.min(section.mode) };
            let section = config.policy(name);
            loaded.check_grants(&section, own).map_err(|error| error.to_string())?;
        }
        let before = self.modes();
        self.guards.set_mode(policy, mode, self.sight.probes())?;
        self.wake(&before, config);
        Ok(())
    }

    /// Takes all rules of a policy, or of all, out of force. How many tables there were.
    pub fn release(&mut self, policy: Option<&str>) -> Result<usize, String> {
        self.guards.release_all(policy, self.sight.probes())
    }
}

/// Whether a policy's file, which was read when less could be done by it, would be read in this mode, and
/// is still what it was.
fn still_trusted(loaded: &Loaded, mode: Mode) -> Result<(), String> {
    if mode == Mode::Observe {
        return Ok(());
    }
    let bytes = Trust::of(mode).read(&loaded.path, MAX_FILE).map_err(|error| error.to_string())?;
    if Digest::of(&bytes) == loaded.digest {
        Ok(())
    } else {
        Err(format!("{}: has changed since it was loaded", shown(&loaded.path)))
    }
}
