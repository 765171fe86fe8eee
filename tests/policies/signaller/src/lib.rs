//! A policy that sends signals as a test tells it to, upon each program that runs below a path.
#![forbid(unsafe_code)]

use tipstaff::{
    Counters, Event, On, Policy, Settings,
    guard::signal::{Process, Refused, Signal},
};

#[derive(Event)]
#[event(kind = "exec", urgent)]
struct Exec<'a> {
    pid: u32,
    start: u64,
    path: &'a str,
    args: tipstaff::List<'a>,
}

#[derive(Settings)]
struct Script {
    /// What the paths of the programs begin with.
    below: String,
    /// What is sent: `TERM`, `KILL`, `INT`, `HUP`.
    #[setting(default = "KILL")]
    signal: String,
    /// Whether to all that descend from it, too.
    #[setting(default = false)]
    tree: bool,
    /// Only programs with this argument are meant; empty: all.
    #[setting(default = "")]
    marked: String,
    /// So many nanoseconds are added to the start.
    #[setting(default = 0)]
    later: u64,
    /// Others, as `pid:start`, to which it is sent, too.
    #[setting(default = [])]
    others: Vec<String>,
    /// How often it is asked for.
    #[setting(default = 1)]
    times: u64,
}

struct Signaller {
    script: Script,
    signal: Signal,
    others: Vec<Process>,
    results: Counters<1>,
}

impl Policy for Signaller {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let script = Script::read(settings)?;
        let signal = match script.signal.as_str() {
            "TERM" => Signal::Term,
            "KILL" => Signal::Kill,
            "INT" => Signal::Int,
            "HUP" => Signal::Hup,
            other => return Err(format!("told to send {other:?}")),
        };
        let others = script.others.iter().map(|text| {
            let (pid, start) = text.split_once(':').ok_or("expected `pid:start`")?;
            let parse = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
            let pid = u32::try_from(parse(pid)?).map_err(|error| error.to_string())?;
            Ok::<_, String>(Process { pid, start: parse(start)? })
        });
        let others = others.collect::<Result<_, _>>()?;
        let results = Counters::new("signaller_results_total", ["result"]);
        Ok(Self { script, signal, others, results })
    }
}

impl On<Exec<'_>> for Signaller {
    fn on(&mut self, time_ns: u64, exec: Exec<'_>) {
        let Script { below, marked, later, times, tree, .. } = &self.script;
        let is_marked = marked.is_empty() || exec.args.iter().any(|arg| arg == marked);
        if !exec.path.starts_with(below) || !is_marked {
            return;
        }
        let process = Process { pid: exec.pid, start: exec.start + later };
        for to in self.others.iter().copied().chain([process]) {
            for _ in 0..*times {
                self.result(if *tree {
                    to.send_to_tree(self.signal, time_ns)
                } else {
                    to.send(self.signal, time_ns)
                });
            }
        }
    }
}

impl Signaller {
    fn result(&self, result: Result<(), Refused>) {
        let text = result.map_or_else(|refused| refused.0, |()| "ok".to_owned());
        self.results.add([&text], 1);
    }
}

tipstaff::export!(Signaller: Exec<'_>; settings = Script);
