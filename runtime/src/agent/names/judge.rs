//! What the tables in force say about a query, and what is learned from its answer.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Key;
use crate::{
    clock,
    dns::{self, Answer, Flow, Judge, Question, Ruling, Transport},
    guard::{By, NameIndex, Operation, Protocol, Table, Verdict},
    probe::Known,
};

/// How long an address of a name is allowed, whatever the answer says: who has it connects a moment later,
/// and no answer holds for ever.
const TIME_TO_LIVE: (u32, u32) = (10, 24 * 60 * 60);

/// A table that denies.
pub(super) struct Entry {
    pub key: Key,
    pub directory: PathBuf,
    /// Number of its guard.
    pub guard: u32,
    pub table: Table,
    /// When, since boot: its rules' times to live began then.
    pub installed: Duration,
    pub index: NameIndex,
    /// Servers that can be reached for its names.
    pub servers: BTreeSet<SocketAddr>,
    pub known: Known,
    /// Queries that it denied.
    pub denied: Arc<AtomicU64>,
    /// Whether it was told that there are too many addresses.
    pub is_full: AtomicBool,
}

impl Entry {
    /// What it says about a name, and the rule that does.
    fn decide(&self, name: &str) -> (Verdict, Option<usize>) {
        let rule = self.index.find(name);
        (rule.map_or(self.table.default, |at| self.table.names[at].verdict), rule)
    }

    /// What its rules about addresses say about a server, in each way that the query may have been sent.
    fn about_server(&self, flow: &Flow) -> impl Iterator<Item = (Verdict, By)> {
        let (protocol, operations) = match flow.transport {
            Transport::Udp => (Protocol::Udp, &[Operation::Connect, Operation::Send][..]),
            Transport::Tcp => (Protocol::Tcp, &[Operation::Connect][..]),
        };
        let after = clock::since_boot().saturating_sub(self.installed);
        let (address, port) = (flow.server.ip(), flow.server.port());
        operations
            .iter()
            .map(move |operation| self.table.decide(after, *operation, protocol, address, port))
    }

    fn denies_server(&self, flow: &Flow) -> bool {
        let is_open = self.servers.contains(&flow.server) && !self.table.names.is_empty()
            || self.known.has(flow.server.ip(), clock::since_boot());
        self.about_server(flow).any(|decided| match decided {
            (Verdict::Deny, By::Default) => !is_open,
            (verdict, _) => verdict == Verdict::Deny,
        })
    }

    /// Whether this server is one that may say which addresses a name has. One that is reached by an
    /// address of a name is none.
    fn trusts(&self, flow: &Flow) -> bool {
        self.servers.contains(&flow.server)
            || self.about_server(flow).all(|(verdict, _)| verdict == Verdict::Allow)
    }

    fn refuses(&self, is_for_server: bool, rule: Option<usize>) -> Ruling {
        self.denied.fetch_add(1, Ordering::Relaxed);
        Ruling { verdict: dns::Verdict::Refuse, is_for_server, ..self.named(rule) }
    }

    fn named(&self, rule: Option<usize>) -> Ruling {
        let rule = rule.and_then(|rule| rule.try_into().ok()).unwrap_or(u32::MAX);
        Ruling { guard: self.guard, rule, ..dns::Verdict::Allow.into() }
    }

    /// Lets through the addresses of a name that a rule allows.
    fn learn(&self, question: &Question, answer: &Answer) {
        let (least, most) = TIME_TO_LIVE;
        let seconds = answer.ttl.unwrap_or_default().clamp(least, most);
        let now = clock::since_boot();
        let until = now + Duration::from_secs(seconds.into());
        for address in &answer.addresses {
            if let Err(error) = self.known.learn(&question.name, *address, until, now)
                && !self.is_full.swap(true, Ordering::Relaxed)
            {
                let (policy, scope) = (&self.key.0, &self.key.1);
                tracing::warn!(policy, %scope, %error, "an address of an allowed name stays denied");
            }
        }
    }
}

/// The tables that deny, of all policies. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Tables(Arc<RwLock<Vec<Arc<Entry>>>>);

impl Tables {
    fn all(&self) -> Vec<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts one in, in place of the one of the same policy in the same scope.
    pub fn insert(&self, entry: Entry) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.key != entry.key);
        all.push(Arc::new(entry));
    }

    pub fn remove(&self, key: &Key) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.key != *key);
    }

    /// Whether there is one with names for this very cgroup.
    pub fn has_names_at(&self, directory: &Path) -> bool {
        self.all().iter().any(|entry| entry.directory == directory && !entry.table.names.is_empty())
    }

    /// The tables of a cgroup and of those around it.
    fn over(&self, directory: &Path) -> impl Iterator<Item = Arc<Entry>> {
        self.all().into_iter().filter(move |entry| directory.starts_with(&entry.directory))
    }

    /// What becomes there of what cannot be judged.
    pub fn default_at(&self, directory: &Path) -> dns::Verdict {
        let mut judging = self.over(directory).filter(|entry| !entry.table.names.is_empty());
        unjudged(if judging.any(|entry| entry.table.default == Verdict::Deny) {
            Verdict::Deny
        } else {
            Verdict::Allow
        })
    }
}

/// What cannot be judged gets the default.
pub(super) fn unjudged(default: Verdict) -> dns::Verdict {
    match default {
        Verdict::Allow => dns::Verdict::Allow,
        Verdict::Deny => dns::Verdict::Refuse,
    }
}

/// Judges the queries that come to one post.
pub(super) struct TablesJudge {
    directory: PathBuf,
    tables: Tables,
    before: Arc<Mutex<BTreeSet<Key>>>,
}

impl TablesJudge {
    pub fn new(directory: &Path, tables: &Tables, before: &Arc<Mutex<BTreeSet<Key>>>) -> Self {
        Self { directory: directory.to_owned(), tables: tables.clone(), before: Arc::clone(before) }
    }

    /// All tables are asked, as each counts what it denies; the first one that denies is told.
    fn rule(&self, question: &Question, flow: &Flow) -> Ruling {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut refused, mut allowed) = (None, None);
        for entry in self.tables.over(&self.directory) {
            if !before.contains(&entry.key) && entry.denies_server(flow) {
                refused = refused.or(Some(entry.refuses(true, None)));
            } else if !entry.table.names.is_empty() {
                match entry.decide(&question.name) {
                    (Verdict::Deny, rule) => refused = refused.or(Some(entry.refuses(false, rule))),
                    (Verdict::Allow, rule) => allowed = allowed.or(Some(entry.named(rule))),
                }
            }
        }
        refused.or(allowed).unwrap_or_else(|| dns::Verdict::Allow.into())
    }
}

impl Judge for TablesJudge {
    async fn judge(&self, question: &Question, flow: &Flow) -> Ruling {
        self.rule(question, flow)
    }

    fn answered(&self, question: &Question, answer: &Answer, flow: &Flow) {
        for entry in self.tables.over(&self.directory) {
            if matches!(entry.decide(&question.name), (Verdict::Allow, Some(_)))
                && entry.trusts(flow)
            {
                entry.learn(question, answer);
            }
        }
    }
}
