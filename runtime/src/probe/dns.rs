//! The kernel's side of the DNS guard: programs at a scope's cgroup that lead what it sends to DNS
//! servers to the proxy (`crate::dns`).

use std::{
    fs::File,
    io,
    mem::offset_of,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
    programs::{CgroupSkb, CgroupSockAddr},
};
use tipstaff_events::{
    catalogue::{dns_answer, dns_query},
    dns::{
        COUNT_DEAD, COUNT_ELSEWHERE, COUNT_FORGOTTEN, COUNT_NO_DOOR, COUNT_REDIRECTED, COUNTS,
        FLOWS, FlowKey, SENDERS, SETTINGS, Sender, Settings,
    },
};

use super::{
    Probes,
    attach::reason,
    coverage::{Coverage, KindReport},
    error::ProbeError,
    guard,
    losses::Watch,
    object,
    object::Prepared,
};
use crate::{
    clock,
    dns::{Doors, Flow, Transport, Verdict, mapped},
    sys::bpf::{self, CgroupHook},
};

/// Name of the object.
const OBJECT: &str = "guard_dns";
/// Its programs, and where they sit. What turns addresses back stands first, then what knows the senders,
/// and what leads away last.
const PROGRAMS: [(&str, CgroupHook, &str); 9] = [
    ("dns_recvmsg4", CgroupHook::Recvmsg4, "cgroup:recvmsg4"),
    ("dns_recvmsg6", CgroupHook::Recvmsg6, "cgroup:recvmsg6"),
    ("dns_getpeername4", CgroupHook::Getpeername4, "cgroup:getpeername4"),
    ("dns_getpeername6", CgroupHook::Getpeername6, "cgroup:getpeername6"),
    ("dns_egress", CgroupHook::Egress, "cgroup:egress"),
    ("dns_connect4", CgroupHook::Connect4, "cgroup:connect4"),
    ("dns_connect6", CgroupHook::Connect6, "cgroup:connect6"),
    ("dns_sendmsg4", CgroupHook::Sendmsg4, "cgroup:sendmsg4"),
    ("dns_sendmsg6", CgroupHook::Sendmsg6, "cgroup:sendmsg6"),
];

/// Kinds that the proxy tells of.
pub(super) const KINDS: [u16; 2] = [dns_query::KIND, dns_answer::KIND];

/// How the kind is seen, if the proxy tells of it: wherever there can be a DNS guard.
pub(super) fn report(kind: u16) -> Option<KindReport> {
    if !KINDS.contains(&kind) {
        return None;
    }
    if let Some(reason) = Doors::refusal() {
        return Some(KindReport { coverage: Coverage::None(reason), ..KindReport::default() });
    }
    Some(KindReport {
        hooks: PROGRAMS.iter().map(|(_, _, hook)| (*hook).to_owned()).collect(),
        programs: PROGRAMS.iter().map(|(program, _, hook)| format!("{program}@{hook}")).collect(),
        ..KindReport::default()
    })
}

/// Bytes of what the maps hold.
const SETTINGS_BYTES: usize = size_of::<Settings>();
const KEY_BYTES: usize = size_of::<FlowKey>();
const FLOW_BYTES: usize = size_of::<tipstaff_events::dns::Flow>();
const SENDER_BYTES: usize = size_of::<Sender>();

/// A guard on what a scope asks DNS servers. Dropping it detaches its programs: from then on the scope
/// asks them itself again.
pub struct DnsGuard {
    /// Stand first: they are closed first, and with them nothing is led away any more.
    links: Vec<OwnedFd>,
    _ebpf: Ebpf,
    _watches: Vec<Watch>,
    flows: Flows,
    counts: Array<MapData, u64>,
}

/// What the guard knows of what it led to the proxy. Cheap to clone.
#[derive(Clone)]
pub struct Flows(Arc<Inner>);

struct Inner {
    flows: HashMap<MapData, [u8; KEY_BYTES], [u8; FLOW_BYTES]>,
    senders: HashMap<MapData, [u8; SENDER_BYTES], u64>,
    settings: Mutex<Set>,
}

/// The settings as they are in the map.
struct Set {
    map: Array<MapData, [u8; SETTINGS_BYTES]>,
    bytes: [u8; SETTINGS_BYTES],
    alive_until: u64,
}

