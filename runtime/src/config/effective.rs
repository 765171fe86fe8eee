//! The configuration that will run, and its defaults: [`super::resolve`] puts what was typed over them.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    filter::Filter,
    settings::Settings,
    value::{Attach, DenyField, Listen, Name, Protected},
};
use crate::{
    guard::{Grant, Mode, OnQuarantine, Rule, Strength},
    policy::{CompileLimits, Limits},
    probe::KEYS,
};

/// Where the file is looked for if none is named.
pub const DEFAULT_FILE: &str = "/etc/tipstaff/tipstaff.toml";

/// The configuration that will run.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that it comes from, if any.
    pub file: Option<PathBuf>,
    /// See [`super::typed::Agent`].
    pub agent: Agent,
    /// See [`super::typed::Compiler`].
    pub compiler: CompileLimits,
    /// See [`super::typed::Metrics`].
    pub metrics: Metrics,
    /// See [`super::typed::Guard`].
    pub guard: Guard,
    /// Of each policy that has none of its own.
    pub limits: Limits,
    /// See [`super::typed::Probe`].
    pub probes: Vec<Probe>,
    /// Policies that have a section, by name. [`Config::policy`] knows the others.
    pub policies: BTreeMap<String, Policy>,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// How far it goes.
    pub mode: Mode,
    /// Directory of policies; `None` where the command line names files only.
    pub policies: Option<PathBuf>,
    /// Files that the command line names.
    pub policy_files: Vec<PathBuf>,
    /// Directory for compiled policies.
    pub cache_dir: PathBuf,
    /// Directory for what it must remember.
    pub state_dir: PathBuf,
    /// How long an event may wait for its batch.
    pub latency: Duration,
    /// Keys that each aggregated kind has room for.
    pub keys: u32,
    /// What it may use of the processors, in percent of one core.
    pub cpu_percent: Option<u32>,
    /// Events per second that each cgroup may make.
    pub events_per_cgroup: Option<u32>,
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// The address.
    pub listen: Listen,
    /// Whether someone asked for this address, so that a busy port ends the agent.
    pub asked: bool,
    /// When a series is forgotten.
    pub idle_expiry: Duration,
}

/// What no policy may exceed that acts on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// What no policy may deny.
    pub always_allow: Vec<Rule>,
    /// What no action may reach.
    pub protected: Vec<Protected>,
    /// Changes per minute, of all policies together.
    pub actions_per_minute: u32,
    /// Actions that one policy may ask for within a minute.
    pub breaker: u32,
}

/// A probe of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Name of the event kind.
    pub name: String,
    /// Where it is attached.
    pub attach: Attach,
    /// Line in the file, for messages.
    pub line: usize,
}

/// A policy's section.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Digests that its file may have, `sha256:...`; empty: any.
    pub digest: Vec<String>,
    /// How far it may go; the agent's mode counts as well.
    pub mode: Mode,
    /// Capabilities that it has.
    pub grants: Vec<Grant>,
    /// Whether any file of this name has them in enforce mode.
    pub unpinned: bool,
    /// The least that its actions must promise.
    pub require: Option<Strength>,
    /// What becomes of its rules when it is quarantined.
    pub on_quarantine: OnQuarantine,
    /// Fields that it does not get.
    pub deny_fields: Vec<DenyField>,
    /// Which events it gets.
    pub filter: Filter,
    /// What it may use.
    pub limits: Limits,
    /// Its settings, still to be checked against its manifest.
    pub settings: Settings,
}

/// What the command line says, over the file.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--name`.
    pub name: Option<Name>,
    /// `--policies`.
    pub policies: Option<PathBuf>,
    /// `--policy`.
    pub policy: Vec<PathBuf>,
    /// `--metrics`.
    pub metrics: Option<Listen>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            name: "tipstaff".to_owned(),
            mode: Mode::Observe,
            policies: Some("/etc/tipstaff/policies".into()),
            policy_files: Vec::new(),
            cache_dir: CACHE.default_for_this_user(),
            state_dir: STATE.default_for_this_user(),
            latency: Duration::from_millis(100),
            keys: KEYS,
            cpu_percent: None,
            events_per_cgroup: None,
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            always_allow: Vec::new(),
            protected: Vec::new(),
            actions_per_minute: 600,
            breaker: 120,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Listen::On(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9470)),
            asked: false,
            idle_expiry: Duration::from_mins(10),
        }
    }
}

/// A directory of the agent's own, where none is configured.
struct OwnDirectory {
    /// As root always this, whatever the environment says.
    of_root: &'static str,
    /// Variable that names the user's directory for such things.
    variable: &'static str,
    /// Where that is if the variable is not set, from the home directory.
    in_home: &'static str,
}

const CACHE: OwnDirectory =
    OwnDirectory { of_root: "/var/cache/tipstaff", variable: "XDG_CACHE_HOME", in_home: ".cache" };
const STATE: OwnDirectory = OwnDirectory {
    of_root: "/var/lib/tipstaff",
    variable: "XDG_STATE_HOME",
    in_home: ".local/state",
};

impl OwnDirectory {
    fn default_for_this_user(&self) -> PathBuf {
        self.default_for(rustix::process::geteuid().is_root(), |name| {
            env::var_os(name).map(PathBuf::from)
        })
    }

    fn default_for(&self, is_root: bool, environment: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
        if is_root {
            return self.of_root.into();
        }
        let absolute = |name| environment(name).filter(|directory| directory.is_absolute());
        absolute(self.variable)
            .or_else(|| absolute("HOME").map(|home| home.join(self.in_home)))
            .map_or_else(
                || format!("/tmp/tipstaff-{}", rustix::process::geteuid().as_raw()).into(),
                |directory| directory.join("tipstaff"),
            )
    }
}

impl Config {
    /// The configuration of this policy: of its section, else the defaults.
    #[must_use]
    pub fn policy(&self, name: &str) -> Policy {
        self.policies.get(name).cloned().unwrap_or_else(|| Policy {
            digest: Vec::new(),
            mode: Mode::Enforce,
            grants: Vec::new(),
            unpinned: false,
            require: None,
            on_quarantine: OnQuarantine::default(),
            deny_fields: Vec::new(),
            filter: Filter::default(),
            limits: self.limits.clone(),
            settings: Settings::default(),
        })
    }
}
