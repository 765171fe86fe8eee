//! The configuration as it was typed: every key optional. Each key is written here and nowhere else;
//! `docs/configuration.md` is made from this list, and the compiler asks [`super::resolve`] for the
//! rest.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    document::{At, Key, Node, Reader, Section, Value, section},
    filter::Filter,
    quantity::{Size, Time, Whole},
    settings::Settings,
    value::{AlwaysAllow, Attach, DenyField, Digest, KindName, Listen, Name, Protected},
};
use crate::guard::{Grant, Mode, OnQuarantine, Strength};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const DAY: u64 = 24 * 3600 * SECOND;

section! {
    /// The configuration file. None is needed: without one, everything is as the defaults say.
    pub struct File {
        /// The agent itself.
        #[default("")]
        pub agent: Agent,
        /// What compiling one policy's file may take.
        #[default("")]
        pub compiler: Compiler,
        /// Where metrics are served.
        #[default("")]
        pub metrics: Metrics,
        /// What no policy may exceed that acts on the machine.
        #[default("")]
        pub guard: Guard,
        /// Limits of each policy that has none of its own.
        #[default("")]
        pub limits: Limits,
        /// Probes of the operator's own.
        #[default("")]
        pub probe: Vec<At<Probe>>,
        /// Policies by their manifest's name. A policy without a section runs with the defaults.
        #[default("")]
        pub policy: BTreeMap<Name, At<Policy>>,
    }
}

section! {
    /// The agent itself.
    pub struct Agent {
        /// Name of this agent. A machine may run several if their names differ.
        #[default("\"tipstaff\"")]
        pub name: Name,
        /// How far policies may go. In observe mode nothing is done to any process, and files may
        /// belong to the user who started the agent instead of root. In audit mode actions are decided
        /// and reported, and change nothing; in enforce mode they are done.
        #[default("\"observe\"")]
        pub mode: Mode,
        /// Directory of policies. Each `.wasm` file in it is loaded, and loaded again when it
        /// changes. A relative path starts at the configuration file's directory.
        #[default("\"/etc/tipstaff/policies\"")]
        pub policies: PathBuf,
        /// Directory for compiled policies. As root `/var/cache/tipstaff`, else `tipstaff` in
        /// `$XDG_CACHE_HOME` or `~/.cache`.
        #[default("\"/var/cache/tipstaff\"")]
        pub cache_dir: PathBuf,
        /// Directory for what the agent must remember: the decisions about actions, in a folder for each
        /// agent's name. As root `/var/lib/tipstaff`, else `tipstaff` in `$XDG_STATE_HOME` or
        /// `~/.local/state`.
        #[default("\"/var/lib/tipstaff\"")]
        pub state_dir: PathBuf,
        /// How long an event may wait for others to be handed to a policy with it.
        #[default("\"100ms\"")]
        pub latency: Time<1, { 10 * SECOND }>,
        /// Keys that each aggregated kind has room for: combinations of process, system call and error.
        /// What finds no room is counted as lost. A map takes up to 2 KiB of kernel memory for each of
        /// these on a large machine, and has fewer keys where that is not enough; `tipstaff plan` shows
        /// what it is here.
        #[default("32768")]
        pub keys: Whole<1_024, 1_048_576>,
        /// Processor time of the agent in percent of one core: its own threads, compiling aside, and its
        /// programs in the kernel, which the kernel measures while this is set (some tens of nanoseconds
        /// for each run of any program of the machine). While it is exceeded, fewer and fewer events are
        /// taken of the costliest kind, one of 2, 4, 8 and so on, and more again when it can be afforded.
        /// Rows say so by their `weight`; who does not ask for that is told of a gap (`agent_budget`).
        /// The log and the event `agent_budget` tell each step. Not touched are kinds that a policy with
        /// rules in enforce mode asks for, and those that `events_per_cgroup` leaves alone.
        #[default("no limit")]
        pub cpu_percent: Whole<1, 6_400>,
        /// Events per second of each cgroup, of all kinds together, so that one that makes very many does
        /// not fill the ring buffer that all share. What is not used is saved for a second. Further ones
        /// are left out in the kernel and counted: policies are told (`cgroup_budget`), and the event
        /// `cgroup_budget` and the log name the cgroup. Never left out is what a policy gets as urgent,
        /// what guards tell (`denied`), and `fork`, `exec` and `exit` while a policy asks for fields that
        /// are kept by them (`proc.`); what is added up in the kernel is no event. Cgroups are those of
        /// the v2 hierarchy, each for itself and not with those below it. Costs some time for each event
        /// while it is set.
        #[default("no limit")]
        pub events_per_cgroup: Whole<1, 1_000_000>,
    }
}

