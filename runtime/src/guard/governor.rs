//! The governor: decides on each action that is asked for, and knows which tables are in force. It does
//! nothing itself, and knows no kernel.
//!
//! How far a policy goes is the mildest of what the agent, the policy and the action may. What is asked
//! for within that goes to the kernel; whoever asked for too much is only told what would have been
//! done.

use std::{collections::BTreeMap, time::Duration};

use super::{Action, Ask, Desk, GuardMode, Held, Mode, Rule, Scope, Table};

/// See the module's documentation.
#[derive(Debug)]
pub struct Governor {
    desk: Desk,
    agent: Mode,
    /// What the operator said while the agent ran, in place of the configuration.
    live: Option<Mode>,
    always: Vec<Rule>,
    members: BTreeMap<String, Entry>,
}

/// What is known of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// How far it may go, as its section says.
    pub mode: Mode,
    /// Whether what it is granted may be used in enforce mode.
    pub pinned: bool,
    /// Digest of its file.
    pub digest: String,
    /// Its generation.
    pub generation: u32,
    /// Scopes in which it may have tables.
    pub tables: usize,
    /// Rules that one table of it may have.
    pub rules: usize,
}

#[derive(Debug)]
struct Entry {
    member: Member,
    live: Option<Mode>,
    tripped: bool,
    tables: BTreeMap<Scope, InForce>,
}

impl Entry {
    /// How far the policy may go by itself.
    fn own(&self) -> Mode {
        self.live.unwrap_or(self.member.mode)
    }
}

/// A table that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    held: Held,
    /// When each rule ends, since boot.
    ends: Vec<Option<Duration>>,
    mode: GuardMode,
}

impl InForce {
    /// Whether it denies.
    #[must_use]
    pub const fn mode(&self) -> GuardMode {
        self.mode
    }

    /// As it is to be installed now: rules whose time is over are not in it.
    #[must_use]
    pub fn table(&self, always: &[Rule], now: Duration) -> Table {
        let Held { table, .. } = &self.held;
        let rules = table.rules.iter().zip(&self.ends).filter_map(|(rule, end)| match end {
            Some(end) if *end <= now => None,
            end => Some(Rule { ttl: end.map(|end| end.saturating_sub(now)), ..rule.clone() }),
        });
        Table { rules: rules.collect(), always: always.to_vec(), ..table.clone() }
    }

    fn forget_ended(&mut self, now: Duration) {
        let is_over = |end: &Option<Duration>| end.is_some_and(|end| end <= now);
        let over: Vec<bool> = self.ends.iter().map(is_over).collect();
        let mut over = over.into_iter();
        self.held.table.rules.retain(|_| !over.next().unwrap_or(false));
        self.ends.retain(|end| !is_over(end));
    }
}

/// What is to be done about an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This table is to be put in force.
    Install(InForce),
    /// The table is to be taken out of force.
    Remove,
    /// Nothing, but to say what would be.
    Audit(&'static str),
    /// Nothing.
    Refuse(String),
}

/// What has to change after modes did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The policy.
    pub policy: String,
    /// Where.
    pub scope: Scope,
    /// How it is to be; not at all if none.
    pub to: Option<GuardMode>,
}

impl Governor {
    /// A governor without policies.
    #[must_use]
    pub fn new(desk: Desk, agent: Mode) -> Self {
        Self { desk, agent, live: None, always: Vec::new(), members: BTreeMap::new() }
    }

    /// The agent's mode.
    #[must_use]
    pub fn agent_mode(&self) -> Mode {
        self.live.unwrap_or(self.agent)
    }

    /// What the operator never lets a policy deny.
    #[must_use]
    pub fn always(&self) -> &[Rule] {
        &self.always
    }

    /// Takes over what the configuration says of all policies. Whether tables in force are to be put in
    /// force again.
    pub fn configure(&mut self, mode: Mode, always: &[Rule]) -> bool {
        if mode != self.agent {
            // What the file says now is newer than what the operator said.
            (self.agent, self.live) = (mode, None);
        }
        let is_other = self.always != always;
        self.always = always.to_vec();
        self.publish_all();
        is_other
    }

    /// Takes in a policy, or what its next generation or its section says of it.
    pub fn admit(&mut self, policy: &str, member: Member) {
        if let Some(entry) = self.members.get_mut(policy) {
            if entry.member.mode != member.mode {
                entry.live = None;
            }
            entry.member = member;
        } else {
            let entry = Entry { member, live: None, tripped: false, tables: BTreeMap::new() };
            self.members.insert(policy.to_owned(), entry);
        }
        self.publish(policy);
    }

