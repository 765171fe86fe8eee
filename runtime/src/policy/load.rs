//! From a file to a policy that is ready to run: `loaded -> configured`.

use std::path::{Path, PathBuf};

use wasmtime::component::Linker;

use super::{
    Limits, Outcome,
    compile::{self, Workshop},
    component, counts,
    error::{LoadError, Refusal},
    file::{self, Digest},
    host::{self, PolicyOutcome, State, wasi},
    instance::{Instance, Program},
    limits::MIN_MEMORY,
    ticker::Clocked,
};
use crate::{
    config,
    guard::{Grant, Mode},
    manifest::Manifest,
    outcome::Reserved,
};

/// The interfaces of the package `tipstaff:policy`, without the version.
const PACKAGE: &str = "tipstaff:policy/";
/// The interfaces that every policy may import.
const HARMLESS: &[&str] = &["log", "metrics", "alerts", "state"];

/// Loads policies. Cheap to clone.
#[derive(Clone)]
pub struct Compiler {
    clocked: Clocked,
    linker: Linker<State>,
    cache: PathBuf,
    workshop: Workshop,
}

/// A policy whose file is compiled and has described itself.
#[derive(Clone)]
pub struct Loaded {
    /// Where it comes from.
    pub path: PathBuf,
    /// What it says of itself before any setting is known.
    pub manifest: Manifest,
    /// The same as the policy wrote it.
    pub manifest_text: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Size of the file, in bytes.
    pub size: usize,
    /// Interfaces that it imports, with package and version: the capabilities that it asks for.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    pub(super) program: Program,
}

/// A policy that took its settings: an instance waits to run.
pub struct Configured {
    /// The manifest in force.
    pub manifest: Manifest,
    /// Digest of the file.
    pub digest: Digest,
    pub(super) path: PathBuf,
    pub(super) program: Program,
    pub(super) settings: Vec<(String, String)>,
    pub(super) limits: Limits,
    pub(super) outcome: PolicyOutcome,
    pub(super) instance: Instance,
}

impl Compiler {
    /// A compiler that keeps compiled code in the directory `cache`, which is made if it is missing.
    /// Whoever can write there decides what the agent runs: nobody else may.
    pub fn new(cache: &Path, workshop: Workshop) -> Result<Self, LoadError> {
        let unusable = |error: wasmtime::Error| LoadError {
            path: cache.to_owned(),
            reason: Refusal::Engine(format!("{error:#}")),
        };
        compile::directories(cache)
            .map_err(|error| LoadError { path: cache.to_owned(), reason: error.into() })?;
        let clocked = Clocked::new().map_err(unusable)?;
        let linker = host::linker(clocked.engine()).map_err(unusable)?;
        Ok(Self { clocked, linker, cache: cache.to_owned(), workshop })
    }

    /// Reads a file and loads it. Blocks for as long as compiling takes.
    pub fn load(&self, path: &Path) -> Result<Loaded, LoadError> {
        let bytes =
            file::read(path).map_err(|reason| LoadError { path: path.to_owned(), reason })?;
        self.load_bytes(path, &bytes)
    }

    /// Loads what was read from a file.
    pub fn load_bytes(&self, path: &Path, bytes: &[u8]) -> Result<Loaded, LoadError> {
        self.try_load(path, bytes).map_err(|reason| LoadError { path: path.to_owned(), reason })
    }

    fn try_load(&self, path: &Path, bytes: &[u8]) -> Result<Loaded, Refusal> {
        file::check_magic(bytes)?;
        let digest = Digest::of(bytes);
        let prepared = compile::prepare(&self.workshop, &self.clocked, &self.cache, bytes, digest)?;
        let manifest: Manifest = prepared.manifest.parse()?;
        // What the section says is shown by `inspect`, and by nothing that decides.
        if file::sections(bytes)?.manifest.is_some_and(|section| section != prepared.manifest) {
            tracing::warn!(
                policy = manifest.name,
                "the manifest in the file's custom section is not the one that the policy tells; the latter counts"
            );
        }
        let component = &prepared.component;
        let (imports, exports) = component::interfaces(&self.clocked, component);
        check_imports(&imports)?;
        let unfit = |error: wasmtime::Error| {
            Refusal::Component(format!("does not fit this agent: {error:#}"))
        };
        let mut linker = self.linker.clone();
        wasi::link(&mut linker, component).map_err(unfit)?;
        let program = Program::new(&self.clocked, &linker, component).map_err(unfit)?;
        Ok(Loaded {
            path: path.to_owned(),
            manifest,
            manifest_text: prepared.manifest,
            digest,
            size: bytes.len(),
            imports,
            exports,
            program,
        })
    }
}

/// The name of an interface of our package, without the version; empty for one of another package.
fn interface(import: &str) -> &str {
    import.strip_prefix(PACKAGE).unwrap_or("").split('@').next().unwrap_or("")
}

