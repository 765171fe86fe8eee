//! Counts rows and their weights, what was lost, and which cgroups had spent their budget, and the agent.
#![forbid(unsafe_code)]

use tipstaff::{Counter, Event, Gap, On, Policy};

#[derive(Event)]
#[event(kind = "unlink")]
struct Unlink {
    weight: u32,
}

#[derive(Event)]
#[event(kind = "cgroup_budget")]
struct CgroupBudget<'a> {
    left_out: u64,
    per_second: u32,
    path: Option<&'a str>,
    cgroup: u64,
}

#[derive(Event)]
#[event(kind = "agent_budget")]
struct AgentBudget<'a> {
    event: &'a str,
    every: u32,
    used: u32,
    allowed: u32,
}

struct Weighed {
    rows: Counter,
    weight: Counter,
    lost: Counter,
}

impl Policy for Weighed {
    fn configure(_: &[(String, String)]) -> Result<Self, String> {
        Ok(Self {
            rows: Counter::new("weighed_rows_total", &[]),
            weight: Counter::new("weighed_weight_total", &[]),
            lost: Counter::new("weighed_lost_total", &[]),
        })
    }

    fn lost(&mut self, gap: Gap) {
        self.lost.add(gap.lost);
    }
}

impl On<Unlink> for Weighed {
    fn on(&mut self, _time_ns: u64, unlink: Unlink) {
        self.rows.add(1);
        self.weight.add(unlink.weight.into());
    }
}

impl On<CgroupBudget<'_>> for Weighed {
    fn on(&mut self, _time_ns: u64, budget: CgroupBudget<'_>) {
        let (cgroup, per_second) = (budget.cgroup.to_string(), budget.per_second.to_string());
        let labels = [
            ("cgroup", cgroup.as_str()),
            ("path", budget.path.unwrap_or("")),
            ("per_second", &per_second),
        ];
        Counter::new("weighed_left_out_total", &labels).add(budget.left_out);
    }
}

impl On<AgentBudget<'_>> for Weighed {
    fn on(&mut self, _time_ns: u64, budget: AgentBudget<'_>) {
        let (every, allowed) = (budget.every.to_string(), budget.allowed.to_string());
        let is_over = if budget.used > budget.allowed { "true" } else { "false" };
        let labels =
            [("event", budget.event), ("every", &every), ("allowed", &allowed), ("over", is_over)];
        Counter::new("weighed_steps_total", &labels).add(1);
    }
}

tipstaff::export!(Weighed: Unlink, CgroupBudget<'_>, AgentBudget<'_>);
