//! Counts what is executed and by whom, and raises an alert when a network service runs a shell.
#![forbid(unsafe_code)]

use tipstaff::{Counters, Event, List, On, Policy, Settings, Severity, alert, metrics};

#[derive(Event)]
#[event(kind = "exec")]
struct Exec<'a> {
    pid: u32,
    uid: u32,
    path: &'a str,
    args: List<'a>,
    #[event(field = "proc.parent.exe")]
    parent: Option<&'a str>,
    #[event(field = "proc.ancestors")]
    ancestors: Option<List<'a>>,
    #[event(field = "container.id")]
    container: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// File names of shells.
    #[setting(default = ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox"])]
    shells: Vec<String>,
    /// File names of network services, which have no business running a shell. A `*` at the end
    /// stands for anything.
    #[setting(default = [
        "nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy", "envoy", "php-fpm*", "php-cgi*", "java",
        "node", "gunicorn", "uwsgi", "mysqld", "mariadbd", "postgres", "redis-server", "mongod", "memcached",
        "named", "unbound", "dnsmasq", "exim4", "vsftpd", "proftpd", "smbd", "slapd"
    ])]
    services: Vec<String>,
}

struct ExecAudit {
    rules: Rules,
    executions: Counters<2>,
    shells: Counters<2>,
}

impl Policy for ExecAudit {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        metrics::describe("exec_total", "Programs executed, by executable and parent.", "");
        metrics::describe("exec_service_shells_total", "Shells run below a network service.", "");
        Ok(Self {
            rules: Rules::read(settings)?,
            executions: Counters::new("exec_total", ["exe", "parent"]),
            shells: Counters::new("exec_service_shells_total", ["service", "shell"]),
        })
    }
}

impl On<Exec<'_>> for ExecAudit {
    fn on(&mut self, _time_ns: u64, exec: Exec<'_>) {
        self.executions.add([exec.path, exec.parent.unwrap_or("unknown")], 1);

        let shell = file_name(exec.path);
        if !self.rules.shells.iter().any(|known| known == shell) {
            return;
        }
        // The nearest ancestor first: the parent may be a shell that the service ran before.
        let nearest = exec.parent.into_iter();
        let ancestors = exec.ancestors.unwrap_or_default();
        let Some(service) =
            nearest.chain(ancestors.iter()).find(|exe| self.rules.is_service(file_name(exe)))
        else {
            return;
        };
        self.shells.add([service, exec.path], 1);
        let (pid, uid) = (exec.pid.to_string(), exec.uid.to_string());
        let mut labels = vec![
            ("service", service),
            ("shell", exec.path),
            ("pid", pid.as_str()),
            ("uid", uid.as_str()),
        ];
        labels.extend(exec.container.map(|container| ("container", container)));
        let message = format!("{service} runs the shell {}: {}", exec.path, exec.args.joined());
        alert(Severity::Critical, &message, &labels);
    }
}

impl Rules {
    fn is_service(&self, name: &str) -> bool {
        self.services.iter().any(|service| match service.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == service,
        })
    }
}

/// The last part of a path, without the mark that a deleted file bears.
fn file_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

tipstaff::export!(ExecAudit: Exec<'_>; settings = Rules);