/// Refuses what this agent does not have, before Wasmtime would do so in its own words.
fn check_imports(imports: &[String]) -> Result<(), Refusal> {
    let is_known = |import: &&String| {
        let name = interface(import);
        HARMLESS.contains(&name) || grant(import).is_some() || wasi::interface(import).is_some()
    };
    match imports.iter().find(|import| !is_known(import)) {
        None => Ok(()),
        Some(import) => {
            let granted = Grant::ALL.iter().filter(|(grant, _)| grant.is_interface());
            let names = HARMLESS.iter().copied().chain(granted.map(|(_, name)| *name));
            let known: Vec<String> = names.map(|name| format!("{PACKAGE}{name}")).collect();
            Err(Refusal::UnknownImport { import: import.clone(), known: known.join(", ") })
        }
    }
}

/// The grant without which this interface may not be imported.
fn grant(import: &str) -> Option<Grant> {
    Grant::named(interface(import)).filter(|grant| grant.is_interface())
}

/// The grants without which these interfaces may not be imported.
pub fn grants(imports: &[String]) -> impl Iterator<Item = Grant> {
    imports.iter().filter_map(|import| grant(import))
}

impl Loaded {
    /// Checks that the operator grants what it imports; in enforce mode, to this very file.
    pub fn check_grants(&self, section: &config::Policy, mode: Mode) -> Result<(), LoadError> {
        let refuse = |reason| Err(LoadError { path: self.path.clone(), reason });
        let policy = &self.manifest.name;
        let mut granted = section.grants.clone();
        for import in &self.imports {
            let Some(grant) = grant(import) else { continue };
            if !granted.contains(&grant) {
                granted.push(grant);
                return refuse(Refusal::NotGranted {
                    policy: policy.clone(),
                    import: import.clone(),
                    grants: grant_names(&granted),
                });
            }
        }
        if mode == Mode::Enforce && !self.is_pinned(section) {
            return refuse(Refusal::NotPinned {
                policy: policy.clone(),
                grants: grant_names(&section.grants),
                digest: self.digest,
            });
        }
        Ok(())
    }

    /// Whether what it is granted may be used in enforce mode: it was granted to this file, or to any,
    /// or there is nothing that needs a grant.
    #[must_use]
    pub fn is_pinned(&self, section: &config::Policy) -> bool {
        section.unpinned
            || section.digest.contains(&self.digest.to_string())
            || grants(&self.imports).next().is_none()
    }

    /// Makes an instance and gives it its settings, as [`Manifest::settings`] checked and wrote them.
    pub fn configure(
        &self,
        settings: Vec<(String, String)>,
        limits: &Limits,
        outcome: &Outcome,
    ) -> Result<Configured, LoadError> {
        self.try_configure(settings, limits, outcome).map_err(|reason| {
            if let Some(key) = reason.limit() {
                counts::limit_reached(&outcome.counts, &self.manifest.name, key);
            }
            LoadError { path: self.path.clone(), reason }
        })
    }

    fn try_configure(
        &self,
        settings: Vec<(String, String)>,
        limits: &Limits,
        outcome: &Outcome,
    ) -> Result<Configured, Refusal> {
        let policy = &self.manifest.name;
        if limits.memory < MIN_MEMORY {
            return Err(Refusal::TooLittleMemory {
                policy: policy.clone(),
                given: limits.memory,
                least: MIN_MEMORY,
            });
        }
        let beyond = |what, found, limit, key| {
            if found <= limit {
                return Ok(());
            }
            Err(Refusal::Beyond { policy: policy.clone(), what, found, limit, key })
        };
        beyond("bytes", self.size, limits.file, "file")?;
        let outcome = outcome.begin(policy, limits);
        let (instance, text) = start(&self.program, &outcome, limits, &settings)?;
        let manifest: Manifest = text.parse()?;
        if manifest.name != *policy {
            return Err(Refusal::Renamed { described: policy.clone(), configured: manifest.name });
        }
        let subscriptions = manifest.subscriptions.len();
        beyond("subscriptions", subscriptions, limits.subscriptions, "subscriptions")?;
        Ok(Configured {
            manifest,
            digest: self.digest,
            path: self.path.clone(),
            program: self.program.clone(),
            settings,
            limits: limits.clone(),
            outcome,
            instance,
        })
    }
}

/// As the configuration writes them.
fn grant_names(grants: &[Grant]) -> String {
    grants.iter().map(|grant| format!("{:?}", grant.name())).collect::<Vec<_>>().join(", ")
}

impl Configured {
    /// Keeps the names of the metrics that it made for it, without running it. Fails if another
    /// policy uses one otherwise.
    pub fn reserve_metrics(&self) -> Result<Reserved, LoadError> {
        let reserved = self.outcome.metrics.reserve();
        reserved.map_err(|error| LoadError { path: self.path.clone(), reason: error.into() })
    }
}

/// Makes an instance and configures it. Also the manifest that it returned.
pub(super) fn start(
    program: &Program,
    outcome: &PolicyOutcome,
    limits: &Limits,
    settings: &[(String, String)],
) -> Result<(Instance, String), Refusal> {
    let mut instance = Instance::new(program, outcome.clone(), limits)?;
    match instance.configure(settings)? {
        Ok(manifest) => Ok((instance, manifest)),
        Err(message) => Err(Refusal::Configure { policy: outcome.name.to_string(), message }),
    }
}
