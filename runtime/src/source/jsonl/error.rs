//! Why a file is no source of events.

use std::{io, path::PathBuf};

use crate::source::encode::Unfit;

/// A file that cannot be read, or a line in it that is no event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event of this agent.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is not an object, or `kind` is missing.
    #[error(
        "expected an object with `kind`, such as {{\"kind\": \"exec\", \"path\": \"/bin/true\"}}"
    )]
    NoKind,
    /// A kind that does not exist here.
    #[error("there is no event `{kind}` here{hint}")]
    UnknownKind {
        /// Its name.
        kind: String,
        /// The nearest name.
        hint: String,
    },
    /// A field that the kind does not have.
    #[error("event `{kind}` has no field `{field}`{hint}")]
    UnknownField {
        /// The kind.
        kind: String,
        /// Its name.
        field: String,
        /// The nearest name.
        hint: String,
    },
    /// A value that the field cannot have.
    #[error("field `{field}`: expected {expected}, found {found}")]
    Value {
        /// The field.
        field: String,
        /// What can stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A value that does not fit the record.
    #[error("field `{field}`: {unfit}")]
    Unfit {
        /// The field.
        field: String,
        /// Why.
        unfit: Unfit,
    },
}
