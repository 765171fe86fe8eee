use super::*;

const TABLE: &str = "default deny\nallow any tcp 192.0.2.0/24 443\n";
const SCOPE: &str = "cgroup:/a";

fn set(table: &str) -> Wish<'_> {
    Wish::Set { table, log_only: false }
}

/// A desk, the desk of its one policy, whose mode is `enforce`, and what the governor hears.
fn desk(limits: &Limits) -> (Desk, PolicyDesk, Receiver<Told>) {
    let (desk, told) = Desk::new(false);
    desk.set_mode("p", Mode::Enforce, "");
    let policy = desk.policy("p", limits);
    (desk, policy, told)
}

fn refused(policy: &PolicyDesk, scope: &str, wish: Wish<'_>) -> String {
    let mut waiting = Vec::new();
    let refusal = policy.ask(&mut waiting, scope, wish).unwrap_err();
    assert!(waiting.is_empty());
    refusal.reason
}

#[test]
fn what_is_asked_for_waits_until_it_is_handed_in() {
    let (_desk, policy, told) = desk(&Limits::default());
    let mut waiting = Vec::new();
    policy.ask(&mut waiting, SCOPE, set(TABLE)).unwrap();
    let ttl = Some(Duration::from_secs(9));
    policy.ask(&mut waiting, SCOPE, Wish::Add { rule: "deny any udp", ttl }).unwrap();
    policy.ask(&mut waiting, SCOPE, Wish::Clear).unwrap();
    assert!(told.is_empty());
    // The call failed.
    waiting.clear();
    policy.hand_in(&mut waiting);
    assert!(told.is_empty());
    policy.ask(&mut waiting, SCOPE, Wish::Add { rule: "deny any udp", ttl }).unwrap();
    policy.hand_in(&mut waiting);
    assert!(waiting.is_empty());
    let Told::Ask(ask) = told.try_recv().unwrap() else { panic!("an action") };
    assert_eq!((&*ask.policy, ask.scope.to_string().as_str()), ("p", SCOPE));
    assert_eq!(ask.action, Action::Add(Rule { ttl, ..("deny any udp".parse().unwrap()) }));
}

#[test]
fn what_can_be_known_at_once_is_the_answer_and_the_governor_hears_of_it() {
    let (desk, policy, told) = desk(&Limits { tables: 1, ..Limits::default() });
    for (scope, wish, reason) in [
        ("everywhere", set(TABLE), "expected the scope `command` or `cgroup:/PATH`"),
        ("command", set(TABLE), "there is no scope `command` here"),
        (SCOPE, set("allow any"), "no default; write `default allow`"),
        (SCOPE, set("default deny\nreject any"), "line 2: verdict: expected `allow` or `deny`"),
        (SCOPE, Wish::Add { rule: "deny walk", ttl: None }, "operations: expected "),
    ] {
        let found = refused(&policy, scope, wish);
        assert!(found.starts_with(reason), "{found}");
        let Ok(Told::Refused { reason: told, scope: of, .. }) = told.try_recv() else {
            panic!("not told")
        };
        assert_eq!((told.as_str(), of.as_str()), (found.as_str(), scope));
    }
    desk.set_mode("p", Mode::Observe, "the operator said so");
    assert_eq!(
        refused(&policy, SCOPE, set(TABLE)),
        "the mode is `observe`, nothing is done: the operator said so"
    );
    assert!(told.is_empty(), "in observe mode there are no decisions");
    let nobody = desk.policy("unknown", &Limits::default());
    assert!(refused(&nobody, SCOPE, set(TABLE)).contains("the mode is `observe`"));
}

