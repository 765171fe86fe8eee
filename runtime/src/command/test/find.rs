//! Which policy, and which cases.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail, ensure};

/// What is tested.
pub struct Found {
    /// The policy's file.
    pub policy: PathBuf,
    /// The cases' files of events, by name.
    pub cases: Vec<PathBuf>,
}

/// Finds the policy (`given` is a file, or a folder with source) and its cases.
pub fn find(given: &Path, cases: Option<PathBuf>) -> anyhow::Result<Found> {
    let is_folder = given.is_dir();
    let policy = if is_folder { built(given)? } else { given.to_owned() };
    let folder = if is_folder { given } else { given.parent().unwrap_or(Path::new(".")) };
    let directory = cases.unwrap_or_else(|| folder.join("cases"));
    let entries = fs::read_dir(&directory).with_context(|| {
        format!("cannot read the cases in {}: say with --cases where they are", directory.display())
    })?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".jsonl") && !name.ends_with(".expected.jsonl") {
            cases.push(path);
        }
    }
    ensure!(
        !cases.is_empty(),
        "{} has no cases: expected files NAME.jsonl with events",
        directory.display()
    );
    cases.sort();
    Ok(Found { policy, cases })
}

/// The file that was last built from a folder with source.
fn built(folder: &Path) -> anyhow::Result<PathBuf> {
    let has = |file: &str| folder.join(file).is_file();
    if has("Cargo.toml") {
        return built_by_cargo(folder);
    }
    let (name, build) = if has("pyproject.toml") {
        (name(&folder.join("pyproject.toml"), "project")?, "python -m tipstaff build")
    } else if has("package.json") {
        let file = folder.join("package.json");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let parsed: serde_json::Value =
            serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let name = parsed["name"].as_str().map(str::to_owned);
        let name = name.with_context(|| format!("{}: `name` is missing", file.display()))?;
        (name, "npx tipstaff build")
    } else {
        bail!(
            "{} is not the folder of a policy: no Cargo.toml, pyproject.toml or package.json",
            folder.display()
        );
    };
    let file = folder.join("build").join(format!("{name}.wasm"));
    ensure!(file.is_file(), "{name} is not built: cd {} && {build}", folder.display());
    Ok(file)
}

/// The name that is given in a table of a TOML file.
fn name(file: &Path, table: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let parsed: toml::Table = text.parse().with_context(|| file.display().to_string())?;
    let name = parsed.get(table).and_then(|table| table.get("name")?.as_str());
    name.map(str::to_owned)
        .with_context(|| format!("{}: `name` is missing in [{table}]", file.display()))
}

fn built_by_cargo(folder: &Path) -> anyhow::Result<PathBuf> {
    let name = name(&folder.join("Cargo.toml"), "package")?;
    let full = folder.canonicalize().with_context(|| folder.display().to_string())?;
    let crate_name = name.replace('-', "_");
    let candidates = full.ancestors().flat_map(|above| {
        let target = above.join("target");
        [
            target.join(format!("wasm32-unknown-unknown/release/{crate_name}.wasm")),
            target.join(format!("wasm32-unknown-unknown/policy/{crate_name}.wasm")),
            target.join(format!("policies/{name}.wasm")),
        ]
    });
    let time = |path: &PathBuf| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    candidates.filter(|path| path.is_file()).max_by_key(time).with_context(|| {
        format!(
            "{name} is not built: cd {} && cargo build --release --target wasm32-unknown-unknown",
            folder.display()
        )
    })
}
