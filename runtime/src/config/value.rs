//! The types that a key's value can have.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use super::document::{At, Node, Reader, Value, quoted};
use crate::{
    guard::{self, Grant, Mode, OnQuarantine, Rule, Strength},
    nearest::nearest,
};

/// A type whose value is written as a string.
pub(super) trait FromText: Sized {
    /// See [`Value::expected`].
    fn expected() -> String;

    /// The value. An empty message: "expected ..., found ..." says it all.
    fn parse(text: &str) -> Result<Self, String>;
}

impl<T: FromText> Value for T {
    fn expected() -> String {
        T::expected()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value.as_str().map_or_else(mismatch, T::parse) {
            Ok(value) => return Some(value),
            Err(message) if message.is_empty() => reader.mismatch::<Self>(node),
            Err(message) => reader.problem(&node.span, &node.key, message),
        }
        None
    }
}

/// For [`FromText::parse`]: "expected ..., found ..." says it all.
pub(super) fn mismatch<T>() -> Result<T, String> {
    Err(String::new())
}

impl Value for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let value = node.value.as_bool();
        if value.is_none() {
            reader.mismatch::<Self>(node);
        }
        value
    }
}

impl FromText for PathBuf {
    fn expected() -> String {
        "a path as a string".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') { mismatch() } else { Ok(text.into()) }
    }
}

impl FromText for Mode {
    fn expected() -> String {
        one_of(Self::ALL)
    }

    fn parse(text: &str) -> Result<Self, String> {
        named(text, Self::ALL)
    }
}

impl FromText for Grant {
    fn expected() -> String {
        one_of(Self::ALL)
    }

    fn parse(text: &str) -> Result<Self, String> {
        named(text, Self::ALL)
    }
}

impl FromText for Strength {
    fn expected() -> String {
        one_of(Self::ALL)
    }

    fn parse(text: &str) -> Result<Self, String> {
        named(text, Self::ALL)
    }
}

/// What becomes of the rules of a policy that is quarantined, as it is written.
const ON_QUARANTINE: &[(OnQuarantine, &str)] =
    &[(OnQuarantine::Hold, "hold"), (OnQuarantine::Release, "release")];

impl FromText for OnQuarantine {
    fn expected() -> String {
        one_of(ON_QUARANTINE)
    }

    fn parse(text: &str) -> Result<Self, String> {
        named(text, ON_QUARANTINE)
    }
}

/// "a" or "b": for [`FromText::expected`].
fn one_of<T>(names: &[(T, &str)]) -> String {
    names.iter().map(|(_, name)| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
}

fn named<T: Copy>(text: &str, names: &[(T, &str)]) -> Result<T, String> {
    names.iter().find(|(_, name)| *name == text).map_or_else(mismatch, |(value, _)| Ok(*value))
}

/// What no policy may deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlwaysAllow(pub Rule);

impl FromText for AlwaysAllow {
    fn expected() -> String {
        "protocol, prefix and ports, such as \"tcp 10.0.0.53 53\" or \"any 192.0.2.0/24\""
            .to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        Rule::always_allow(text).map(Self).map_err(|error| error.to_string())
    }
}

/// What no action may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protected {
    /// A cgroup, by its path on the v2 hierarchy, and all that is below it.
    Cgroup(String),
    /// Every process that runs this file.
    Executable(PathBuf),
}

impl FromText for Protected {
    fn expected() -> String {
        "\"cgroup:/PATH\" or the absolute path of an executable, such as \"cgroup:/system.slice/ssh.service\" \
         or \"/usr/sbin/sshd\""
            .to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("cgroup:") {
            let path = guard::cgroup_path(path).map_err(|error| error.to_string())?;
            return Ok(Self::Cgroup(path.to_owned()));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return Err(format!(
                "{text} is another process tomorrow: expected its executable or its cgroup, {}",
                <Self as FromText>::expected()
            ));
        }
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Self::Executable(text.into()));
        }
        mismatch()
    }
}

/// A name of lower-case letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub String);

impl FromText for Name {
    fn expected() -> String {
        "a name of a-z, 0-9 and -, that begins with a letter, at most 64 bytes".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if is_name(text, b'-') { Ok(Self(text.to_owned())) } else { mismatch() }
    }
}

/// Whether `text` is a name of lower-case letters, digits and `joint`.
#[must_use]
pub fn is_name(text: &str, joint: u8) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == joint)
}

/// Name of an event kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindName(pub String);

impl FromText for KindName {
    fn expected() -> String {
        "a name of a-z, 0-9 and _, that begins with a letter, at most 64 bytes".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if is_name(text, b'_') { Ok(Self(text.to_owned())) } else { mismatch() }
    }
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On this address.
    On(SocketAddr),
}

