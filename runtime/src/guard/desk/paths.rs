//! Where policies ask for rules about files and programs. These are for the command alone, and cannot be
//! changed once it runs.

use std::{mem, path::Path, time::Instant};

use super::{Desk, Ordering, PolicyDesk, Standing, lock};
use crate::guard::{
    Grant, Mode, Refusal, Scope, Told,
    paths::{Access, DeniedPath, HeldPaths, PathAsk, PathTable, action},
};

impl Desk {
    /// From now on the command runs.
    pub fn begin_command(&self) {
        self.shared.runs.store(true, Ordering::Relaxed);
    }

    /// Says which table about files or programs a policy has now.
    pub fn set_paths(&self, policy: &str, grant: Grant, held: HeldPaths) {
        lock(&self.standing(policy)).paths.insert(grant, held);
    }

    /// The tables that deny an access to a path without symbolic links.
    #[must_use]
    pub fn denied_paths(&self, access: Access, path: &Path) -> Vec<DeniedPath> {
        let standings = lock(&self.shared.standings);
        let mut all = Vec::new();
        for (policy, standing) in standings.iter() {
            let standing = lock(standing);
            let own = standing.paths.iter();
            let own = own.filter(|(grant, _)| PathTable::accesses(**grant).contains(&access));
            all.extend(own.filter_map(|(_, held)| held.denied(policy, access, path)));
        }
        all
    }
}

impl PolicyDesk {
    /// Puts what the policy asks for to what waits for the end of the call.
    pub fn ask_paths(
        &self,
        waiting: &mut Vec<PathAsk>,
        grant: Grant,
        scope: &str,
        table: &str,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut standing = lock(&self.standing);
        let result = self.check_paths(&mut standing, waiting, grant, scope, table, now);
        if let Err(refusal) = &result {
            self.tell_refusal(&mut standing, scope, action(grant), refusal, now);
        }
        result
    }

    /// Hands over what was asked for in a call that ended well.
    pub fn hand_in_paths(&self, waiting: &mut Vec<PathAsk>) {
        for ask in mem::take(waiting) {
            self.tell(Told::Paths(ask));
        }
    }

    fn check_paths(
        &self,
        standing: &mut Standing,
        waiting: &mut Vec<PathAsk>,
        grant: Grant,
        scope: &str,
        text: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        if standing.mode == Mode::Observe {
            let why = &standing.why;
            return Err(Refusal::new(&format_args!(
                "the mode is `observe`, nothing is done: {why}"
            )));
        }
        let scope: Scope = scope.parse().map_err(|error| Refusal::new(&error))?;
        if scope != Scope::Command || !self.desk.shared.has_command {
            return Err(Refusal::new(
                &"rules about files and programs are kept by Landlock, under which a process puts itself before it begins: \
                  there is only the scope `command`, in `tipstaff exec`",
            ));
        }
        if text.len() > self.table_text {
            let reason = format!(
                "the table has {} bytes, its limit is {} (`table_text`)",
                text.len(),
                self.table_text
            );
            return Err(Refusal::limit("table_text", reason));
        }
        let table: PathTable = text.parse().map_err(|error| Refusal::new(&error))?;
        if let Some(access) = table.foreign(grant) {
            return Err(Refusal::new(&format_args!(
                "{} knows nothing of `{}`: its rules are about {}",
                grant.name(),
                access.name(),
                PathTable::accesses(grant)
                    .iter()
                    .map(|own| own.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        if table.rules.len() > self.rules {
            let reason = format!(
                "the table has {} rules, its limit is {} (`rules`)",
                table.rules.len(),
                self.rules
            );
            return Err(Refusal::limit("rules", reason));
        }
        let last = waiting.iter().rfind(|ask| ask.grant == grant).map(|ask| &ask.table);
        let held = standing.paths.get(&grant).map(|held| &held.table);
        if last.or(held) == Some(&table) {
            return Ok(());
        }
        if self.desk.shared.runs.load(Ordering::Relaxed) {
            return Err(Refusal::new(
                &"the command runs: what it may do with files and programs cannot be changed any more; ask for it in `configure`",
            ));
        }
        self.spend(standing, now)?;
        waiting.push(PathAsk { policy: std::sync::Arc::clone(&self.policy), grant, table });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Limits;

    const TABLE: &str = "default deny\nallow read /usr\n";

    fn reason(policy: &PolicyDesk, grant: Grant, scope: &str, table: &str) -> String {
        let mut waiting = Vec::new();
        let refusal = policy.ask_paths(&mut waiting, grant, scope, table).unwrap_err();
        assert!(waiting.is_empty());
        refusal.reason
    }

    #[test]
    fn a_table_is_handed_in_once_and_not_after_the_command_runs() {
        let (desk, told) = Desk::new(true);
        desk.set_mode("p", Mode::Enforce, "");
        let policy = desk.policy("p", &Limits::default());
        let mut waiting = Vec::new();
        for _ in 0..2 {
            policy.ask_paths(&mut waiting, Grant::File, "command", TABLE).unwrap();
        }
        policy.hand_in_paths(&mut waiting);
        let asked: Vec<_> = told.try_iter().collect();
        assert!(matches!(&asked[..], [Told::Paths(ask)] if ask.table.to_string() == TABLE));
        desk.begin_command();
        let refused = reason(&policy, Grant::File, "command", TABLE);
        assert!(refused.starts_with("the command runs"), "{refused}");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_reason() {
        let (desk, told) = Desk::new(true);
        let policy = desk.policy("p", &Limits { rules: 1, table_text: 60, ..Limits::default() });
        assert!(
            reason(&policy, Grant::File, "command", TABLE).starts_with("the mode is `observe`")
        );
        assert!(told.try_recv().is_err(), "nothing is told of it");
        desk.set_mode("p", Mode::Enforce, "");
        for (grant, scope, table, expected) in [
            (
                Grant::File,
                "cgroup:/a",
                TABLE,
                "rules about files and programs are kept by Landlock",
            ),
            (Grant::File, "all", TABLE, "expected the scope"),
            (Grant::File, "command", "allow read /", "no default"),
            (Grant::File, "command", "default deny\nallow read usr", "line 2: path"),
            (Grant::Exec, "command", TABLE, "guard-exec knows nothing of `read`"),
            (Grant::File, "command", "default deny\nallow execute /", "guard-file knows nothing"),
            (
                Grant::File,
                "command",
                "default deny\nallow read /\ndeny read /a",
                "the table has 2 rules",
            ),
            (Grant::File, "command", &" ".repeat(61), "the table has 61 bytes"),
        ] {
            let refused = reason(&policy, grant, scope, table);
            assert!(refused.starts_with(expected), "{table}: {refused}");
            assert!(matches!(told.try_recv(), Ok(Told::Refused { .. })), "{table}");
        }
        let (desk, _told) = Desk::new(false);
        desk.set_mode("p", Mode::Enforce, "");
        let policy = desk.policy("p", &Limits::default());
        assert!(
            reason(&policy, Grant::Exec, "command", "default deny").contains("in `tipstaff exec`")
        );
    }
}