/// Calls (connect, and sending from a socket that is not connected) to a server's port, by what became of
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsCalls {
    /// Led to the proxy.
    pub redirected: u64,
    /// From another network namespace than the proxy's: passed or failed, as was chosen.
    pub elsewhere: u64,
    /// While the proxy was dead: passed or failed, as was chosen.
    pub dead: u64,
    /// Failed, as there is no door for the family (IPv6 without a loopback address).
    pub no_door: u64,
    /// Failed, as the flow could not be remembered.
    pub forgotten: u64,
}

impl Probes {
    /// Guards what processes in a cgroup (a directory on cgroup v2), and those below it, ask DNS servers:
    /// sockets that are made there from now on are led to the proxy at these doors. `on_proxy_death` is
    /// for the time when the proxy does not show life, also before it has started; `elsewhere` for
    /// sockets of other network namespaces, from which the proxy cannot be reached. Refused there means
    /// that connecting and sending to port 53 fail with EPERM.
    ///
    /// Minimum kernel: 5.14 (cookies of network namespaces).
    pub fn guard_dns(
        &mut self,
        cgroup: &Path,
        doors: &Doors,
        on_proxy_death: Verdict,
        elsewhere: Verdict,
    ) -> Result<DnsGuard, ProbeError> {
        let failed = |reason: String| ProbeError::Guard { cgroup: cgroup.to_owned(), reason };
        let settings = Settings {
            pass_dead: u8::from(on_proxy_death == Verdict::Allow),
            pass_elsewhere: u8::from(elsewhere == Verdict::Allow),
            ..doors.settings().map_err(|error| failed(format!("the proxy's sockets: {error}")))?
        };
        let object = [Prepared::new(OBJECT, self.kernel.btf()?, &[])?];
        let ebpf = object::load(&object, &self.shared).remove(0);
        self.kernel.forget();
        let mut ebpf = ebpf?;
        let flows = Flows::open(&mut ebpf, &settings)?;
        let directory = guard::open(cgroup).map_err(failed)?;
        let links = PROGRAMS
            .iter()
            .map(|(name, hook, _)| {
                attach(&mut ebpf, name, *hook, &directory)
                    .map_err(|error| failed(format!("{name}: {error}")))
            })
            .collect::<Result<_, _>>()?;
        let counts = map::<Array<MapData, u64>>(&mut ebpf, COUNTS)?;
        let watches = self.kernel.losses.watch_all(&ebpf);
        Ok(DnsGuard { links, _ebpf: ebpf, _watches: watches, flows, counts })
    }
}

/// Loads a program and attaches it to the cgroup.
fn attach(ebpf: &mut Ebpf, name: &str, hook: CgroupHook, cgroup: &File) -> Result<OwnedFd, String> {
    let program = ebpf.program_mut(name).ok_or("the object has no such program")?;
    let fd = if hook == CgroupHook::Egress {
        let program: &mut CgroupSkb = program.try_into().map_err(reason)?;
        program.load().map_err(reason)?;
        program.fd().map_err(reason)?
    } else {
        let program: &mut CgroupSockAddr = program.try_into().map_err(reason)?;
        program.load().map_err(reason)?;
        program.fd().map_err(reason)?
    };
    bpf::link_cgroup(fd.as_fd(), cgroup.as_fd(), hook).map_err(|error| error.to_string())
}

impl DnsGuard {
    /// What the proxy looks up.
    #[must_use]
    pub fn flows(&self) -> Flows {
        self.flows.clone()
    }

    /// What keeps the programs attached: copies of these do so after this is dropped.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(OwnedFd::as_fd)
    }

    /// What becomes from now on of calls that cannot be led to the proxy: it is dead, or they are from
    /// another network namespace.
    pub fn set_unjudged(&self, verdict: Verdict) -> io::Result<()> {
        let pass = [u8::from(verdict == Verdict::Allow)];
        let mut settings = self.flows.settings();
        let Set { map, bytes, .. } = &mut *settings;
        put(bytes, offset_of!(Settings, pass_dead), &pass);
        put(bytes, offset_of!(Settings, pass_elsewhere), &pass);
        map.set(0, *bytes, 0).map_err(io::Error::other)
    }

    /// Whether the proxy shows life.
    #[must_use]
    pub fn has_proxy(&self) -> bool {
        self.flows.settings().alive_until >= clock::monotonic_ns()
    }

    /// What became of all calls so far.
    pub fn calls(&self) -> Result<DnsCalls, ProbeError> {
        let count =
            |index| self.counts.get(&index, 0).map_err(|error| super::shared::wrong(COUNTS, error));
        Ok(DnsCalls {
            redirected: count(COUNT_REDIRECTED)?,
            elsewhere: count(COUNT_ELSEWHERE)?,
            dead: count(COUNT_DEAD)?,
            no_door: count(COUNT_NO_DOOR)?,
            forgotten: count(COUNT_FORGOTTEN)?,
        })
    }
}