#[test]
fn each_limit_is_named_by_its_key() {
    let limits =
        Limits { tables: 2, rules: 3, table_text: 100, actions_per_minute: 4, ..Limits::default() };
    let (desk, policy, _told) = desk(&limits);
    let mut waiting = Vec::new();
    let mut ask = |scope: &str, wish: Wish<'_>| {
        policy.ask(&mut waiting, scope, wish).map(drop).map_err(|refusal| refusal.limit)
    };
    let long = format!("default deny # {}", "x".repeat(100));
    assert_eq!(ask(SCOPE, set(&long)), Err(Some("table_text")));
    let rules = "default deny\nallow\nallow any tcp\nallow any udp\n";
    assert_eq!(ask(SCOPE, set(&format!("{rules}deny"))), Err(Some("rules")));
    assert_eq!(ask(SCOPE, set(rules)), Ok(()));
    assert_eq!(ask(SCOPE, Wish::Add { rule: "deny", ttl: None }), Err(Some("rules")));
    assert_eq!(ask("cgroup:/b", set(TABLE)), Ok(()));
    assert_eq!(ask("cgroup:/c", set(TABLE)), Err(Some("tables")));
    assert_eq!(ask("cgroup:/b", Wish::Clear), Ok(()));
    assert_eq!(ask("cgroup:/c", set(TABLE)), Ok(()));
    assert_eq!(ask("cgroup:/c", Wish::Clear), Err(Some("actions_per_minute")));
    // What is in force counts as what waits does.
    let other = desk.policy("p", &Limits { rules: 3, tables: 1, ..Limits::default() });
    let held = Held { table: rules.parse().unwrap(), log_only: false };
    desk.set_table("p", &SCOPE.parse().unwrap(), Some(held));
    let mut waiting = Vec::new();
    let mut ask = |scope: &str, wish: Wish<'_>| {
        other.ask(&mut waiting, scope, wish).map(drop).map_err(|refusal| refusal.limit)
    };
    assert_eq!(ask(SCOPE, Wish::Add { rule: "deny", ttl: None }), Err(Some("rules")));
    assert_eq!(ask("cgroup:/b", set(TABLE)), Err(Some("tables")));
}

#[test]
fn what_is_there_already_costs_nothing() {
    let (desk, policy, _told) = desk(&Limits { actions_per_minute: 1, ..Limits::default() });
    let mut waiting = Vec::new();
    let mut ask = |wish: Wish<'_>| policy.ask(&mut waiting, SCOPE, wish).is_ok();
    assert!(ask(Wish::Clear) && ask(Wish::Clear));
    assert!(ask(set(TABLE)) && ask(set(TABLE)) && ask(set(TABLE)));
    assert!(!ask(Wish::Clear));
    assert_eq!(waiting.len(), 1);
    let mut waiting = Vec::new();
    let held = Held { table: TABLE.parse().unwrap(), log_only: false };
    desk.set_table("p", &SCOPE.parse().unwrap(), Some(held));
    policy.ask(&mut waiting, SCOPE, set(TABLE)).unwrap();
    assert!(waiting.is_empty());
    let other = Wish::Set { table: TABLE, log_only: true };
    assert_eq!(
        policy.ask(&mut waiting, SCOPE, other).unwrap_err().limit,
        Some("actions_per_minute"),
        "to log only is another thing"
    );
}

#[test]
fn who_asks_for_too_much_is_told_once_and_everybody_shares_one_budget() {
    let (desk, policy, told) = desk(&Limits { actions_per_minute: 3, ..Limits::default() });
    desk.limit(4, 5);
    desk.set_mode("q", Mode::Audit, "");
    let other = desk.policy("q", &Limits::default());
    let ask = |policy: &PolicyDesk, n: usize| {
        let table = format!("default allow\ndeny any any 192.0.2.{n}");
        policy.ask(&mut Vec::new(), SCOPE, set(&table)).map(drop).map_err(|refusal| refusal.limit)
    };
    let accepted = (0..5).filter(|n| ask(&policy, *n).is_ok()).count();
    assert_eq!(accepted, 3);
    assert!(!told.try_iter().any(|told| matches!(told, Told::Tripped(_))));
    for n in 0..100 {
        assert_eq!(ask(&policy, n), Err(Some("actions_per_minute")));
    }
    let heard: Vec<_> = told.try_iter().collect();
    let tripped = heard.iter().filter(|told| **told == Told::Tripped("p".into())).count();
    assert_eq!((tripped, heard.len()), (1, 1 + 8), "few of many refusals are told");
    assert_eq!((ask(&other, 1), ask(&other, 2)), (Ok(()), Err(None)));
    desk.reset("p");
    ask(&policy, 1).unwrap_err();
    assert!(told.try_iter().all(|told| !matches!(told, Told::Tripped(_))));
}

