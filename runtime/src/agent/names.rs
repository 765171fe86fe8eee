//! Names that a scope asks DNS servers for: where a table that denies has rules about names, a DNS guard
//! and its proxy stand at the scope's cgroup, a *post*.
//!
//! One post serves all tables of its cgroup and of those around it, as the innermost post alone sees the
//! queries. The network guards of these see the proxy's address where they would see the server's, so they
//! let everybody through to it, and the post asks their tables about the server.

mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tipstaff_events::dns::PORT;
use tokio::{runtime::Runtime, task::JoinHandle};

use super::{Keep, force::Key};
use crate::{
    clock,
    dns::{self, Doors, Limits, Proxy},
    guard::{NameIndex, Table, Verdict},
    probe::{DnsCalls, DnsGuard, Known, Probes},
};
use judge::{Entry, Tables, TablesJudge};

/// How long a proxy may take to show life.
const FIRST_SIGN: Duration = Duration::from_secs(5);
/// How often it is told that calls were not led to the proxy.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Where the resolvers of this machine stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// See the module's documentation.
pub(super) struct Names {
    /// Made for the first post.
    runtime: Option<Runtime>,
    tables: Tables,
    /// The network guards, and where they are.
    guards: BTreeMap<Key, (PathBuf, Known)>,
    posts: BTreeMap<PathBuf, Post>,
    keep: Option<Keep>,
}

/// The guard of a cgroup, and its proxy.
struct Post {
    guard: DnsGuard,
    proxy: JoinHandle<()>,
    /// The proxy's addresses.
    doors: Vec<SocketAddr>,
    /// Inode of the cgroup: another one may have its path later.
    inode: u64,
    /// Network guards of the same cgroup that were there before, and see the server's address themselves.
    before: Arc<Mutex<BTreeSet<Key>>>,
    /// Whether the links outlive it.
    is_kept: bool,
    told: DnsCalls,
    tell_at: Instant,
    is_over: bool,
}

impl Drop for Post {
    fn drop(&mut self) {
        if self.is_kept
            && let Err(error) = self.guard.set_unjudged(dns::Verdict::Allow)
        {
            tracing::error!(%error, "calls to DNS servers fail until the command ends");
        }
        self.proxy.abort();
    }
}

impl Names {
    pub fn new(keep: Option<Keep>) -> Self {
        let (guards, posts) = (BTreeMap::new(), BTreeMap::new());
        Self { runtime: None, tables: Tables::default(), guards, posts, keep }
    }

    /// There is a network guard now.
    pub fn joins(&mut self, key: &Key, directory: &Path, known: Known) -> Result<(), String> {
        for (_, post) in self.posts.iter().filter(|(place, _)| place.starts_with(directory)) {
            open(&known, &post.doors)?;
        }
        self.guards.insert(key.clone(), (directory.to_owned(), known));
        Ok(())
    }

