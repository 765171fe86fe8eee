//! `tipstaff events --list`: the kinds and their fields, from the catalogue.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    process::ExitCode,
};

use tipstaff_runtime::kind::{Class, Kind, Kinds};

use crate::command::Format;

/// Prints all kinds, or the fields of those that are named.
pub fn list(kinds: &Kinds, names: &[String], format: Format) -> anyhow::Result<ExitCode> {
    let mut out = String::new();
    let name = |name: &str| name.strip_prefix(super::TRACEPOINT).unwrap_or(name).to_owned();
    let names: Vec<String> = names.iter().map(|text| name(text)).collect();
    let chosen =
        kinds.iter().filter(|kind| names.is_empty() || names.iter().any(|name| *name == kind.name));
    for kind in chosen {
        let _ = match format {
            Format::Json => writeln!(out, "{}", json(kind)),
            Format::Text if names.is_empty() => writeln!(out, "{:<12} {}", kind.name, kind.doc),
            Format::Text => fields(kind, &mut out),
        };
    }
    io::stdout().lock().write_all(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn fields(kind: &Kind, out: &mut String) -> fmt::Result {
    writeln!(out, "{}: {}", kind.name, kind.doc)?;
    for field in &kind.fields {
        let unit = if field.unit.is_empty() { String::new() } else { format!(" [{}]", field.unit) };
        writeln!(out, "  {:<20} {:<8} {}{unit}", field.name, field.class().to_string(), field.doc)?;
        if let Class::Name(names) = field.class() {
            writeln!(out, "  {:<20} {:<8} one of {}", "", "", names.join(", "))?;
        }
    }
    writeln!(out)
}

fn json(kind: &Kind) -> serde_json::Value {
    let fields: Vec<_> = kind
        .fields
        .iter()
        .map(|field| {
            let mut object = serde_json::json!({
                "name": field.name, "type": field.class().to_string(), "unit": field.unit, "doc": field.doc,
            });
            if let Class::Name(names) = field.class() {
                object["names"] = names.into();
            }
            object
        })
        .collect();
    serde_json::json!({ "kind": kind.name, "doc": kind.doc, "fields": fields })
}
