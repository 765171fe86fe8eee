//! The languages that policies can be written in: what a new one is made of.

use std::path::Path;

use clap::ValueEnum;

/// A language that policies can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, with `cargo` and the target wasm32-unknown-unknown.
    Rust,
    /// Python, with Python 3.11 and componentize-py.
    Python,
    /// JavaScript, with Node 18 and componentize-qjs.
    Javascript,
}

/// What a new policy in one language is made of.
pub struct Template {
    /// Folder of the SDK in a clone of Tipstaff.
    pub sdk: &'static str,
    /// Files by which the SDK's folder is known.
    signs: &'static [&'static str],
    /// Path and text of the files besides the cases, with `NAME`, `TYPE` and `SDK` to be replaced.
    pub files: &'static [(&'static str, &'static str)],
    /// Commands that build it.
    pub build: &'static [&'static str],
}

/// A case that every new policy passes.
pub const CASES: &[(&str, &str)] = &[
    ("cases/shell.jsonl", include_str!("cases/shell.jsonl")),
    ("cases/shell.expected.jsonl", include_str!("cases/shell.expected.jsonl")),
];

const RUST: Template = Template {
    sdk: "sdk/rust",
    signs: &["Cargo.toml", "src/export.rs"],
    files: &[
        ("Cargo.toml", include_str!("rust/Cargo.toml.in")),
        (".cargo/config.toml", include_str!("rust/config.toml.in")),
        ("src/lib.rs", include_str!("rust/lib.rs.in")),
        ("README.md", include_str!("rust/README.md.in")),
        (".gitignore", "/target\n"),
    ],
    build: &["cargo build --release"],
};

const PYTHON: Template = Template {
    sdk: "sdk/python",
    signs: &["pyproject.toml", "tipstaff/build.py"],
    files: &[
        ("pyproject.toml", include_str!("python/pyproject.toml.in")),
        ("policy.py", include_str!("python/policy.py.in")),
        ("README.md", include_str!("python/README.md.in")),
        (".gitignore", "/build\n/.venv\n__pycache__\n"),
    ],
    build: &[
        "python3 -m venv .venv && .venv/bin/pip install -e \"{SDK}\"",
        ".venv/bin/python -m tipstaff build",
    ],
};

const JAVASCRIPT: Template = Template {
    sdk: "sdk/javascript",
    signs: &["package.json", "src/build.js"],
    files: &[
        ("package.json", include_str!("javascript/package.json.in")),
        ("policy.js", include_str!("javascript/policy.js.in")),
        ("README.md", include_str!("javascript/README.md.in")),
        (".gitignore", "/build\n/node_modules\n"),
    ],
    build: &["npm install", "npx tipstaff build"],
};

impl Language {
    /// What a new policy is made of.
    pub const fn template(self) -> &'static Template {
        match self {
            Self::Rust => &RUST,
            Self::Python => &PYTHON,
            Self::Javascript => &JAVASCRIPT,
        }
    }
}

impl Template {
    /// Whether this is the folder of the SDK.
    pub fn is_sdk(&self, folder: &Path) -> bool {
        self.signs.iter().all(|sign| folder.join(sign).is_file())
    }
}