    /// A network guard goes.
    pub fn leaves(&mut self, key: &Key) {
        self.guards.remove(key);
        for post in self.posts.values() {
            post.before.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
        self.tables.remove(key);
        self.tidy();
    }

    /// Sees to it that this table, which is to be put in force, can judge names: the servers of this machine
    /// can be reached, and if it is to deny, there is a post.
    pub fn prepare(
        &mut self,
        key: &Key,
        directory: &Path,
        table: &Table,
        denies: bool,
        probes: &mut Probes,
    ) -> Result<(), String> {
        if table.names.is_empty() {
            return Ok(());
        }
        let told = |error: std::io::Error| format!("rules about names: {error}");
        if let Some((_, known)) = self.guards.get(key) {
            known.set_servers(&resolvers()).map_err(told)?;
        }
        if !denies {
            return Ok(());
        }
        let inode = fs::metadata(directory).map_err(told)?.ino();
        if self.posts.get(directory).is_some_and(|post| post.inode == inode && !post.is_over) {
            return Ok(());
        }
        let post = self.post(directory, inode, table.default, probes)?;
        for (place, known) in self.guards.values() {
            if directory.starts_with(place) {
                open(known, &post.doors)?;
            }
        }
        self.posts.insert(directory.to_owned(), post);
        Ok(())
    }

    /// A table is in force; `count` is of the queries that it denies.
    pub fn enter(
        &mut self,
        key: &Key,
        number: u32,
        table: &Table,
        denies: bool,
        count: &Arc<AtomicU64>,
    ) {
        let Some((directory, known)) = self.guards.get(key) else { return };
        let (index, servers) = (NameIndex::new(&table.names), resolvers());
        // What follows fails only where the kernel's maps do not take what they have.
        let allows = |name: &str| {
            denies && index.find(name).is_some_and(|at| table.names[at].verdict == Verdict::Allow)
        };
        let mut done = known.keep_names(allows);
        if table.names.is_empty() {
            done = done.and_then(|()| known.set_servers(&BTreeSet::new()));
        }
        if let Err(error) = done {
            tracing::warn!(policy = key.0, scope = %key.1, %error, "addresses of names stay allowed");
        }
        if denies {
            self.tables.insert(Entry {
                key: key.clone(),
                directory: directory.clone(),
                guard: number,
                table: table.clone(),
                installed: clock::since_boot(),
                index,
                servers,
                known: known.clone(),
                denied: Arc::clone(count),
                is_full: false.into(),
            });
        } else {
            if !table.names.is_empty() {
                tracing::warn!(
                    policy = key.0, scope = %key.1,
                    "rules about names are not tried in audit, which changes nothing on the way to a DNS server: \
                     neither queries that they would refuse are told, nor do they let through the addresses of names"
                );
            }
            self.tables.remove(key);
        }
        self.tidy();
    }

    /// Takes away posts for which there is no table (any more, or after all), and says what becomes of what
    /// cannot be judged.
    pub fn tidy(&mut self) {
        let tables = &self.tables;
        self.posts.retain(|place, post| {
            // One whose links somebody else keeps stays attached anyway: it serves the next table.
            if !tables.has_names_at(place) && !post.is_kept {
                return false;
            }
            let unjudged = tables.default_at(place);
            if let Err(error) = post.guard.set_unjudged(unjudged) {
                tracing::error!(cgroup = %place.display(), %error, "a DNS guard cannot be changed");
            }
            true
        });
        let doors: BTreeSet<SocketAddr> =
            self.posts.values().flat_map(|post| post.doors.iter().copied()).collect();
        for (_, known) in self.guards.values() {
            if let Err(error) = known.close_others(&doors) {
                tracing::warn!(%error, "the address of a proxy stays allowed");
            }
        }
    }

    fn post(
        &mut self,
        directory: &Path,
        inode: u64,
        default: Verdict,
        probes: &mut Probes,
    ) -> Result<Post, String> {
        let told = |error: std::io::Error| format!("rules about names need a proxy: {error}");
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("dns")
                .enable_all()
                .build()
                .map_err(told)?,
        };
        let runtime = self.runtime.insert(runtime);
        let doors = Doors::open().map_err(told)?;
        let addresses = doors.addresses().map_err(told)?;
        let unjudged = judge::unjudged(default);
        let guard = probes
            .guard_dns(directory, &doors, unjudged, unjudged)
            .map_err(|error| format!("rules about names: {error}"))?;
        let here = self.guards.iter().filter(|(_, (place, _))| place == directory);
        let before = Arc::new(Mutex::new(here.map(|(key, _)| key.clone()).collect()));
        let judge = TablesJudge::new(directory, &self.tables, &before);
        let proxy = Proxy::new(judge, Limits::default(), guard.flows(), probes.handover());
        let place = directory.to_owned();
        let proxy = runtime.spawn(async move {
            if let Err(error) = proxy.serve(doors).await {
                tracing::error!(cgroup = %place.display(), %error, "the DNS proxy has ended");
            }
        });
        let mut post = Post {
            guard,
            proxy,
            doors: addresses.into_iter().map(|(_, address)| address).collect(),
            inode,
            before,
            is_kept: false,
            told: DnsCalls::default(),
            tell_at: Instant::now(),
            is_over: false,
        };
        let end = Instant::now() + FIRST_SIGN;
        while !post.guard.has_proxy() {
            if Instant::now() > end {
                return Err("rules about names: the proxy does not show life".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(Keep(keep)) = &self.keep {
            let links: Vec<BorrowedFd<'_>> = post.guard.links().collect();
            keep(&links).map_err(|error| format!("nobody keeps it if the agent dies: {error}"))?;
            post.is_kept = true;
        }
        Ok(post)
    }

    /// Tells of what could not be led to a proxy.
    pub fn look(&mut self) {
        let now = Instant::now();
        for (place, post) in &mut self.posts {
            let cgroup = place.display();
            if post.proxy.is_finished() && !post.is_over {
                post.is_over = true;
                tracing::error!(%cgroup, "names are not judged: there is no proxy until the table is put in again");
            }
            if now < post.tell_at {
                continue;
            }
            let Ok(calls) = post.guard.calls() else { continue };
            let DnsCalls { redirected: _, elsewhere, dead, no_door, forgotten } = calls;
            if calls != (DnsCalls { redirected: calls.redirected, ..post.told }) {
                post.tell_at = now + TELL_EVERY;
                tracing::warn!(
                    %cgroup, elsewhere, dead, no_door, forgotten,
                    "calls to DNS servers could not be led to the proxy, and got the default of the table"
                );
            }
            post.told = calls;
        }
    }
}

fn open(known: &Known, doors: &[SocketAddr]) -> Result<(), String> {
    let open = |door: &SocketAddr| known.open(*door);
    doors.iter().try_for_each(open).map_err(|error| format!("the way to the DNS proxy: {error}"))
}

/// The DNS servers of this machine, as its resolver has them.
fn resolvers() -> BTreeSet<SocketAddr> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    servers(&text).map(|address| (address, PORT).into()).collect()
}

fn servers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let server = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // Servers at link-local addresses are not reached by way of the proxy.
        server.parse().ok()
    };
    resolv_conf.lines().filter_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 192.0.2.1\nsearch a.example\nnameserver 127.0.0.53\n\
                    nameserver\tfd00::53 # second\nnameserver fe80::1%eth0\nnameserver\n";
        let expected: [IpAddr; 2] = ["127.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        assert_eq!(servers(text).collect::<Vec<_>>(), expected);
    }
}