impl FromText for Listen {
    fn expected() -> String {
        "\"ADDRESS:PORT\" such as \"127.0.0.1:9470\" or \"[::1]:9470\", or \"off\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().or_else(|()| mismatch())
    }
}

impl std::str::FromStr for Listen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::On).map_err(drop),
        }
    }
}

/// Where a probe of the operator's own is attached. To add a type: a variant here, its line in
/// [`Attach::TYPES`], and what the compiler asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// `tracepoint:CATEGORY:NAME`: a classic tracepoint, its fields from its `format` in tracefs.
    Tracepoint {
        /// Folder below `events` in tracefs.
        category: String,
        /// Folder below the category.
        name: String,
    },
}

impl Attach {
    /// The types, as they are written.
    const TYPES: &[&str] = &["tracepoint:CATEGORY:NAME"];
    /// Types that other tools know and this version does not.
    const NOT_YET: &[&str] = &[
        "kprobe",
        "kretprobe",
        "fentry",
        "fexit",
        "fmod_ret",
        "raw_tp",
        "raw_tracepoint",
        "tp_btf",
        "lsm",
        "uprobe",
        "uretprobe",
        "usdt",
        "perf_event",
        "profile",
        "interval",
        "iter",
        "xdp",
        "tc",
        "cgroup",
    ];
}

impl std::str::FromStr for Attach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match parts[..] {
            ["tracepoint", category, name] if is_part(category) && is_part(name) => {
                Ok(Self::Tracepoint { category: category.to_owned(), name: name.to_owned() })
            }
            [ty, ..] if Self::NOT_YET.contains(&ty) => Err(format!(
                "attach type `{ty}` is not supported yet; there is {}",
                quoted(Self::TYPES.iter().copied())
            )),
            _ => mismatch(),
        }
    }
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracepoint { category, name } => write!(f, "tracepoint:{category}:{name}"),
        }
    }
}

impl FromText for Attach {
    fn expected() -> String {
        "\"tracepoint:CATEGORY:NAME\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// A field that a policy must not see: of all kinds, or of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyField {
    /// Name of the kind; `None`: of all kinds.
    pub kind: Option<String>,
    /// Name of the field.
    pub field: String,
}

impl FromText for DenyField {
    fn expected() -> String {
        "\"FIELD\" or \"KIND:FIELD\", such as \"proc.args\" or \"exec:args\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, field) = match text.split_once(':') {
            Some((kind, field)) => (Some(kind), field),
            None => (None, text),
        };
        let is_field =
            |text: &str| !text.is_empty() && text.split('.').all(|part| is_name(part, b'_'));
        if kind.is_none_or(|kind| is_name(kind, b'_')) && is_field(field) {
            Ok(Self { kind: kind.map(str::to_owned), field: field.to_owned() })
        } else {
            mismatch()
        }
    }
}

impl fmt::Display for DenyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) => write!(f, "{kind}:{}", self.field),
            None => f.write_str(&self.field),
        }
    }
}

/// What a policy file's bytes must hash to, as `tipstaff inspect` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest(pub String);

impl FromText for Digest {
    fn expected() -> String {
        "\"sha256:\" and 64 hexadecimal digits, as `tipstaff inspect FILE` prints".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            mismatch()
        }
    }
}

impl<T: Value> Value for Vec<T> {
    fn expected() -> String {
        format!("an array, each {}", T::expected())
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.value.is_array() {
            reader.mismatch::<Self>(node);
            return None;
        }
        Some(node.elements().filter_map(|element| T::read(&element, reader)).collect())
    }
}

impl<T: Value> Value for At<T> {
    fn expected() -> String {
        T::expected()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.at(node)
    }
}

impl<T: Value> Value for BTreeMap<Name, At<T>> {
    fn expected() -> String {
        "tables by name".to_owned()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.value.is_table() {
            reader.mismatch::<Self>(node);
            return None;
        }
        let mut tables = Self::new();
        for (name, span, entry) in node.entries() {
            if !is_name(name, b'-') {
                reader.problem(
                    &span,
                    &entry.key,
                    format!("{name:?} is not a name: expected {}", <Name as FromText>::expected()),
                );
            } else if let Some(table) = reader.at(&entry) {
                tables.insert(Name(name.to_owned()), table);
            }
        }
        Some(tables)
    }
}

/// `; the nearest is ...` for a name that is not among these.
pub fn no_such(what: &str, name: &str, names: &[&str]) -> String {
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("there is no {what} `{name}`; the nearest is `{near}`"),
        None => format!(
            "there is no {what} `{name}`, expected one of {}",
            quoted(names.iter().copied())
        ),
    }
}