#[test]
fn a_guard_has_one_number_for_as_long_as_there_is_a_table() {
    let (desk, policy, told) = desk(&Limits::default());
    desk.set_mode("q", Mode::Enforce, "");
    let other = desk.policy("q", &Limits::default());
    let mut waiting = Vec::new();
    let mut ask = |policy: &PolicyDesk, scope: &str, wish: Wish<'_>| {
        policy.ask(&mut waiting, scope, wish).unwrap()
    };
    let first = ask(&policy, SCOPE, set(TABLE));
    assert_eq!(ask(&policy, SCOPE, set(TABLE)), first);
    assert_eq!(ask(&policy, SCOPE, Wish::Add { rule: "deny any udp", ttl: None }), first);
    let elsewhere = ask(&policy, "cgroup:/b", set(TABLE));
    let others = other.ask(&mut Vec::new(), SCOPE, set(TABLE)).unwrap();
    assert!(first != elsewhere && first != others && elsewhere != others);
    policy.hand_in(&mut waiting);
    let Ok(Told::Ask(handed)) = told.try_recv() else { panic!("an action") };
    assert_eq!(handed.guard, first);
    let scope: Scope = SCOPE.parse().unwrap();
    let handed: Vec<Ask> = std::iter::once(handed)
        .chain(told.try_iter().filter_map(|told| match told {
            Told::Ask(ask) if ask.scope == scope => Some(ask),
            _ => None,
        }))
        .collect();
    // Gone, but another is under way.
    desk.set_table("p", &scope, None);
    assert_eq!(policy.ask(&mut waiting, SCOPE, set(TABLE)).unwrap(), first);
    for ask in &handed {
        desk.acted(ask);
    }
    assert_ne!(policy.ask(&mut waiting, SCOPE, set(TABLE)).unwrap(), first);
}

#[test]
fn what_is_handed_in_and_not_yet_done_counts() {
    let (desk, policy, told) = desk(&Limits { tables: 1, ..Limits::default() });
    let scope: Scope = SCOPE.parse().unwrap();
    let held = |table: &str| Some(Held { table: table.parse().unwrap(), log_only: false });
    let (a, b) = ("default deny", "default allow");
    desk.set_table("p", &scope, held(a));
    let hand_in = |wish: Wish<'_>| {
        let mut waiting = Vec::new();
        policy.ask(&mut waiting, SCOPE, wish).unwrap();
        policy.hand_in(&mut waiting);
        match told.try_recv() {
            Ok(Told::Ask(ask)) => Some(ask),
            _ => None,
        }
    };
    let first = hand_in(set(b)).expect("another table");
    let second = hand_in(set(a)).expect("its last word, though it is the table in force");
    desk.set_table("p", &scope, held(b));
    desk.acted(&first);
    let third = hand_in(set(b)).expect("what comes is not what is in force");
    desk.acted(&second);
    assert!(hand_in(Wish::Clear).is_some(), "older ones do not settle it");
    desk.acted(&third);
    // Cleared, but not yet.
    let fifth = hand_in(set(b)).expect("a table");
    desk.set_table("p", &scope, held(b));
    desk.acted(&fifth);
    assert_eq!(hand_in(set(b)), None, "nothing is under way");

    // Nor do scopes escape the limit while their tables are under way.
    desk.set_table("p", &scope, None);
    let sixth = hand_in(set(a)).expect("a table");
    let elsewhere = || policy.ask(&mut Vec::new(), "cgroup:/b", set(a)).map_err(|no| no.limit);
    assert_eq!(elsewhere(), Err(Some("tables")));
    desk.acted(&sixth);
    assert!(elsewhere().is_ok(), "it was not done");
}

#[test]
fn clearing_what_is_not_there_leaves_nothing_behind() {
    let (_desk, policy, _told) = desk(&Limits { actions_per_minute: 2, ..Limits::default() });
    let mut waiting = Vec::new();
    for n in 0..1000 {
        assert_eq!(policy.ask(&mut waiting, &format!("cgroup:/{n}"), Wish::Clear), Ok(0));
    }
    assert!(waiting.is_empty() && lock(&policy.standing).guards.is_empty());
    // Nor does what the budget refuses.
    for n in 0..1000 {
        let _ = policy.ask(
            &mut waiting,
            &format!("cgroup:/{n}"),
            Wish::Add { rule: "deny", ttl: None },
        );
    }
    assert_eq!((waiting.len(), lock(&policy.standing).guards.len()), (2, 2));
}
