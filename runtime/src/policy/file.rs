//! A policy's file: what it is, before anything looks inside.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Refusal;

/// Largest file that is read, in bytes. Python's components have 18 MB.
pub const MAX_FILE: u64 = 128 << 20;
/// What every WebAssembly file begins with.
const MAGIC: &[u8] = b"\0asm";
/// Name of the custom section in which the Rust SDK keeps the manifest.
const SECTION: &str = "tipstaff:manifest";

/// SHA-256 of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Copies what can be read. The digest of what was copied.
    pub fn of_copy(mut from: impl Read, mut to: impl Write) -> io::Result<Self> {
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    to.write_all(&buffer[..read])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// In hexadecimal, without the algorithm's name.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// `sha256:` and hexadecimal digits, as in the configuration's `digest`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// Reads a policy's file, once: whatever is decided later is decided on these bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    read_open(&File::open(path)?)
}

/// The same for a file that is open already.
pub fn read_open(file: &File) -> Result<Vec<u8>, Refusal> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile);
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    let size = u64::try_from(bytes.len()).map_err(io::Error::other)?;
    if size > MAX_FILE { Err(Refusal::TooLarge(metadata.len().max(size))) } else { Ok(bytes) }
}

/// Refuses what does not begin as WebAssembly does. Reads the first bytes only.
pub fn check_magic(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    if bytes.starts_with(MAGIC) {
        return Ok(());
    }
    let head = &bytes[..bytes.len().min(256)];
    // The last character may be cut in two.
    let is_text = match str::from_utf8(head) {
        Ok(text) => !text.contains('\0'),
        Err(error) => error.error_len().is_none() && head.len() == 256,
    };
    if is_text {
        return Err(Refusal::Text);
    }
    let found: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Err(Refusal::NotWasm(format!("`{}`", found.join(" "))))
}

/// What a file says about itself in custom sections, which anyone can change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sections {
    /// The manifest as the SDK wrote it.
    pub manifest: Option<String>,
    /// Whether `wit-bindgen` left its metadata, from which a module becomes a component.
    pub has_metadata: bool,
    /// Whether it is a component already.
    pub is_component: bool,
}

/// Reads the custom sections, those of modules inside a component as well. Compiles nothing.
pub fn sections(bytes: &[u8]) -> Result<Sections, Refusal> {
    use wasmparser::{Encoding, Parser, Payload};

    let mut sections =
        Sections { is_component: Parser::is_component(bytes), ..Sections::default() };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| broken(&error))? {
            Payload::Version { encoding, range, .. } if range.start == 0 => {
                sections.is_component = encoding == Encoding::Component;
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                sections.manifest = str::from_utf8(section.data()).ok().map(str::to_owned);
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                sections.has_metadata = true;
            }
            _ => {}
        }
    }
    Ok(sections)
}

/// The interfaces that a component imports and exports. Compiles nothing.
pub fn interfaces(component: &[u8]) -> Result<(Vec<String>, Vec<String>), Refusal> {
    use wasmparser::{Parser, Payload};

    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0u32);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| broken(&error))? {
            // Only what is outermost counts.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(|error| broken(&error))?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(|error| broken(&error))?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// What is wrong with the bytes.
pub fn broken(error: &wasmparser::BinaryReaderError) -> Refusal {
    let what = if error.message().starts_with("unexpected end") {
        "is truncated"
    } else {
        "is not valid WebAssembly"
    };
    Refusal::Component(format!("{what}: {} at offset {:#x}", error.message(), error.offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        check_magic(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_webassembly_is_named() {
        assert_eq!(message(b""), "is empty, expected a WebAssembly component or module");
        assert!(message(b"(module)").starts_with("is a text file"));
        assert!(message("é".repeat(200).as_bytes()).starts_with("is a text file"));
        assert!(
            message(&[b"a".repeat(255), "é".as_bytes().to_vec()].concat())
                .starts_with("is a text file")
        );
        assert!(message(b"\x7fELF\x02\x01\0\xff").contains("it begins with `7f 45 4c 46`"));
        assert!(message(b"\0as").contains("`00 61 73`"));
        assert!(check_magic(b"\0asm").is_ok());
    }

    #[test]
    fn a_digest_is_written_as_the_configuration_wants_it() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_directory_is_no_policy() {
        assert!(matches!(read(Path::new("/")), Err(Refusal::NotAFile)));
        assert!(matches!(read(Path::new("/nonexistent")), Err(Refusal::Read(_))));
    }

    #[test]
    fn sections_are_found_also_inside_a_component() {
        let module = "(module (@custom \"tipstaff:manifest\" \"name = 1\") (@custom \"component-type:x\" \"\"))";
        let found = sections(&wat::parse_str(module).unwrap()).unwrap();
        assert_eq!(
            found,
            Sections { manifest: Some("name = 1".into()), has_metadata: true, is_component: false }
        );
        let component = format!("(component (core {}", module.trim_start_matches('(')) + ")";
        let found = sections(&wat::parse_str(component).unwrap()).unwrap();
        assert_eq!((found.manifest.as_deref(), found.is_component), (Some("name = 1"), true));
    }

    proptest::proptest! {
        #[test]
        fn whatever_follows_the_magic_is_read_or_refused(is_component: bool, rest: Vec<u8>) {
            let mut bytes = b"\0asm\x01\0\0\0".to_vec();
            if is_component {
                bytes[4..].copy_from_slice(&[0x0d, 0, 1, 0]);
            }
            bytes.extend(rest);
            let _ = sections(&bytes);
            let _ = interfaces(&bytes);
        }
    }

    #[test]
    fn a_truncated_module_is_called_so() {
        let module = wat::parse_str("(module (func (export \"f\")))").unwrap();
        let error = sections(&module[..module.len() - 3]).unwrap_err().to_string();
        assert!(error.starts_with("is truncated: unexpected end"), "{error}");
    }
}
