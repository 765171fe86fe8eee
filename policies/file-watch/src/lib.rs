//! Raises an alert when a watched file is opened for writing, removed or renamed.
#![forbid(unsafe_code)]

use std::{borrow::Cow, collections::BTreeMap};

use tipstaff::{Counters, Event, On, OnTick, Policy, Settings, Severity, alert, metrics};

/// `O_WRONLY | O_RDWR`, `O_CREAT`, `O_TRUNC`: each of them changes something.
const WRITES: u32 = 0o3 | 0o100 | 0o1000;
/// `O_PATH`: the descriptor can neither read nor write.
const O_PATH: u32 = 0o10_000_000;
/// Alerts that are remembered so as not to be repeated.
const REMEMBERED: usize = 10_000;

#[derive(Event)]
#[event(kind = "open")]
struct Open<'a> {
    path: &'a str,
    flags: u32,
    result: i32,
    pid: u32,
    uid: u32,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Event)]
#[event(kind = "unlink")]
struct Unlink<'a> {
    path: &'a str,
    result: i32,
    pid: u32,
    uid: u32,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Event)]
#[event(kind = "rename")]
struct Rename<'a> {
    path: &'a str,
    new_path: &'a str,
    result: i32,
    pid: u32,
    uid: u32,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// Files, and directories with all that is below them.
    #[setting(default = ["/etc", "/root/.ssh", "/boot", "/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/var/spool/cron"])]
    paths: Vec<String>,
    /// What is below these is not watched.
    #[setting(default = [])]
    except: Vec<String>,
    /// An alert about the same operation on the same path is not repeated within this time, in seconds.
    #[setting(default = 60)]
    quiet: u64,
}

struct FileWatch {
    rules: Rules,
    operations: Counters<3>,
    /// When an alert was last raised about an operation on a path.
    told: BTreeMap<(&'static str, String), u64>,
}

/// What happened to a path, and who did it.
struct Act<'a> {
    operation: &'static str,
    path: &'a str,
    /// What a rename made of it.
    new_path: Option<&'a str>,
    result: i32,
    pid: u32,
    uid: u32,
    exe: Option<&'a str>,
}

impl Policy for FileWatch {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        let mut rules = Rules::read(settings)?;
        for path in rules.paths.iter_mut().chain(&mut rules.except) {
            if !path.starts_with('/') {
                return Err(format!("{path:?} is not an absolute path"));
            }
            path.truncate(path.trim_end_matches('/').len());
        }
        metrics::describe(
            "file_watch_total",
            "Operations that change a watched file, or tried to.",
            "",
        );
        let operations = Counters::new("file_watch_total", ["operation", "watched", "result"]);
        Ok(Self { rules, operations, told: BTreeMap::new() })
    }
}

impl On<Open<'_>> for FileWatch {
    fn on(&mut self, time_ns: u64, open: Open<'_>) {
        let Open { path, flags, result, pid, uid, exe } = open;
        if flags & WRITES != 0 && flags & O_PATH == 0 {
            self.judge(
                time_ns,
                &Act { operation: "open", path, new_path: None, result, pid, uid, exe },
            );
        }
    }
}

impl On<Unlink<'_>> for FileWatch {
    fn on(&mut self, time_ns: u64, unlink: Unlink<'_>) {
        let Unlink { path, result, pid, uid, exe } = unlink;
        self.judge(
            time_ns,
            &Act { operation: "unlink", path, new_path: None, result, pid, uid, exe },
        );
    }
}

impl On<Rename<'_>> for FileWatch {
    fn on(&mut self, time_ns: u64, rename: Rename<'_>) {
        let Rename { path, new_path, result, pid, uid, exe } = rename;
        self.judge(
            time_ns,
            &Act { operation: "rename", path, new_path: Some(new_path), result, pid, uid, exe },
        );
    }
}

impl OnTick for FileWatch {
    fn on_tick(&mut self, now_ns: u64) {
        let quiet = self.rules.quiet_ns();
        self.told.retain(|_, &mut told| told.saturating_add(quiet) > now_ns);
    }
}

impl FileWatch {
    fn judge(&mut self, time_ns: u64, act: &Act<'_>) {
        let Act { operation, path, new_path, result, pid, uid, exe } = *act;
        // Both sides of a rename change: what was there is gone, and what was at the new name is
        // replaced. One alert tells of both.
        let mut sides = [Some(path), new_path].into_iter().flatten();
        let Some(watched) = sides.find_map(|side| self.rules.watched(side)) else {
            return;
        };
        let outcome = if result < 0 { "failed" } else { "done" };
        self.operations.add([operation, watched, outcome], 1);
        // What failed changed nothing: counted, but nobody is called.
        if result < 0 || !self.is_news(time_ns, operation, path) {
            return;
        }
        let exe = exe.unwrap_or("unknown");
        let what = match operation {
            "open" => format!("{path} opened for writing"),
            "unlink" => format!("{path} removed"),
            _ => format!("{path} renamed to {}", new_path.unwrap_or_default()),
        };
        let (pid, uid) = (pid.to_string(), uid.to_string());
        let mut labels = vec![
            ("operation", operation),
            ("path", path),
            ("exe", exe),
            ("pid", pid.as_str()),
            ("uid", uid.as_str()),
        ];
        labels.extend(new_path.map(|new_path| ("new_path", new_path)));
        alert(Severity::Warning, &format!("{what} by {exe}"), &labels);
    }

    /// Whether no alert was raised about this lately.
    fn is_news(&mut self, time_ns: u64, operation: &'static str, path: &str) -> bool {
        let key = (operation, path.to_owned());
        let quiet = self.rules.quiet_ns();
        if self.told.get(&key).is_some_and(|&told| time_ns.saturating_sub(told) < quiet) {
            return false;
        }
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(key, time_ns);
        true
    }
}

impl Rules {
    /// What of `paths` this is, or is below of.
    fn watched(&self, path: &str) -> Option<&str> {
        let path = &*plain(path);
        let is_below = |above: &&String| {
            path.strip_prefix(above.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let watched = self.paths.iter().find(is_below)?;
        (!self.except.iter().any(|except| is_below(&except))).then_some(watched)
    }

    fn quiet_ns(&self) -> u64 {
        self.quiet.saturating_mul(1_000_000_000)
    }
}

/// The path without `//`, `.` and `..`, which `unlink` and `rename` have as the caller wrote them.
fn plain(path: &str) -> Cow<'_, str> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    if path.strip_prefix('/').is_none_or(|rest| rest.split('/').all(is_plain)) {
        return Cow::Borrowed(path);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // Above the root there is the root.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

tipstaff::export!(FileWatch: Open<'_>, Unlink<'_>, Rename<'_>; settings = Rules; tick = "10s");
