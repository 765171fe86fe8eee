//! `docs/configuration.md`, made from the list of keys.

use std::fmt::Write as _;

use super::{
    document::{Key, Section},
    effective::DEFAULT_FILE,
    typed::{Agent, Compiler, File, Guard, Limits, Metrics, Policy, Probe},
};

/// The reference of the configuration, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n<!-- Made from runtime/src/config/typed.rs; BLESS=1 cargo test rewrites it. -->\n\n",
    );
    let _infallible = write!(
        out,
        "{}\n\nIt is TOML, by default `{DEFAULT_FILE}`. `tipstaff check` reads it and the policies, and prints\n\
         every problem with file, line and key. Unknown keys are refused. There are no includes.\n\n\
         The file, the directory of policies and the files in it must belong to root (in observe mode: or to\n\
         the user who started the agent), and nobody else may be able to write them or any directory above.\n",
        File::ABOUT.trim()
    );
    for (header, about, keys) in [
        ("[agent]", Agent::ABOUT, Agent::keys()),
        ("[compiler]", Compiler::ABOUT, Compiler::keys()),
        ("[metrics]", Metrics::ABOUT, Metrics::keys()),
        ("[guard]", Guard::ABOUT, Guard::keys()),
        ("[limits]", Limits::ABOUT, Limits::keys()),
        ("[[probe]]", Probe::ABOUT, Probe::keys()),
        ("[policy.NAME]", Policy::ABOUT, Policy::keys()),
    ] {
        let _infallible = write!(
            out,
            "\n## `{header}`\n\n{}\n\n| key | expected | default | meaning |\n|---|---|---|---|\n",
            about.trim()
        );
        for Key { name, expected, default, doc } in keys {
            let default = match default {
                "" => String::new(),
                words if words.contains(' ') && !words.starts_with('"') => words.to_owned(),
                toml => format!("`{toml}`"),
            };
            let _infallible = writeln!(
                out,
                "| `{name}` | {expected} | {default} | {} |",
                doc.trim().replace('|', "\\|")
            );
        }
    }
    out
}
