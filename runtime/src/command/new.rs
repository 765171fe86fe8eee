//! `tipstaff new`: a folder with a policy that builds.

mod language;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};

use super::Usage;
use language::{CASES, Language, Template};

/// Make a folder with a small policy that builds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tipstaff new shell-count --lang rust\n  \
    tipstaff new shell-count --lang python\n  \
    tipstaff new shell-count --lang javascript\n  \
    tipstaff new shell-count --lang rust --sdk ~/tipstaff/sdk/rust")]
pub struct Args {
    /// Name of the policy and of the folder: [a-z][a-z0-9-]*
    name: String,
    /// Language
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
    /// Folder of the SDK [default: that of the clone of Tipstaff around the current directory]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Makes it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { name, lang, sdk } = args;
    let template = lang.template();
    if !is_name(&name) {
        return Err(Usage::of(anyhow::anyhow!(
            "{name:?} is not a policy's name: expected [a-z][a-z0-9-]*, 64 bytes at most, and not a word of Rust"
        )));
    }
    let sdk = find_sdk(template, sdk)?;
    let folder = Path::new(&name);
    ensure!(!folder.exists(), "{name} exists already: choose another name, or remove it");
    let Some(sdk_text) = sdk.to_str().filter(|path| !path.contains(['"', '\\', '\n'])) else {
        bail!("the path of the SDK cannot be written into a file of the policy: {}", sdk.display());
    };
    let fill = |text: &str| {
        text.replace("{NAME}", &name)
            .replace("{TYPE}", &type_name(&name))
            .replace("{SDK}", sdk_text)
    };
    for (path, text) in template.files.iter().chain(CASES) {
        let path = folder.join(path);
        let text = fill(text);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!(
        "{name}/ is there. To build and test it:\n  cd {name}\n  {}\n  tipstaff test .",
        fill(&template.build.join("\n  "))
    );
    Ok(ExitCode::SUCCESS)
}

fn is_name(name: &str) -> bool {
    const TAKEN: &[&str] = &["core", "std", "alloc", "test", "tipstaff", "self", "super", "crate"];
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !TAKEN.contains(&name)
}

/// `shell-count` as `ShellCount`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(capital).collect()
}

fn find_sdk(template: &Template, given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let is_sdk = |folder: &Path| template.is_sdk(folder);
    let where_it_is = template.sdk;
    if let Some(folder) = given {
        if !is_sdk(&folder) {
            let error = anyhow::anyhow!(
                "{} is not the folder of this language's SDK: expected one such as {where_it_is} in a clone of Tipstaff",
                folder.display()
            );
            return Err(Usage::of(error));
        }
        return folder.canonicalize().with_context(|| folder.display().to_string());
    }
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    match here.ancestors().map(|folder| folder.join(where_it_is)).find(|folder| is_sdk(folder)) {
        Some(folder) => Ok(folder),
        None => Err(Usage::of(anyhow::anyhow!(
            "not inside a clone of Tipstaff: say with --sdk where its folder {where_it_is} is"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_the_name_of_a_type() {
        assert_eq!(type_name("shell-count"), "ShellCount");
        assert_eq!(type_name("a"), "A");
        assert_eq!(type_name("a--1b-"), "A1b");
    }

    #[test]
    fn only_names_of_policies_are_taken() {
        assert!(is_name("shell-count2"));
        for name in ["", "-a", "A", "a_b", "../a", "a/b", "core", "1a"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
