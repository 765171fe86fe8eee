//! Peers that a guard's table does not deny although no rule of it allows them: addresses of names that it
//! allows, for as long as the answer said; the servers that are asked for names; the proxy that is asked
//! in their place.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tipstaff_events::guard::{MAX_KNOWN, WHATEVER};

use super::maps;
use crate::{dns::mapped, guard::nanoseconds, sys::bpf::Table};

/// Bytes of a key and of a value of the map.
pub(super) const KEY_BYTES: usize = size_of::<tipstaff_events::guard::Peer>();
pub(super) const VALUE_BYTES: usize = 8;

/// Pairs of a name and an address; what is left of the map is for servers and proxies.
const MOST_PAIRS: usize = MAX_KNOWN as usize / 2;

/// See the module's documentation. Cheap to clone; what a clone adds goes with the guard.
#[derive(Clone)]
pub struct Known(Arc<Mutex<Inner>>);

struct Inner {
    map: Table,
    /// By address, the names that have it, each until when.
    names: HashMap<IpAddr, HashMap<String, Duration>>,
    pairs: usize,
    servers: BTreeSet<SocketAddr>,
    proxies: BTreeSet<SocketAddr>,
}

impl Known {
    pub(super) fn new(map: Table) -> Self {
        let (servers, proxies) = (BTreeSet::new(), BTreeSet::new());
        let inner = Inner { map, names: HashMap::new(), pairs: 0, servers, proxies };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the table's default does not keep anybody from this address of a name, until this time
    /// since boot. Fails where there are too many.
    pub fn learn(
        &self,
        name: &str,
        address: IpAddr,
        until: Duration,
        now: Duration,
    ) -> io::Result<()> {
        let mut inner = self.lock();
        let is_new = inner.names.get(&address).is_none_or(|names| !names.contains_key(name));
        if is_new && inner.pairs >= MOST_PAIRS {
            inner.retain(|_, until| until > now)?;
            if inner.pairs >= MOST_PAIRS {
                let most = format!("{MOST_PAIRS} addresses of names are allowed already");
                return Err(io::Error::other(most));
            }
        }
        let Inner { map, names, pairs, .. } = &mut *inner;
        let of_address = names.entry(address).or_default();
        let end = of_address.entry(name.to_owned()).or_default();
        *end = until.max(*end);
        *pairs += usize::from(is_new);
        let until = of_address.values().max().copied().unwrap_or_default();
        map.put(&key(address, 0), &nanoseconds(until).to_ne_bytes())
    }

    /// Forgets the addresses of names for which this does not hold.
    pub fn keep_names(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        self.lock().retain(|name, _| keep(name))
    }

    /// The servers that the table's default keeps nobody from, in place of those before.
    pub fn set_servers(&self, servers: &BTreeSet<SocketAddr>) -> io::Result<()> {
        let mut inner = self.lock();
        for server in inner.servers.difference(servers) {
            inner.map.remove(&key(server.ip(), server.port()))?;
        }
        for server in servers {
            inner.map.put(&key(server.ip(), server.port()), &(!WHATEVER).to_ne_bytes())?;
        }
        inner.servers.clone_from(servers);
        Ok(())
    }

    /// Nothing that the table says keeps anybody from this.
    pub fn open(&self, proxy: SocketAddr) -> io::Result<()> {
        let mut inner = self.lock();
        inner.map.put(&key(proxy.ip(), proxy.port()), &u64::MAX.to_ne_bytes())?;
        inner.proxies.insert(proxy);
        Ok(())
    }

    /// The table is asked again about what was opened and is none of these.
    pub fn close_others(&self, proxies: &BTreeSet<SocketAddr>) -> io::Result<()> {
        let mut inner = self.lock();
        let over: Vec<_> = inner.proxies.difference(proxies).copied().collect();
        for proxy in over {
            inner.map.remove(&key(proxy.ip(), proxy.port()))?;
            inner.proxies.remove(&proxy);
        }
        Ok(())
    }

    /// Forgets all of it.
    pub(super) fn forget(&self) -> io::Result<()> {
        self.keep_names(|_| false)?;
        self.set_servers(&BTreeSet::new())?;
        self.close_others(&BTreeSet::new())
    }

    /// Whether this is the address of a name that is allowed at this time since boot.
    #[must_use]
    pub fn has(&self, address: IpAddr, now: Duration) -> bool {
        let inner = self.lock();
        let names = inner.names.get(&address);
        names.is_some_and(|names| names.values().any(|until| now < *until))
    }
}

impl Inner {
    fn retain(&mut self, keep: impl Fn(&str, Duration) -> bool) -> io::Result<()> {
        let Self { map, names, pairs, .. } = self;
        let mut result = Ok(());
        names.retain(|address, of_address| {
            of_address.retain(|name, until| keep(name, *until));
            let put = match of_address.values().max() {
                Some(until) => map.put(&key(*address, 0), &nanoseconds(*until).to_ne_bytes()),
                None => map.remove(&key(*address, 0)),
            };
            if let Err(error) = put {
                result = Err(error);
            }
            !of_address.is_empty()
        });
        *pairs = names.values().map(HashMap::len).sum();
        result
    }
}

fn key(address: IpAddr, port: u16) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..16].copy_from_slice(&mapped(address));
    key[16..].copy_from_slice(&u64::from(port).to_ne_bytes());
    key
}

/// The map of a guard.
pub(super) fn map(ebpf: &aya::Ebpf) -> io::Result<Known> {
    maps::table(ebpf, tipstaff_events::guard::KNOWN, KEY_BYTES, VALUE_BYTES).map(Known::new)
}
