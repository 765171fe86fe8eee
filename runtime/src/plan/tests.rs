use tipstaff_events::{
    catalogue,
    sample::{By, Sample},
    wire::ON_BIT,
};

use super::{union::pace, *};
use crate::{
    enrich::{Lookup, Tables},
    kind::Kinds,
    manifest::{Ask, AskType, Subscription},
    predicate::Predicate,
};

fn ask(text: &str) -> Ask {
    let (name, ty) = text.split_once(':').unwrap();
    let (ty, optional) = ty.strip_suffix('?').map_or((ty, false), |ty| (ty, true));
    let ty = AskType::ALL.iter().find(|(_, name)| *name == ty).unwrap().0;
    Ask { name: name.into(), ty, optional }
}

fn subscription(event: &str, fields: &[&str]) -> Subscription {
    Subscription::new(event, fields.iter().map(|field| ask(field)).collect())
}

fn bind_one(event: &str, fields: &[&str]) -> Result<Plan, Error> {
    bind("p", &[subscription(event, fields)], &Kinds::built_in(), &[])
}

fn message(event: &str, fields: &[&str]) -> String {
    bind_one(event, fields).unwrap_err().to_string()
}

#[test]
fn an_unknown_event_or_field_is_told_with_the_nearest_name() {
    assert_eq!(
        message("exce", &[]),
        "policy `p`: there is no event `exce` here; the nearest is `exec`; `tipstaff events --list` \
         shows all; write `optional = true` if the policy can do without it"
    );
    assert_eq!(
        message("exec", &["paths:text"]),
        "policy `p`: event `exec` has no field `paths` here; the nearest is `path`; write \
         `Option<...>` (`paths:text?` in the manifest) if the policy can do without it"
    );
}

#[test]
fn a_field_cannot_change_its_kind() {
    assert_eq!(
        message("exec", &["ppid:i32"]),
        "policy `p`: field `ppid` of event `exec` is an unsigned number, not `i32`; ask for `u32`"
    );
    for wrong in ["path:u32", "start:i64", "args_size:text", "file_state:i32"] {
        assert!(matches!(bind_one("exec", &[wrong]), Err(Error::Type { .. })), "{wrong}");
    }
    assert!(matches!(bind_one("open", &["result:u32"]), Err(Error::Type { .. })));
    assert!(matches!(bind_one("connect", &["address:bytes"]), Err(Error::Type { .. })));
}

#[test]
fn what_is_missing_and_optional_is_absent_in_every_row() {
    let plan = bind_one("exec", &["uid:u32?", "colour:text?", "ppid:u32"]).unwrap();
    let bound = plan.bound().next().unwrap();
    let columns: Vec<_> =
        bound.columns.iter().map(|column| (column.offset, column.absent)).collect();
    assert_eq!(columns, [(16, 1), (20, 2), (28, 0)]);
    assert_eq!(bound.projection.template[8..12], [2, 0, 0, 0]);
    assert_eq!(plan.notes, ["event `exec` has no field `colour` here; it is absent"]);
}

