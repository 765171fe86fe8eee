//! `tipstaff inspect`: what a policy's file says of itself.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde_json::json;
use tipstaff_events::sample::Sample;
use tipstaff_runtime::{
    escape,
    guard::Grant,
    manifest::{Ask, Manifest, Setting, Subscription},
    policy::{self, CompileLimits, Compiler, Inspection, ManifestFrom, Workshop},
};

use super::Format;

/// Show what a policy wants: its manifest, the capabilities that it asks for, size and digest
///
/// The manifest is read from the file's custom section where there is one, and nothing is run. Else
/// the policy is compiled and asked, in an instance without any capability.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff inspect target/policies/exec-audit.wasm\n  \
    tipstaff inspect --format json exec-audit.wasm | jq -r .digest")]
pub struct Args {
    /// The policy
    file: PathBuf,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Prints it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { file, format } = args;
    let inspection = policy::inspect(&file, |path, bytes| {
        // Nobody is going to run it, so that nothing is kept.
        let cache = tempfile::tempdir()
            .map_err(|error| policy::LoadError { path: path.to_owned(), reason: error.into() })?;
        Compiler::new(cache.path(), Workshop::this_program(CompileLimits::default()))?
            .load_bytes(path, bytes)
    })?;
    let mut out = io::stdout().lock();
    match format {
        Format::Text => text(&inspection, &mut out)?,
        Format::Json => writeln!(out, "{}", json(&inspection))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(inspection: &Inspection, out: &mut impl Write) -> io::Result<()> {
    let Inspection { manifest, from, digest, size, imports, exports } = inspection;
    let Manifest { name, version, subscriptions, settings, tick_ns } = manifest;
    writeln!(out, "{name} {version}")?;
    let from = match from {
        ManifestFrom::Section => "read from the file's custom section; nothing was run",
        ManifestFrom::Describe => {
            "told by the policy, which ran in an instance without any capability"
        }
    };
    writeln!(out, "  manifest      {from}")?;
    writeln!(out, "  size          {size} bytes")?;
    writeln!(out, "  digest        {digest}")?;
    let (wasi, own): (Vec<_>, Vec<_>) =
        imports.iter().cloned().partition(|import| policy::wasi(import).is_some());
    writeln!(out, "  capabilities  {}", list(&own))?;
    if !wasi.is_empty() {
        // Twenty-five interfaces say nothing more than that.
        let packages: BTreeSet<_> =
            wasi.iter().filter_map(|import| policy::wasi(import)?.split('/').next()).collect();
        let packages: Vec<_> = packages.into_iter().collect();
        writeln!(
            out,
            "                wasi:* (closed: clocks, random numbers, output to the log; {} interfaces of {})",
            wasi.len(),
            packages.join(", ")
        )?;
    }
    writeln!(out, "  exports       {}", list(exports))?;
    let grants: Vec<_> =
        policy::grants(imports).map(|grant| format!("{:?}", grant.name())).collect();
    if !grants.is_empty() {
        let grants = grants.join(", ");
        writeln!(out, "  to grant it what it asks for, write")?;
        writeln!(out, "    [policy.{name}]")?;
        writeln!(out, "    grants = [{grants}]")?;
        writeln!(out, "    digest = [\"{digest}\"]")?;
    }
    if let Some(ns) = tick_ns {
        writeln!(out, "  tick          every {:?}", Duration::from_nanos(*ns))?;
    }
    for Subscription { event, optional, fields, every_ns, condition, urgent, sample } in
        subscriptions
    {
        let every = every_ns.map(|ns| format!(", every {:?}", Duration::from_nanos(ns)));
        writeln!(
            out,
            "  subscribes to {event}{}{}{}{}",
            every.unwrap_or_default(),
            if *sample == Sample::ALL { String::new() } else { format!(", {sample}") },
            if *urgent { ", urgent" } else { "" },
            if *optional { " (if there is such a kind)" } else { "" }
        )?;
        if let Some(condition) = condition {
            writeln!(out, "    where {}", escape::control(condition))?;
        }
        for Ask { name, ty, optional } in fields {
            writeln!(out, "    {name}: {ty}{}", if *optional { ", optional" } else { "" })?;
        }
    }
    for Setting { name, ty, doc, default } in settings {
        let default =
            default.as_ref().map_or("must be given".to_owned(), |value| format!("default {value}"));
        writeln!(out, "  setting       {name}: {ty}, {default}")?;
        writeln!(out, "    {}", escape::control(doc))?;
    }
    Ok(())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn json(inspection: &Inspection) -> serde_json::Value {
    let Inspection { manifest, from, digest, size, imports, exports } = inspection;
    let Manifest { name, version, subscriptions, settings, tick_ns } = manifest;
    let field = |Ask { name, ty, optional }: &Ask| json!({ "name": name, "type": ty.to_string(), "optional": optional });
    let subscription = |Subscription {
                            event,
                            optional,
                            fields,
                            every_ns,
                            condition,
                            urgent,
                            sample,
                        }: &Subscription| {
        let fields: Vec<_> = fields.iter().map(field).collect();
        json!({ "event": event, "optional": optional, "fields": fields, "where": condition, "every_ns": every_ns, "urgent": urgent, "sample": sample.every(), "sample_by": sample.by().to_string() })
    };
    let setting = |Setting { name, ty, doc, default }: &Setting| json!({ "name": name, "type": ty.to_string(), "doc": doc, "default": default });
    json!({
        "name": name,
        "version": version,
        "manifest_from": match from {
            ManifestFrom::Section => "section",
            ManifestFrom::Describe => "describe",
        },
        "size": size,
        "digest": digest.to_string(),
        "imports": imports,
        "grants": policy::grants(imports).map(Grant::name).collect::<Vec<_>>(),
        "exports": exports,
        "tick_ns": tick_ns,
        "subscriptions": subscriptions.iter().map(subscription).collect::<Vec<_>>(),
        "settings": settings.iter().map(setting).collect::<Vec<_>>(),
    })
}