section! {
    /// What compiling one policy's file may take. It is done once for each file, in a process of its own
    /// that has no rights; a file that takes more does not load.
    pub struct Compiler {
        /// Processor time, rounded up to whole seconds; and ten times that in wall time.
        #[default("\"30s\"")]
        pub cpu: Time<SECOND, { 3600 * SECOND }>,
        /// Memory.
        #[default("\"1GiB\"")]
        pub memory: Size<{ 64 * MIB }, { 64 * GIB }>,
    }
}

section! {
    /// Where metrics are served, at `/metrics`, and how long they are kept.
    pub struct Metrics {
        /// Address and port, or `off`. If the default's port is taken, the agent runs without.
        #[default("\"127.0.0.1:9470\"")]
        pub listen: Listen,
        /// Whether `listen` may be an address that other machines reach. Whoever reaches it reads
        /// all metrics.
        #[default("false")]
        pub allow_remote: bool,
        /// A series that has labels and that its policy has not written for this long is forgotten.
        #[default("\"10m\"")]
        pub idle_expiry: Time<SECOND, DAY>,
    }
}

section! {
    /// What no policy may exceed that acts on the machine, whatever it was granted.
    pub struct Guard {
        /// Connections that no policy may deny: protocol, prefix and ports, such as `"tcp 10.0.0.53 53"`.
        /// They are put in front of every table of rules.
        #[default("[]")]
        pub always_allow: Vec<AlwaysAllow>,
        /// What no action may reach, besides process 1, kernel threads, the agent and the processes that
        /// it descends from: every process that runs one of these files, and what is in these cgroups.
        /// An action on a cgroup in which such a process is, is refused.
        #[default("[]")]
        pub protected: Vec<Protected>,
        /// Changes to the machine per minute, of all policies together. Further ones are refused.
        #[default("600")]
        pub actions_per_minute: Whole<0, 100_000>,
        /// Actions that one policy may ask for within a minute, those included that its budget refuses.
        /// With more its mode becomes audit, until `tipstaff mode` or a restart of the agent; what it
        /// had done before stays.
        #[default("120")]
        pub breaker: Whole<1, 100_000>,
    }
}

