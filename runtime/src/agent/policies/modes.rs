//! Modes, as they change while policies run.

use std::collections::BTreeMap;

use super::{Active, Policies, PolicyMode, shown};
use crate::{
    config::Config,
    guard::Mode,
    policy::{Digest, Loaded, MAX_FILE, grants},
    trust::{Trust, TrustError},
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

    /// Ends policies that go further now than before, and whose files are not to be trusted then.
    pub(super) fn end_distrusted(&mut self, before: &BTreeMap<String, Mode>) {
        for (name, from) in before {
            let Some(Active { loaded, .. }) = self.active.get(name) else { continue };
            let path = loaded.path.clone();
            if let Err(error) = may_rise(loaded, *from, self.guards.mode(name)) {
                self.remove(name, "its file is not to be trusted in this mode");
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
        if policy.is_none() && mode > self.guards.agent_mode() {
            check_files(config, mode).map_err(|error| error.to_string())?;
        }
        let concerned =
            |(name, _): &(&String, &Active)| policy.is_none_or(|policy| policy == *name);
        for (name, Active { loaded, section, .. }) in self.active.iter().filter(concerned) {
            let own = if policy.is_some() { mode } else { mode.min(section.mode) };
            let from = self.guards.mode(name);
            if own > from {
                may_rise(loaded, from, own)?;
                let section = config.policy(name);
                loaded.check_grants(&section, own).map_err(|error| error.to_string())?;
            }
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

/// Whether the configuration file and the directory of policies are such as are read in this mode: they
/// were read in another one, if the operator says it by `tipstaff mode`.
pub(in crate::agent) fn check_files(config: &Config, mode: Mode) -> Result<(), TrustError> {
    let trust = Trust::of(mode);
    if let Some(file) = &config.file {
        trust.read(file, MAX_FILE)?;
    }
    config.agent.policies.as_ref().map_or(Ok(()), |policies| trust.names(policies).map(drop))
}

/// Whether a policy that goes as far as `from` may go as far as `to`: its file must be one that would be
/// read then. Where it is lowered there is nothing to be asked. What was read in observe may have been
/// anybody's, and so the file must still be what was read; later it was root's, and whatever is in it by
/// now is not what runs.
fn may_rise(loaded: &Loaded, from: Mode, to: Mode) -> Result<(), String> {
    if to <= from {
        return Ok(());
    }
    let bytes = Trust::of(to).read(&loaded.path, MAX_FILE).map_err(|error| error.to_string())?;
    if from > Mode::Observe || Digest::of(&bytes) == loaded.digest {
        Ok(())
    } else {
        Err(format!("{}: has changed since it was loaded", shown(&loaded.path)))
    }
}
