//! What tests on the running kernel share.
#![allow(dead_code, reason = "each test program uses some of it")]

#[path = "../support/cgroup.rs"]
pub mod cgroup;
#[path = "../support/here.rs"]
pub mod here;
#[path = "../support/shipped.rs"]
pub mod shipped;
#[path = "../support/vm.rs"]
pub mod vm;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tipstaff_events::{
    Field, KINDS, Type,
    catalogue::{
        COMMON, accept, agent_budget, cgroup_budget, connect, denied, dns_answer, dns_query,
        io_stats, listen, open, rename, syscall_stats, tcp_close, unlink,
    },
    filter::Filter,
    wire::{Text, URGENT_BIT},
};
use tipstaff_runtime::{
    kind::{From, Kind, Repr},
    plan::{Filters, Union, Wanted},
    predicate::{Predicate, filter},
    probe::{Coverage, Probes, Report, RingSizes},
    queue::Cause,
    record::{self, Span},
    source::{Item, Rings, Source as _},
};

/// One test at a time, so that descriptors and programs can be counted; `None` (said why) where
/// probes cannot be loaded.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if !here::can_probe("this test") {
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Not the `python3` that is first on PATH, which may be a script that runs others.
pub const PYTHON: &str = "/usr/bin/python3";

/// Python with nothing but its own library.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-I", "-S", "-c", script]);
    command
}

/// A program that keeps the machine busy until this is dropped.
pub struct Load(Child);

impl Load {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What we know to be missing of a kind by the release of the running kernel, which the probes never
/// look at.
fn expected_lacks(kind: u16) -> BTreeSet<&'static str> {
    let file = [open::KIND, unlink::KIND, rename::KIND].contains(&kind);
    let socket = [connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND].contains(&kind);
    let calls = kind == syscall_stats::KIND;
    let dns = [dns_query::KIND, dns_answer::KIND].contains(&kind);
    let any = (u32::MAX, 0);
    let io = kind == io_stats::KIND;
    let release = vm::release();
    [
        // Programs at a cgroup are never missed, nor what the agent tells itself.
        (
            (5, 12),
            !dns && ![denied::KIND, cgroup_budget::KIND, agent_budget::KIND].contains(&kind),
            "misses not counted",
        ),
        ((5, 15), calls, "`exit` and `exit_group` are not counted"),
        ((5, 19), file || socket || io, "operations by io_uring are not seen"),
        ((5, 19), file || socket, "completions of io_uring that find no room are not seen"),
        (any, io, "what aio and mapped files move is not known"),
        ((6, 18), socket && release >= (5, 19), "multishot accepts by io_uring are not seen"),
    ]
    .into_iter()
    .filter(|&(before, concerned, _)| release < before && concerned)
    .map(|(_, _, lack)| lack)
    .collect()
}

/// Expects these kinds to be seen as well as this kernel allows.
pub fn assert_seen(report: &Report) {
    for (&kind, report) in report {
        if [dns_query::KIND, dns_answer::KIND].contains(&kind) && vm::release() < (5, 14) {
            let seen = report.coverage.to_string();
            assert!(seen.starts_with("none: needs Linux 5.14"), "kind {kind}: {report:?}");
            continue;
        }
        let lacks: BTreeSet<&str> = match &report.coverage {
            Coverage::Full => BTreeSet::new(),
            Coverage::Partial(reasons) => reasons.split("; ").collect(),
            other => panic!("kind {kind} is seen {other}: {report:?}"),
        };
        assert_eq!(lacks, expected_lacks(kind), "kind {kind}: {report:?}");
    }
}

/// Whether this kernel shows what `io_uring` does; says so if not.
pub fn sees_uring() -> bool {
    let sees = vm::release() >= (5, 19);
    if !sees {
        eprintln!(
            "skipped: before Linux 5.19 io_uring's operations are not seen, as coverage says"
        );
    }
    sees
}

/// Whether this kernel shows within which call a thread ends (Linux 5.15).
pub fn sees_ends() -> bool {
    vm::release() >= (5, 15)
}

/// A word that asks for every field.
pub fn all_fields() -> u64 {
    !URGENT_BIT
}

/// Probes and what came out of their rings.
pub struct Recording {
    pub probes: Probes,
    rings: Rings,
    events: Vec<Event>,
}

impl Recording {
    pub fn open(sizes: RingSizes) -> Self {
        let probes = Probes::open(sizes).unwrap();
        let rings = Rings::new(&probes).unwrap();
        Self { probes, rings, events: Vec::new() }
    }

