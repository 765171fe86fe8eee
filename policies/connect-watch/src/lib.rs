//! Counts connections by destination and outcome, and raises an alert upon the first contact with a
//! port that is not expected.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, net::IpAddr};

use tipstaff::{Counters, Event, On, Policy, Settings, Severity, alert, metrics};

#[derive(Event)]
#[event(kind = "connect")]
struct Connect<'a> {
    pid: u32,
    address: IpAddr,
    port: u16,
    family: &'a str,
    protocol: &'a str,
    outcome: &'a str,
    #[event(field = "proc.exe")]
    exe: Option<&'a str>,
    #[event(field = "container.id")]
    container: Option<&'a str>,
}

#[derive(Settings)]
struct Rules {
    /// Ports that may be connected to without an alert.
    #[setting(default = [22, 25, 53, 80, 123, 443, 465, 587, 853, 993, 3306, 5432, 6379, 8080, 8443])]
    ports: Vec<u16>,
    /// Whether connections to this machine itself raise alerts.
    #[setting(default = true)]
    loopback: bool,
    /// Destinations that are counted one by one. The others are counted together, as `other`.
    #[setting(default = 200)]
    destinations: usize,
}

struct ConnectWatch {
    rules: Rules,
    connections: Counters<4>,
    unexpected: Counters<2>,
    destinations: BTreeSet<(IpAddr, u16)>,
    /// Ports that an alert was raised for: at most one for each port and protocol.
    seen: BTreeSet<(u16, bool)>,
}

impl Policy for ConnectWatch {
    fn configure(settings: &[(String, String)]) -> Result<Self, String> {
        metrics::describe("connect_total", "Connection attempts, by destination and outcome.", "");
        metrics::describe(
            "connect_unexpected_total",
            "Connection attempts to ports that are not expected.",
            "",
        );
        Ok(Self {
            rules: Rules::read(settings)?,
            connections: Counters::new(
                "connect_total",
                ["destination", "port", "protocol", "outcome"],
            ),
            unexpected: Counters::new("connect_unexpected_total", ["protocol", "outcome"]),
            destinations: BTreeSet::new(),
            seen: BTreeSet::new(),
        })
    }
}

impl On<Connect<'_>> for ConnectWatch {
    fn on(&mut self, _time_ns: u64, connect: Connect<'_>) {
        let Connect { address, port, protocol, outcome, .. } = connect;
        if connect.family != "inet" && connect.family != "inet6" {
            self.connections.add([connect.family, "", protocol, outcome], 1);
            return;
        }
        let (destination, port_text) = (address.to_string(), port.to_string());
        let [shown, shown_port] = if self.is_told_apart(address, port) {
            [destination.as_str(), &port_text]
        } else {
            ["other"; 2]
        };
        self.connections.add([shown, shown_port, protocol, outcome], 1);

        let is_quiet = address.is_loopback() && !self.rules.loopback;
        if self.rules.ports.contains(&port) || is_quiet {
            return;
        }
        self.unexpected.add([protocol, outcome], 1);
        if self.seen.insert((port, protocol == "tcp")) {
            let (exe, pid) = (connect.exe.unwrap_or("unknown"), connect.pid.to_string());
            let mut labels = vec![
                ("address", destination.as_str()),
                ("port", port_text.as_str()),
                ("protocol", protocol),
                ("outcome", outcome),
                ("exe", exe),
                ("pid", pid.as_str()),
            ];
            labels.extend(connect.container.map(|container| ("container", container)));
            let message =
                format!("first contact with {protocol} port {port}: {exe} to {address}, {outcome}");
            alert(Severity::Warning, &message, &labels);
        }
    }
}

impl ConnectWatch {
    /// Whether this destination has series of its own.
    fn is_told_apart(&mut self, address: IpAddr, port: u16) -> bool {
        self.destinations.contains(&(address, port))
            || self.destinations.len() < self.rules.destinations
                && self.destinations.insert((address, port))
    }
}

tipstaff::export!(ConnectWatch: Connect<'_>; settings = Rules);