#[test]
fn an_optional_event_that_is_missing_makes_no_rows() {
    let missing = Subscription { optional: true, ..subscription("teleport", &["where:text"]) };
    let plan = bind("p", &[missing, subscription("exec", &[])], &Kinds::built_in(), &[]).unwrap();
    assert_eq!(plan.subscriptions.len(), 2);
    assert_eq!(plan.bound().map(|bound| bound.index).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_the_operator_withholds_is_absent_or_refused_with_the_line_to_change() {
    let kinds = Kinds::built_in();
    let denied = ["exec:args".to_owned(), "comm".to_owned()];
    let refused = bind("p", &[subscription("exec", &["args:bytes"])], &kinds, &denied).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "policy `p`: field `args` of event `exec` is withheld by `deny_fields = [\"exec:args\"] under \
         [policy.p]`; remove it there to give it to the policy"
    );
    let plan = bind("p", &[subscription("exec", &["args:bytes?", "comm:text?"])], &kinds, &denied)
        .unwrap();
    assert_eq!(plan.bound().next().unwrap().projection.template[8..12], [3, 0, 0, 0]);
    assert_eq!(plan.wanted, Wanted::from([(catalogue::exec::KIND, ON_BIT)]));
    // A name before a dot stands for all below it, and only for these.
    let below = ["exec:proc".to_owned(), "container".to_owned()];
    let asked = ["proc.parent.exe:text?", "container.id:text?", "pid:u32?", "path:text?"];
    let plan = bind("p", &[subscription("exec", &asked)], &kinds, &below).unwrap();
    assert_eq!(plan.bound().next().unwrap().projection.template[8..12], [3, 0, 0, 0]);
    let refused = bind("p", &[subscription("exec", &["proc.exe:text"])], &kinds, &below);
    assert!(
        refused.unwrap_err().to_string().contains("withheld by `deny_fields = [\"exec:proc\"]")
    );
    assert!(bind("p", &[subscription("open", &["proc.exe:text"])], &kinds, &below).is_ok());
    let part = bind("p", &[], &kinds, &["pro".to_owned()]).unwrap_err().to_string();
    assert!(part.contains("deny_fields names `pro`, which no event has"), "{part}");
    let typo = bind("p", &[], &kinds, &["exec:arg".to_owned()]).unwrap_err();
    assert_eq!(
        typo.to_string(),
        "policy `p`: deny_fields names `exec:arg`, which no event has; the nearest is `exec:args`"
    );
}

#[test]
fn only_what_is_asked_for_is_wanted() {
    use catalogue::{WANT_CGROUP, WANT_UID, exec, exit, fork, open};
    assert_eq!(
        bind_one("open", &["path:text", "pid:u32", "uid:u32"]).unwrap().wanted,
        Wanted::from([(open::KIND, ON_BIT | u64::from(open::path) | WANT_UID)])
    );
    assert_eq!(
        bind_one("open", &["cgroup.path:text?"]).unwrap().wanted,
        Wanted::from([(open::KIND, ON_BIT | WANT_CGROUP)])
    );
    let plan = bind_one("open", &["proc.exe:text?"]).unwrap();
    assert!(plan.needs().processes);
    assert_eq!(
        plan.wanted,
        Wanted::from([
            (fork::KIND, ON_BIT | u64::from(fork::child_start | fork::child_pid)),
            (exec::KIND, ON_BIT | u64::from(exec::start | exec::ppid | exec::path)),
            (exit::KIND, ON_BIT | u64::from(exit::start | exit::ppid)),
            (open::KIND, ON_BIT),
        ])
    );
}

#[test]
fn the_union_wants_what_any_plan_wants() {
    let a = bind_one("exec", &["path:text"]).unwrap();
    let b = bind_one("exec", &["args:text"]).unwrap();
    let both = union([&a, &b].into_iter()).wanted;
    let (path, args) = (u64::from(catalogue::exec::path), u64::from(catalogue::exec::args));
    assert_eq!(both, Wanted::from([(catalogue::exec::KIND, ON_BIT | path | args)]));
}

#[test]
fn neighbours_are_moved_together() {
    let plan =
        bind_one("exec", &["pid:u32", "tid:u32", "start:u64", "uid:u32", "ppid:u32"]).unwrap();
    let projection = &plan.bound().next().unwrap().projection;
    // time; pid and tid; start; uid, which spills over what ppid then writes; ppid is left.
    assert_eq!(projection.moves.len(), 4);
    assert_eq!(projection.shorts.len(), 1);
    assert!(projection.is_plain);
    assert_eq!(projection.fixed_size(), 40);
}

#[test]
fn a_condition_makes_the_probe_collect_what_it_compares() {
    let kinds = Kinds::built_in();
    let mut plan = bind_one("exec", &[]).unwrap();
    let condition =
        Predicate::parse("args ~ x and proc.exe = y", kinds.named("exec").unwrap()).unwrap();
    plan.filter(0, condition);
    assert_ne!(plan.wanted[&catalogue::exec::KIND] & u64::from(catalogue::exec::args), 0);
    assert_ne!(plan.wanted[&catalogue::exec::KIND] & u64::from(catalogue::exec::path), 0);
    assert!(plan.needs().processes);
}

fn bind_where(condition: &str, withheld: &[&str]) -> Result<Plan, Error> {
    let asked =
        Subscription { condition: Some(condition.into()), ..subscription("exec", &["pid:u32"]) };
    let withheld: Vec<_> = withheld.iter().map(ToString::to_string).collect();
    bind("p", &[asked], &Kinds::built_in(), &withheld)
}

#[test]
fn a_condition_in_the_manifest_is_checked_when_the_policy_is_loaded() {
    let plan = bind_where("path ^= /usr/", &[]).unwrap();
    assert!(plan.bound().next().unwrap().filter.is_some());
    assert_eq!(plan.notes, [""; 0]);
    let message = |condition, withheld| bind_where(condition, withheld).unwrap_err().to_string();
    assert_eq!(
        message("paht ^= /usr/", &[]),
        "policy `p`: `where` of event `exec`: event `exec` has no field `paht`; the nearest is `path`"
    );
    assert_eq!(
        message("uid = 0 and path ^= /usr/", &["path"]),
        "policy `p`: field `path` of event `exec` is withheld by `deny_fields = [\"path\"] under \
         [policy.p]`; remove it there to give it to the policy"
    );
    let plan = bind_where("uid < 0", &[]).unwrap();
    assert_eq!(plan.notes, ["`uid < 0` holds for no event `exec`"]);
}

#[test]
fn what_the_operator_asks_for_comes_on_top_of_what_the_policy_asks_for() {
    let kinds = Kinds::built_in();
    let mut plan = bind_where("uid = 0", &[]).unwrap();
    let exec = kinds.named("exec").unwrap();
    plan.restrict(exec.id, &Predicate::parse("ppid = 7", exec).unwrap());
    plan.restrict(catalogue::exit::KIND, &Predicate::parse("ppid = 7", exec).unwrap());
    assert_ne!(plan.wanted[&exec.id] & u64::from(catalogue::exec::ppid), 0);
    let mut tables = Tables::new(None);
    let filter = plan.bound().next().unwrap().filter.clone().unwrap();
    for (uid, ppid, holds) in [(0, 7, true), (0, 8, false), (1, 7, false)] {
        let mut encoder = crate::source::encode::Encoder::new(exec);
        encoder.number(exec.field("uid").unwrap(), uid).unwrap();
        encoder.number(exec.field("ppid").unwrap(), ppid).unwrap();
        let mut lookup = Lookup::new(&mut tables, None);
        assert_eq!(filter.holds(&encoder.finish(), &mut lookup), Ok(holds), "{uid} {ppid}");
    }
    assert_eq!(union([&plan].into_iter()).filters[&exec.id].count, 2);
}

#[test]
fn a_filter_is_for_what_everybody_filters() {
    let filters = |plans: &[&Plan]| union(plans.iter().copied()).filters;
    let (a, b) = (bind_where("uid = 0", &[]).unwrap(), bind_where("uid = 1000", &[]).unwrap());
    let all = bind_one("exec", &["pid:u32"]).unwrap();
    let exec = catalogue::exec::KIND;
    assert_eq!(filters(&[&a])[&exec].count, 1);
    assert_eq!(filters(&[&a, &b, &a])[&exec].count, 2, "the same condition counts once");
    assert!(filters(&[&a, &all]).is_empty(), "somebody wants all of them");
    let table = bind_one("open", &["proc.exe:text"]).unwrap();
    assert!(filters(&[&a, &table]).is_empty(), "the process table wants all of them");
    let enriched = bind_where("proc.exe = /usr/bin/ssh", &[]).unwrap();
    assert!(filters(&[&enriched]).is_empty(), "the kernel cannot test that");
}

#[test]
fn a_number_that_is_too_large_is_absent_or_clipped_and_flagged() {
    let kinds = Kinds::built_in();
    let plan = bind_one("exit", &["run_time:u32", "run_time:u16?"]).unwrap();
    assert_eq!(plan.notes.len(), 2);
    let kind = kinds.named("exit").unwrap();
    let mut encoder = crate::source::encode::Encoder::new(kind);
    encoder.number(kind.field("run_time").unwrap(), 1 << 40).unwrap();
    let mut rows = Vec::new();
    let mut tables = Tables::new(None);
    let bound = plan.bound().next().unwrap();
    bound
        .projection
        .append(&encoder.finish(), &mut Lookup::new(&mut tables, None), &mut rows)
        .unwrap();
    assert_eq!(rows[16..24], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!((rows[8], rows[15]), (1, crate::project::FLAG_CLIPPED));
}

#[test]
fn a_row_has_bits_for_32_optional_fields() {
    let fields = vec!["pid:u32?"; 33];
    assert!(matches!(bind_one("exec", &fields), Err(Error::TooManyOptional { count: 33, .. })));
    assert!(bind_one("exec", &fields[1..]).is_ok());
}

#[test]
fn every_is_for_aggregated_kinds_only() {
    let mut asked = subscription("exec", &["pid:u32"]);
    asked.every_ns = Some(1_000_000_000);
    let error = bind("p", &[asked], &Kinds::built_in(), &[]).unwrap_err();
    assert!(error.to_string().contains("event `exec` is not an aggregated one"), "{error}");
}

#[test]
fn what_adds_up_is_asked_for_as_u64_and_a_histogram_as_bytes() {
    for (field, said) in [
        ("count:u32", "`count` of event `syscall_stats` is a number that adds up"),
        ("latency_histogram:text", "is a histogram, not `text`; ask for `bytes`"),
    ] {
        assert!(message("syscall_stats", &[field]).contains(said), "{field}");
    }
    let fields = ["pid:u32", "errno:u32", "count:u64", "latency_histogram:bytes?"];
    let plan = bind_one("syscall_stats", &fields).unwrap();
    assert_eq!(pace([&plan].into_iter()).values().collect::<Vec<_>>(), [&EVERY_NS]);
    for (every_ns, read_ns) in [(250_000_000, 250_000_000), (60_000_000_000, EVERY_NS)] {
        let mut asked = subscription("syscall_stats", &fields);
        asked.every_ns = Some(every_ns);
        let plan = bind("p", &[asked], &Kinds::built_in(), &[]).unwrap();
        assert_eq!(pace([&plan].into_iter()).values().collect::<Vec<_>>(), [&read_ns]);
    }
}

#[test]
fn the_kernel_takes_the_sample_that_all_can_do_with() {
    let exec = |sample: Sample, condition: Option<&str>| {
        let asked = Subscription {
            sample,
            condition: condition.map(str::to_owned),
            ..subscription("unlink", &[])
        };
        bind("p", &[asked], &Kinds::built_in(), &[]).unwrap()
    };
    let taken = |plans: &[&Plan]| {
        let filters = union(plans.iter().copied()).filters;
        filters.get(&catalogue::unlink::KIND).map(|filter| (filter.sample().asked(), filter.count))
    };
    let by_event = |every| Sample::new(every, By::Event);
    let (twelve, eight, five) =
        (exec(by_event(12), None), exec(by_event(8), None), exec(by_event(5), None));
    let processes = exec(Sample::new(12, By::Process), None);
    let some = exec(by_event(12), Some("result = 0"));
    assert_eq!(taken(&[&twelve]), Some((by_event(12), 0)));
    assert_eq!(taken(&[&twelve, &eight]), Some((by_event(4), 0)));
    assert_eq!(taken(&[&twelve, &five]), None);
    assert_eq!(taken(&[&twelve, &processes]), None);
    assert_eq!(taken(&[&processes]), Some((Sample::new(12, By::Process), 0)));
    assert_eq!(taken(&[&some]), Some((by_event(12), 1)));
    assert_eq!(taken(&[&some, &twelve]), Some((by_event(12), 0)));
    assert_eq!(taken(&[&twelve, &exec(Sample::ALL, None)]), None);
}

#[test]
fn what_somebody_waits_for_or_keeps_processes_by_is_not_left_out() {
    let plan = |event: &str, fields: &[&str], urgent| {
        let asked = Subscription { urgent, ..subscription(event, fields) };
        bind("p", &[asked], &Kinds::built_in(), &[]).unwrap()
    };
    let bounded =
        |plans: &[&Plan]| union(plans.iter().copied()).bounded.into_iter().collect::<Vec<_>>();
    let (unlink, exec) = (plan("unlink", &[], false), plan("exec", &[], false));
    assert_eq!(bounded(&[&unlink, &exec]), [catalogue::exec::KIND, catalogue::unlink::KIND]);
    assert!(bounded(&[&unlink, &plan("unlink", &[], true)]).is_empty());
    let table = plan("unlink", &["proc.exe:text?"], false);
    assert_eq!(bounded(&[&table, &exec]), [catalogue::unlink::KIND]);
    let sums = plan("syscall_stats", &["count:u64"], false);
    assert!(bounded(&[&sums, &plan("denied", &[], false)]).is_empty());
}