    /// Wants all fields of these kinds and nothing else, and expects them to be seen as well as this
    /// kernel allows.
    pub fn want(&mut self, kinds: &[u16]) {
        let wanted: Wanted = kinds.iter().map(|&kind| (kind, all_fields())).collect();
        assert_seen(&self.probes.apply(&wanted.into()).unwrap());
    }

    /// Wants all fields of one kind, of the events that pass the filter of these conditions.
    pub fn want_some(&mut self, kind: u16, conditions: &[&Predicate]) {
        let filter = filter(conditions.iter().copied()).expect("one that the kernel can test");
        self.want_filtered(kind, &filter);
    }

    /// Wants all fields of one kind, of the events that pass this filter.
    pub fn want_filtered(&mut self, kind: u16, filter: &Filter) {
        let union = Union {
            wanted: Wanted::from([(kind, all_fields())]),
            filters: Filters::from([(kind, *filter)]),
            ..Union::default()
        };
        self.probes.apply(&union).unwrap();
    }

    /// Wants all fields of one kind, of the events that pass the filter of this condition, and so many a
    /// second of each cgroup.
    pub fn want_bounded(&mut self, kind: u16, condition: &Predicate, per_second: Option<u32>) {
        let filter = filter([condition]).expect("one that the kernel can test");
        self.probes.budget_cgroups(per_second).unwrap();
        let union = Union {
            wanted: Wanted::from([(kind, all_fields())]),
            filters: Filters::from([(kind, filter)]),
            bounded: [kind].into(),
            ..Union::default()
        };
        self.probes.apply(&union).unwrap();
    }

    pub fn drain(&mut self) {
        let events = &mut self.events;
        self.rings.drain(usize::MAX, &mut |item| match item {
            Item::Record(record) => events.push(Event(record.to_vec())),
            Item::Tick(..) => {}
            other => panic!("rings give records only: {other:?}"),
        });
    }

    /// All events of a kind so far.
    pub fn of(&mut self, kind: u16) -> Vec<Event> {
        self.drain();
        // Behind a record that another processor is still writing, ours may wait.
        let since = Instant::now();
        while self.rings.has_unfinished() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
            self.drain();
        }
        self.events.iter().filter(|event| event.kind() == kind).cloned().collect()
    }

    /// All events of a kind and a process so far.
    pub fn of_process(&mut self, kind: u16, pid: u32) -> Vec<Event> {
        let mut events = self.of(kind);
        events.retain(|event| event.number("pid") == u64::from(pid));
        events
    }

    /// Runs a program to its end, and drains the rings meanwhile. Its pid, and the numbers that it
    /// printed.
    pub fn run(&mut self, command: &mut Command) -> (u32, Vec<i64>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        while child.try_wait().unwrap().is_none() {
            self.drain();
            std::thread::sleep(Duration::from_millis(1));
        }
        (pid, numbers(child))
    }

    /// Whether something is in the rings that was not handed out.
    pub fn has_unfinished(&self) -> bool {
        self.rings.has_unfinished()
    }

    /// What was lost so far.
    pub fn lost(&mut self) -> Vec<(u16, Cause, u64)> {
        let mut lost = Vec::new();
        self.rings.losses(&mut |kind, cause, count| lost.push((kind, cause, count)));
        lost
    }
}