    /// Forgets a policy that is gone, and gives the scopes in which it had tables.
    pub fn forget(&mut self, policy: &str) -> Vec<Scope> {
        self.desk.forget(policy);
        let entry = self.members.remove(policy);
        entry.map_or_else(Vec::new, |entry| entry.tables.into_keys().collect())
    }

    /// What is known of a policy.
    #[must_use]
    pub fn member(&self, policy: &str) -> Option<&Member> {
        Some(&self.members.get(policy)?.member)
    }

    /// The policies, with how far they may go and why not further.
    pub fn modes(&self) -> impl Iterator<Item = (&str, Mode, String)> {
        self.members.keys().map(|name| {
            let (mode, why) = self.mode(name);
            (name.as_str(), mode, why)
        })
    }

    /// The scopes in which a policy has tables.
    pub fn scopes(&self, policy: &str) -> impl Iterator<Item = (&Scope, &InForce)> {
        self.members.get(policy).into_iter().flat_map(|entry| &entry.tables)
    }

    /// All tables in force.
    pub fn in_force(&self) -> impl Iterator<Item = (&str, &Scope, &InForce)> {
        self.members.iter().flat_map(|(name, entry)| {
            entry.tables.iter().map(move |(scope, table)| (name.as_str(), scope, table))
        })
    }

    /// How far a policy may go, and why not further.
    #[must_use]
    pub fn mode(&self, policy: &str) -> (Mode, String) {
        let agent = self.agent_mode();
        let Some(entry) = self.members.get(policy) else {
            return (Mode::Observe, "there is no such policy".to_owned());
        };
        let own = entry.own();
        let said = |live: Option<Mode>| if live.is_some() { ", as the operator said" } else { "" };
        let (mode, why) = if agent <= own {
            (agent, format!("the mode of the agent is `{agent}`{}", said(self.live)))
        } else {
            (own, format!("the mode of the policy is `{own}`{}", said(entry.live)))
        };
        if mode < Mode::Enforce {
            (mode, why)
        } else if entry.tripped {
            let why = "it asked for more actions in a minute than `breaker` in [guard] allows";
            (Mode::Audit, why.to_owned())
        } else if !entry.member.pinned {
            let digest = &entry.member.digest;
            let why = format!(
                "its grant is to no digest: add `digest = [\"{digest}\"]` or `unpinned = true` to [policy.{policy}]"
            );
            (Mode::Audit, why)
        } else {
            (mode, String::new())
        }
    }

    /// Lets the operator say how far the agent, or one policy, may go. A policy that had asked for too
    /// much may ask again.
    pub fn set_mode(&mut self, policy: Option<&str>, mode: Mode) -> Result<(), String> {
        match policy {
            None => self.live = Some(mode),
            Some(name) => {
                let entry = self.members.get_mut(name);
                let entry =
                    entry.ok_or_else(|| format!("there is no policy `{name}` that runs"))?;
                entry.live = Some(mode);
            }
        }
        for (name, entry) in &mut self.members {
            if policy.is_none_or(|policy| policy == name) {
                entry.tripped = false;
                self.desk.reset(name);
            }
        }
        self.publish_all();
        Ok(())
    }

    /// A policy asked for too much. Whether that is new.
    pub fn trip(&mut self, policy: &str) -> bool {
        let Some(entry) = self.members.get_mut(policy) else { return false };
        let is_new = !std::mem::replace(&mut entry.tripped, true);
        self.publish(policy);
        is_new
    }