impl Flows {
    fn open(ebpf: &mut Ebpf, settings: &Settings) -> Result<Self, ProbeError> {
        let bytes = settings_bytes(settings);
        let inner = Inner {
            flows: map(ebpf, FLOWS)?,
            senders: map(ebpf, SENDERS)?,
            settings: Mutex::new(Set { map: map(ebpf, SETTINGS)?, bytes, alive_until: 0 }),
        };
        let flows = Self(Arc::new(inner));
        flows.set_alive_until(0).map_err(|error| super::shared::wrong(SETTINGS, error))?;
        Ok(flows)
    }

    /// Whose packet or connection it is that came to a door from this sender, and where it was to go.
    /// `None` if no program of the guard saw it leave the scope, or it is forgotten.
    pub(crate) fn find(
        &self,
        transport: Transport,
        sender: SocketAddr,
        door: u8,
        id: u16,
    ) -> Option<Flow> {
        let mut key = [0; SENDER_BYTES];
        put(&mut key, offset_of!(Sender, address), &mapped(sender.ip()));
        put(&mut key, offset_of!(Sender, port), &sender.port().to_ne_bytes());
        put(&mut key, offset_of!(Sender, id), &id.to_ne_bytes());
        put(&mut key, offset_of!(Sender, protocol), &[transport.number()]);
        put(&mut key, offset_of!(Sender, door), &[door]);
        let cookie = self.0.senders.get(&key, 0).ok()?;
        let mut key = [0; KEY_BYTES];
        put(&mut key, offset_of!(FlowKey, cookie), &cookie.to_ne_bytes());
        put(&mut key, offset_of!(FlowKey, door), &u32::from(door).to_ne_bytes());
        let flow = Flow::read(cookie, &self.0.flows.get(&key, 0).ok()?)?;
        (flow.transport == transport).then_some(flow)
    }

    /// The programs lead to the proxy until this time of the monotonic clock, in nanoseconds.
    pub(crate) fn set_alive_until(&self, time: u64) -> io::Result<()> {
        let mut settings = self.settings();
        let Set { map, bytes, alive_until } = &mut *settings;
        *alive_until = time;
        put(bytes, offset_of!(Settings, alive_until), &time.to_ne_bytes());
        map.set(0, *bytes, 0).map_err(io::Error::other)
    }

    fn settings(&self) -> MutexGuard<'_, Set> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn settings_bytes(settings: &Settings) -> [u8; SETTINGS_BYTES] {
    let Settings { netns, alive_until, udp4, udp6, tcp4, tcp6, pass_dead, pass_elsewhere, pad: _ } =
        *settings;
    let mut bytes = [0; SETTINGS_BYTES];
    let ports = |ports: [u16; tipstaff_events::dns::DOORS]| -> Vec<u8> {
        ports.into_iter().flat_map(u16::to_ne_bytes).collect()
    };
    put(&mut bytes, offset_of!(Settings, netns), &netns.to_ne_bytes());
    put(&mut bytes, offset_of!(Settings, alive_until), &alive_until.to_ne_bytes());
    put(&mut bytes, offset_of!(Settings, udp4), &ports(udp4));
    put(&mut bytes, offset_of!(Settings, udp6), &ports(udp6));
    put(&mut bytes, offset_of!(Settings, tcp4), &tcp4.to_ne_bytes());
    put(&mut bytes, offset_of!(Settings, tcp6), &tcp6.to_ne_bytes());
    put(&mut bytes, offset_of!(Settings, pass_dead), &[pass_dead]);
    put(&mut bytes, offset_of!(Settings, pass_elsewhere), &[pass_elsewhere]);
    bytes
}

/// A map of the object, whose types aya checks by their sizes.
fn map<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, ProbeError> {
    let map =
        ebpf.take_map(name).ok_or_else(|| super::shared::wrong(name, "is not in the object"))?;
    map.try_into().map_err(|error| super::shared::wrong(name, error))
}