section! {
    /// What one policy may use. In `[limits]` for all policies, in `[policy.NAME.limits]` for one.
    pub struct Limits {
        /// Processor time of one call. A call that takes longer costs the policy its instance.
        #[default("\"50ms\"")]
        pub cpu_per_call: Time<1, { 60 * SECOND }>,
        /// Processor time of all calls, in percent of one core. What is not used is saved for a second
        /// at most; a policy that used it up waits, and its events wait in its queue.
        #[default("20")]
        pub cpu_percent: Whole<1, 6_400>,
        /// Processor time until an instance is made, and as much again until it has taken its settings.
        /// What takes longer does not load, or is restarted later.
        #[default("\"500ms\"")]
        pub start_up: Time<1, { 60 * SECOND }>,
        /// Memory of an instance. Growing further costs the policy its instance.
        #[default("\"64MiB\"")]
        pub memory: Size<{ 2 * MIB }, { 4 * GIB }>,
        /// Elements of all tables of an instance. Growing further costs the policy its instance.
        #[default("100000")]
        pub table_elements: Whole<1, 100_000_000>,
        /// Core instances, memories and tables that an instance is made of, so many of each. One that
        /// needs more does not load.
        #[default("100")]
        pub parts: Whole<1, 10_000>,
        /// What a policy passes to the agent in one call, strings and lists together. More costs the
        /// policy its instance.
        #[default("\"1MiB\"")]
        pub host_call: Size<{ 4 * KIB }, { 128 * MIB }>,
        /// Handles of metrics that an instance holds at once. One more costs the policy its instance.
        #[default("10000")]
        pub handles: Whole<1, 10_000_000>,
        /// Size of its file. A larger one does not load; one above 128 MiB is not even read.
        #[default("\"64MiB\"")]
        pub file: Size<{ KIB }, { 128 * MIB }>,
        /// What it subscribes to. A policy with more does not load.
        #[default("64")]
        pub subscriptions: Whole<1, 255>,
        /// Events that are handed over in one call, in bytes of rows; a quarter of `memory` if that is
        /// less. The events of a larger batch are lost for this policy, and the policy is told.
        #[default("\"1MiB\"")]
        pub batch: Size<{ 128 * KIB }, GIB>,
        /// Events that wait for a policy, in bytes of rows. What comes when it is full is lost for
        /// this policy, and the policy is told.
        #[default("\"8MiB\"")]
        pub queue: Size<{ 64 * KIB }, GIB>,
        /// Series of metrics; a histogram counts as many as it has buckets, and two. Values of
        /// further ones are counted in a series with `overflow="true"`.
        #[default("1000")]
        pub series: Whole<1, 1_000_000>,
        /// Alerts per minute. Further ones are dropped and counted.
        #[default("600")]
        pub alerts_per_minute: Whole<0, 100_000>,
        /// Alerts at once after a quiet time.
        #[default("100")]
        pub alerts_burst: Whole<0, 100_000>,
        /// Lines in the agent's log per minute. Further ones are dropped and counted.
        #[default("600")]
        pub log_lines_per_minute: Whole<0, 100_000>,
        /// Lines in the agent's log at once after a quiet time.
        #[default("100")]
        pub log_lines_burst: Whole<0, 100_000>,
        /// State that the agent keeps for a policy, and state that it hands to the next generation,
        /// each. What does not fit is refused; a new generation then starts empty.
        #[default("\"1MiB\"")]
        pub state: Size<0, { 128 * MIB }>,
        /// Changes to the machine per minute. Further ones are refused. What a rule that is in force
        /// denies is no change.
        #[default("60")]
        pub actions_per_minute: Whole<0, 100_000>,
        /// Scopes in which it has a table of rules at once. One more is refused.
        #[default("16")]
        pub tables: Whole<1, 1_000>,
        /// Rules of one table. A longer table is refused.
        #[default("10000")]
        pub rules: Whole<1, 16_000>,
        /// Text of one table, in bytes. A longer one is refused.
        #[default("\"768KiB\"")]
        pub table_text: Size<{ KIB }, { 128 * MIB }>,
    }
}

section! {
    /// A probe of the operator's own: it makes a kind of event that policies can subscribe to and
    /// `tipstaff events` prints.
    pub struct Probe {
        /// Name of the event kind. Must be new.
        #[default("")]
        pub name: KindName,
        /// What is observed. `tracepoint:CATEGORY:NAME` is any tracepoint of the running kernel, as
        /// in `/sys/kernel/tracing/events`; the kind's fields are those of its `format`.
        #[default("")]
        pub attach: Attach,
    }
}

section! {
    /// A policy, by its manifest's name.
    pub struct Policy {
        /// Files that may be this policy. Any other file of this name is refused.
        #[default("any file")]
        pub digest: Vec<Digest>,
        /// How far this policy may go; the milder of this and the agent's mode counts.
        #[default("the agent's")]
        pub mode: Mode,
        /// Capabilities that it has besides the harmless ones. `tipstaff inspect FILE` prints what it
        /// asks for.
        #[default("[]")]
        pub grants: Vec<Grant>,
        /// Whether what is granted in enforce mode is granted to any file of this name, and not only to
        /// those in `digest`.
        #[default("false")]
        pub unpinned: bool,
        /// The least that its actions must promise. Where this kernel cannot keep that, the policy does
        /// not load.
        #[default("what can be had")]
        pub require: Strength,
        /// What becomes of its rules when it is quarantined: they stay until their time is over, or go.
        #[default("\"hold\"")]
        pub on_quarantine: OnQuarantine,
        /// Fields that this policy does not get; a name before a dot stands for all fields below it, so
        /// that `proc` withholds `proc.exe`, `proc.args` and so on. Where it asks for one as optional it has no value;
        /// where it requires one, the policy does not load.
        #[default("[]")]
        pub deny_fields: Vec<At<DenyField>>,
        /// Conditions on the events that this policy gets, beside its own, by kind: `exec = "uid >= 1000"`,
        /// as `tipstaff events --where` takes them.
        #[default("all events that it asks for")]
        pub filter: Filter,
        /// Limits of this policy; a key that is not here is as in `[limits]`.
        #[default("as `[limits]`")]
        pub limits: Limits,
        /// Settings of this policy. `tipstaff inspect FILE` prints which ones it takes.
        #[default("the manifest's defaults")]
        pub settings: Settings,
    }
}