    /// What is to be done about an action. `now` is since boot.
    #[must_use]
    pub fn decide(&self, ask: &Ask, now: Duration) -> Verdict {
        let Ask { policy, scope, action, .. } = ask;
        let Some(entry) = self.members.get(&**policy) else {
            return Verdict::Refuse("the policy is gone".to_owned());
        };
        let (mode, why) = self.mode(policy);
        if mode == Mode::Observe {
            return Verdict::Refuse(format!("the mode is `observe`, nothing is done: {why}"));
        }
        let before = entry.tables.get(scope);
        if entry.tripped && before.is_some_and(|table| table.mode == GuardMode::Enforce) {
            // What was done before stays: who fills the budget must not get rid of it.
            return Verdict::Audit("it asked for too much; the table that is in force stays");
        }
        let (held, ends) = match action {
            Action::Clear if before.is_none() => {
                return Verdict::Refuse("it has no table there".to_owned());
            }
            Action::Clear => return Verdict::Remove,
            Action::Set { table, log_only } => {
                let ends = vec![None; table.rules.len()];
                (Held { table: table.clone(), log_only: *log_only }, ends)
            }
            Action::Add(rule) => {
                let mut after = before.cloned().unwrap_or_else(|| InForce {
                    held: Held { table: Table::new(super::Verdict::Allow), log_only: false },
                    ends: Vec::new(),
                    mode: GuardMode::Audit,
                });
                after.forget_ended(now);
                let end = rule.ttl.map(|ttl| now.saturating_add(ttl));
                let rules = &mut after.held.table.rules;
                let is_same = |other: &Rule| {
                    let Rule { verdict, operations, protocol, prefix, ports, .. } = other;
                    (*verdict, *operations, *protocol)
                        == (rule.verdict, rule.operations, rule.protocol)
                        && (*prefix, *ports) == (rule.prefix, rule.ports)
                };
                if let Some(index) = rules.iter().position(is_same) {
                    rules[index] = rule.clone();
                    after.ends[index] = end;
                } else {
                    rules.push(rule.clone());
                    after.ends.push(end);
                }
                (after.held, after.ends)
            }
        };
        let most = entry.member.tables;
        if before.is_none() && entry.tables.len() >= most {
            let tables = entry.tables.len();
            return Verdict::Refuse(format!(
                "it has tables in {tables} scopes, its limit is {most} (`tables`)"
            ));
        }
        let most = entry.member.rules;
        if held.table.len() > most {
            let rules = held.table.len();
            return Verdict::Refuse(format!(
                "the table has {rules} rules, its limit is {most} (`rules`)"
            ));
        }
        let mode = guard_mode(mode, held.log_only).unwrap_or(GuardMode::Audit);
        Verdict::Install(InForce { held, ends, mode })
    }

    /// This was acted on, whatever came of it.
    pub fn acted(&self, ask: &Ask) {
        self.desk.acted(ask);
    }

    /// A table is in force now.
    pub fn installed(&mut self, policy: &str, scope: &Scope, table: InForce) {
        let Some(entry) = self.members.get_mut(policy) else { return };
        self.desk.set_table(policy, scope, Some(table.held.clone()));
        entry.tables.insert(scope.clone(), table);
    }

    /// A table is no longer in force.
    pub fn removed(&mut self, policy: &str, scope: &Scope) {
        let Some(entry) = self.members.get_mut(policy) else { return };
        self.desk.set_table(policy, scope, None);
        entry.tables.remove(scope);
    }

    /// A table denies now, or does not any more.
    pub fn switched(&mut self, policy: &str, scope: &Scope, to: GuardMode) {
        let entry = self.members.get_mut(policy);
        if let Some(table) = entry.and_then(|entry| entry.tables.get_mut(scope)) {
            table.mode = to;
        }
    }

    /// What is to be changed so that every table is as the modes are.
    #[must_use]
    pub fn switches(&self) -> Vec<Switch> {
        let mut switches = Vec::new();
        for (name, entry) in &self.members {
            let (mode, _) = self.mode(name);
            for (scope, table) in &entry.tables {
                let to = guard_mode(mode, table.held.log_only);
                // What was in force stays for the breaker alone, and not for whoever says audit.
                let stays = entry.tripped
                    && entry.member.pinned
                    && self.agent_mode().min(entry.own()) == Mode::Enforce;
                if to != Some(table.mode) && !stays {
                    switches.push(Switch { policy: name.clone(), scope: scope.clone(), to });
                }
            }
        }
        switches
    }

    fn publish_all(&self) {
        self.members.keys().for_each(|name| self.publish(name));
    }

    fn publish(&self, policy: &str) {
        let (mode, why) = self.mode(policy);
        self.desk.set_mode(policy, mode, &why);
    }
}

/// How a table is to be in this mode: not at all if none.
fn guard_mode(mode: Mode, log_only: bool) -> Option<GuardMode> {
    match (mode, log_only) {
        (Mode::Observe, _) => None,
        (Mode::Audit, _) | (Mode::Enforce, true) => Some(GuardMode::Audit),
        (Mode::Enforce, false) => Some(GuardMode::Enforce),
    }
}

#[cfg(test)]
mod tests;