/// What a program printed that has ended, or will.
pub fn numbers(child: Child) -> Vec<i64> {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let numbers = String::from_utf8(output.stdout).unwrap();
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// A record, read by the catalogue.
#[derive(Debug, Clone)]
pub struct Event(Vec<u8>);

impl Event {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn at<const N: usize>(&self, offset: u16) -> [u8; N] {
        self.0[usize::from(offset)..][..N].try_into().unwrap()
    }

    fn kind(&self) -> u16 {
        u16::from_ne_bytes(self.at(56))
    }

    pub fn field(&self, name: &str) -> &'static Field {
        let own =
            KINDS.iter().find(|kind| kind.id == self.kind()).map_or(&[][..], |kind| kind.fields);
        COMMON.iter().chain(own).find(|field| field.name == name).unwrap()
    }

    pub fn number(&self, name: &str) -> u64 {
        let field = self.field(name);
        match field.ty.size() {
            1 => self.0[usize::from(field.offset)].into(),
            2 => u16::from_ne_bytes(self.at(field.offset)).into(),
            4 => u32::from_ne_bytes(self.at(field.offset)).into(),
            8 => u64::from_ne_bytes(self.at(field.offset)),
            size => panic!("{name} has {size} bytes"),
        }
    }

    /// What the call returned.
    pub fn result(&self) -> i64 {
        i64::from(i32::try_from(self.number("result").cast_signed() << 32 >> 32).unwrap())
    }

    /// A named value, or `-` where it is absent.
    pub fn name(&self, field: &str) -> &'static str {
        if self.is_absent(field) {
            return "-";
        }
        let Type::Name(names) = self.field(field).ty else { panic!("{field} has no names") };
        names[usize::try_from(self.number(field)).unwrap()]
    }

    pub fn address(&self, name: &str) -> [u8; 16] {
        self.at(self.field(name).offset)
    }

    fn place(&self, name: &str) -> Text {
        let field = self.field(name);
        assert!(matches!(field.ty, Type::Text | Type::List));
        let [a, b, c, d] = self.at(field.offset);
        Text { offset: u16::from_ne_bytes([a, b]), length: u16::from_ne_bytes([c, d]) }
    }

    pub fn text(&self, name: &str) -> &[u8] {
        let text = self.place(name);
        &self.0[usize::from(text.offset)..][..usize::from(text.len())]
    }

    pub fn is_cut(&self, name: &str) -> bool {
        self.place(name).is_cut()
    }

    pub fn is_absent(&self, name: &str) -> bool {
        u32::from_ne_bytes(self.at(60)) & self.field(name).absent != 0
    }

    /// The bytes of a field of a kind that is known only at run time.
    pub fn data(&self, kind: &Kind, name: &str) -> &[u8] {
        let From::Record { offset, repr } = kind.field(name).unwrap().from else {
            panic!("{name}")
        };
        match repr {
            Repr::Int { size, .. } => &self.0[usize::from(offset)..][..usize::from(size)],
            Repr::Chars(size) => &self.0[usize::from(offset)..][..usize::from(size)],
            Repr::DataLoc { base, relative: false } => {
                let place = u32::from_ne_bytes(self.at(offset));
                let start = usize::from(base) + (place & 0xffff) as usize;
                &self.0[start..][..(place >> 16 & 0x7fff) as usize]
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    /// A text of a kind that is known only at run time, as policies get it: without its NUL.
    pub fn span(&self, kind: &Kind, name: &str) -> Option<Span<'_>> {
        let From::Record { offset, repr } = kind.field(name).unwrap().from else {
            panic!("{name}")
        };
        record::span(&self.0, usize::from(offset), repr).unwrap()
    }
}

/// A memory cgroup with a limit, gone when dropped.
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None` where there is no memory controller that we may use.
    pub fn new(bytes: u64) -> Option<Self> {
        let name = format!("tipstaff-test-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let limit = Self(group);
            if fs::write(limit.0.join(file), bytes.to_string()).is_ok() {
                return Some(limit);
            }
        }
        None
    }

    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Our descriptors that stand for something in the kernel that probes make, sorted by what it is.
pub fn bpf_descriptors() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .filter(|link| link.contains("bpf") || link.contains("perf_event"))
        .collect();
    found.sort();
    found
}

/// Numbers after this key in the fdinfo of our descriptors.
fn ids(key: &str) -> BTreeSet<u32> {
    fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter(|info| !info.contains("link_type:"))
        .filter_map(|info| {
            info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        })
        .collect()
}

pub fn program_ids() -> BTreeSet<u32> {
    ids("prog_id:")
}

pub fn map_ids() -> BTreeSet<u32> {
    ids("map_id:")
}

/// Waits until the kernel has none of these any more: it frees them after a grace period.
pub fn assert_gone(programs: &BTreeSet<u32>, maps: &BTreeSet<u32>) {
    assert!(!programs.is_empty() && !maps.is_empty());
    let end = Instant::now() + here::PATIENCE;
    loop {
        let here: Vec<u32> = aya::programs::loaded_programs()
            .filter_map(|program| Some(program.ok()?.id()))
            .filter(|id| programs.contains(id))
            .chain(
                aya::maps::loaded_maps()
                    .filter_map(|map| Some(map.ok()?.id()))
                    .filter(|id| maps.contains(id)),
            )
            .collect();
        if here.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "still in the kernel: {here:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs the program of `ways.c`. Its pid, and what the calls returned.
pub fn ways(arguments: &[&str]) -> (u32, Vec<i64>) {
    let mut command = Command::new(here::ways_program());
    let child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    (child.id(), numbers(child))
}
