use super::*;

const S: Duration = Duration::from_secs(1);

fn member(mode: Mode) -> Member {
    Member { mode, pinned: true, digest: "sha256:0".into(), generation: 1, tables: 2, rules: 5 }
}

fn governor(agent: Mode) -> Governor {
    let mut governor = Governor::new(Desk::new(true).0, agent);
    governor.admit("p", member(Mode::Enforce));
    governor
}

fn ask(action: Action) -> Ask {
    Ask { policy: "p".into(), scope: Scope::Command, guard: 1, number: 1, action }
}

fn set(table: &str) -> Action {
    Action::Set { table: table.parse().unwrap(), log_only: false }
}

fn add(rule: &str, ttl: Option<Duration>) -> Action {
    Action::Add(Rule { ttl, ..rule.parse().unwrap() })
}

/// Decides and does it; the mode in which the table is then.
fn act(governor: &mut Governor, action: Action, now: Duration) -> Option<GuardMode> {
    match governor.decide(&ask(action), now) {
        Verdict::Install(table) => {
            let mode = table.mode();
            governor.installed("p", &Scope::Command, table);
            Some(mode)
        }
        Verdict::Remove => {
            governor.removed("p", &Scope::Command);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn rules(governor: &Governor, now: Duration) -> Vec<String> {
    let (_, table) = governor.scopes("p").next().expect("a table");
    table.table(governor.always(), now).rules.iter().map(ToString::to_string).collect()
}

#[test]
fn the_mildest_of_agent_policy_and_action_counts() {
    for (agent, _) in Mode::ALL {
        for (own, _) in Mode::ALL {
            for log_only in [false, true] {
                let mut governor = governor(*agent);
                governor.admit("p", member(*own));
                let action = Action::Set { table: "default deny".parse().unwrap(), log_only };
                let verdict = governor.decide(&ask(action), S);
                let wanted = match (agent.min(own), log_only) {
                    (Mode::Observe, _) => None,
                    (Mode::Enforce, false) => Some(GuardMode::Enforce),
                    _ => Some(GuardMode::Audit),
                };
                match verdict {
                    Verdict::Install(table) => assert_eq!(Some(table.mode()), wanted),
                    Verdict::Refuse(why) => {
                        assert!(wanted.is_none() && why.contains("`observe`"), "{why}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn who_is_not_pinned_does_not_enforce() {
    let mut governor = governor(Mode::Enforce);
    governor.admit("p", Member { pinned: false, ..member(Mode::Enforce) });
    let (mode, why) = governor.mode("p");
    assert_eq!(mode, Mode::Audit);
    assert!(why.contains("add `digest = [\"sha256:0\"]` or `unpinned = true` to [policy.p]"));
    assert_eq!(governor.set_mode(Some("p"), Mode::Enforce), Ok(()));
    assert_eq!(governor.mode("p").0, Mode::Audit, "saying so is not enough");
}

#[test]
fn a_table_follows_the_mode() {
    let mut governor = governor(Mode::Audit);
    assert_eq!(act(&mut governor, set("default deny"), S), Some(GuardMode::Audit));
    let to = |governor: &Governor| {
        governor.switches().into_iter().map(|switch| switch.to).collect::<Vec<_>>()
    };
    assert_eq!(to(&governor), []);
    governor.set_mode(None, Mode::Enforce).unwrap();
    assert_eq!(to(&governor), [Some(GuardMode::Enforce)]);
    governor.switched("p", &Scope::Command, GuardMode::Enforce);
    assert_eq!(to(&governor), []);
    governor.set_mode(Some("p"), Mode::Audit).unwrap();
    assert_eq!(to(&governor), [Some(GuardMode::Audit)]);
    // What the file says later counts more than what was said before.
    governor.configure(Mode::Enforce, &[]);
    governor.configure(Mode::Observe, &[]);
    assert_eq!((governor.agent_mode(), to(&governor)), (Mode::Observe, vec![None]));
    assert_eq!(
        governor.set_mode(Some("q"), Mode::Audit),
        Err("there is no policy `q` that runs".to_owned())
    );
}

#[test]
fn who_asked_for_too_much_keeps_what_is_in_force_and_gets_no_more() {
    let mut governor = governor(Mode::Enforce);
    assert_eq!(act(&mut governor, set("default deny"), S), Some(GuardMode::Enforce));
    assert!(governor.trip("p") && !governor.trip("p"));
    assert_eq!(governor.mode("p").0, Mode::Audit);
    assert_eq!(governor.switches(), [], "the table denies as before");
    for action in [set("default allow"), add("allow any", None), Action::Clear] {
        assert!(matches!(governor.decide(&ask(action), S), Verdict::Audit(_)));
    }
    let elsewhere = Ask { scope: "cgroup:/a".parse().unwrap(), ..ask(set("default deny")) };
    let Verdict::Install(table) = governor.decide(&elsewhere, S) else { panic!("log only") };
    assert_eq!(table.mode(), GuardMode::Audit);
    governor.set_mode(Some("p"), Mode::Enforce).unwrap();
    assert_eq!(governor.mode("p").0, Mode::Enforce);
    assert_eq!(act(&mut governor, Action::Clear, S), None);
}

#[test]
fn the_operators_audit_counts_also_after_the_breaker() {
    let by_file: fn(&mut Governor) = |governor| {
        governor.configure(Mode::Audit, &[]);
    };
    let by_section: fn(&mut Governor) = |governor| governor.admit("p", member(Mode::Audit));
    let by_digest: fn(&mut Governor) =
        |governor| governor.admit("p", Member { pinned: false, ..member(Mode::Enforce) });
    for say in [by_file, by_section, by_digest] {
        let mut governor = governor(Mode::Enforce);
        act(&mut governor, set("default deny"), S);
        governor.trip("p");
        assert_eq!(governor.switches(), []);
        say(&mut governor);
        let to: Vec<_> = governor.switches().into_iter().map(|switch| switch.to).collect();
        assert_eq!(to, [Some(GuardMode::Audit)]);
    }
}

#[test]
fn rules_are_added_with_a_time_to_live_that_goes_on() {
    let mut governor = governor(Mode::Enforce);
    assert_eq!(
        act(&mut governor, add("deny any tcp 192.0.2.1", Some(10 * S)), S),
        Some(GuardMode::Enforce)
    );
    assert_eq!(rules(&governor, S), ["deny any tcp 192.0.2.1"]);
    act(&mut governor, add("deny any tcp 192.0.2.2", None), 4 * S);
    let (_, table) = governor.scopes("p").next().unwrap();
    let left: Vec<_> = table.table(&[], 5 * S).rules.iter().map(|rule| rule.ttl).collect();
    assert_eq!(left, [Some(6 * S), None]);
    // The same again lives longer; another verdict is another rule.
    act(&mut governor, add("deny any tcp 192.0.2.1 # again", Some(10 * S)), 6 * S);
    act(&mut governor, add("allow any tcp 192.0.2.1", None), 6 * S);
    assert_eq!(
        rules(&governor, 15 * S),
        ["deny any tcp 192.0.2.1 # again", "deny any tcp 192.0.2.2", "allow any tcp 192.0.2.1"]
    );
    assert_eq!(rules(&governor, 16 * S).len(), 2);
    for n in 3..6 {
        act(&mut governor, add(&format!("deny any tcp 192.0.2.{n}"), None), 16 * S);
    }
    let verdict = governor.decide(&ask(add("deny any udp", None)), 16 * S);
    assert_eq!(
        verdict,
        Verdict::Refuse("the table has 6 rules, its limit is 5 (`rules`)".to_owned())
    );
}

#[test]
fn the_operators_exceptions_are_in_every_table() {
    let mut governor = governor(Mode::Enforce);
    let always = [Rule::always_allow("tcp 10.0.0.53 53").unwrap()];
    assert!(governor.configure(Mode::Enforce, &always));
    assert!(!governor.configure(Mode::Enforce, &always));
    act(&mut governor, set("default deny"), S);
    let (_, table) = governor.scopes("p").next().unwrap();
    assert_eq!(table.table(governor.always(), S).always, always);
}

#[test]
fn a_policy_that_is_gone_leaves_its_scopes_behind_to_be_cleared() {
    let mut governor = governor(Mode::Enforce);
    act(&mut governor, set("default deny"), S);
    assert_eq!(governor.forget("p"), [Scope::Command]);
    assert_eq!(governor.forget("p"), []);
    assert_eq!(
        governor.decide(&ask(Action::Clear), S),
        Verdict::Refuse("the policy is gone".to_owned())
    );
}

#[test]
fn tables_are_as_many_as_the_limit_says_also_if_the_desk_let_more_pass() {
    let mut governor = governor(Mode::Enforce);
    let at = |scope: &str, table: &str| Ask { scope: scope.parse().unwrap(), ..ask(set(table)) };
    for scope in ["cgroup:/a", "cgroup:/b"] {
        let asked = at(scope, "default deny");
        let Verdict::Install(table) = governor.decide(&asked, S) else {
            panic!("within the limit")
        };
        governor.installed("p", &asked.scope, table);
    }
    assert_eq!(
        governor.decide(&at("cgroup:/c", "default deny"), S),
        Verdict::Refuse("it has tables in 2 scopes, its limit is 2 (`tables`)".to_owned())
    );
    let again = governor.decide(&at("cgroup:/b", "default allow"), S);
    assert!(matches!(again, Verdict::Install(_)), "one that is there may change");
}
