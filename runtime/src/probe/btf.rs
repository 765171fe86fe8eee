//! The kernel's description of its own types (BTF): where members are, and what tracepoints pass.
//!
//! Only what [`super::kernel`] and the ladders ask for; the format is described in the kernel's
//! `Documentation/bpf/btf.rst`. Nothing here trusts the bytes.

use std::{fs, path::Path};

use super::error::ProbeError;

/// Where a kernel with `CONFIG_DEBUG_INFO_BTF` shows it.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Anonymous structs inside structs, and modifiers before types; deeper is a malformed file.
const MAX_DEPTH: u32 = 32;
/// Members that are looked at to find one, those of anonymous structs inside included. Kernels have
/// hundreds; structs that hold themselves several times would have more than anyone can count.
const MAX_MEMBERS: u32 = 1 << 16;

const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const FLOAT: u32 = 16;
const DECLARATION_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// A parsed BTF blob.
pub struct Btf {
    bytes: Vec<u8>,
    /// Offset of each type by its number; number 0 is `void` and has none.
    types: Vec<usize>,
    strings: usize,
    /// Numbers of the named structs, unions, enums and typedefs, sorted by name.
    named: Vec<u32>,
}

/// A type: the three words that each one begins with.
#[derive(Clone, Copy)]
struct Type {
    offset: usize,
    name: usize,
    info: u32,
    /// Size in bytes, or number of the type that this one refers to.
    size_or_id: u32,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn entries(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether members give a bit size and a bit offset in one word.
    fn has_bit_fields(self) -> bool {
        self.info >> 31 == 1
    }

    /// Bytes behind the three words.
    fn extra(self) -> Option<usize> {
        Some(match self.kind() {
            INT | VARIABLE | DECLARATION_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | SECTION | ENUM64 => self.entries() * 12,
            ENUM | PROTOTYPE => self.entries() * 8,
            POINTER | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNCTION | FLOAT
            | TYPE_TAG => 0,
            _ => return None,
        })
    }
}

impl Btf {
    /// Reads and parses the running kernel's BTF.
    pub fn of_running_kernel() -> Result<Self, ProbeError> {
        Self::from_file(Path::new(VMLINUX))
    }

    fn from_file(path: &Path) -> Result<Self, ProbeError> {
        let bytes =
            fs::read(path).map_err(|source| ProbeError::NoBtf { path: path.to_owned(), source })?;
        Self::parse(bytes).ok_or_else(|| ProbeError::MalformedBtf { path: path.to_owned() })
    }

    /// Parses a blob; `None` if it is malformed or holds a kind of type that is not known here.
    #[must_use]
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        if bytes.get(..2)? != MAGIC.to_le_bytes() {
            return None;
        }
        let header = word(&bytes, 4)? as usize;
        let (type_offset, type_length) = (word(&bytes, 8)? as usize, word(&bytes, 12)? as usize);
        let strings = header.checked_add(word(&bytes, 16)? as usize)?;
        let mut offset = header.checked_add(type_offset)?;
        let end = offset.checked_add(type_length)?;
        if end > bytes.len() || strings > bytes.len() {
            return None;
        }
        let mut btf = Self { bytes, types: vec![0], strings, named: Vec::new() };
        while offset < end {
            let ty = btf.type_at(offset)?;
            if matches!(ty.kind(), STRUCT | UNION | ENUM | ENUM64 | TYPEDEF) && ty.name != 0 {
                btf.named.push(u32::try_from(btf.types.len()).ok()?);
            }
            btf.types.push(offset);
            offset = offset.checked_add(12)?.checked_add(ty.extra()?)?;
        }
        let mut named = std::mem::take(&mut btf.named);
        named.sort_by(|&left, &right| btf.name_of(left).cmp(btf.name_of(right)));
        btf.named = named;
        Some(btf)
    }

    /// Offset of a member in bytes; members of anonymous structs and unions inside count as the
    /// struct's own. `None` if there is no such member, or it is a bit field.
    #[must_use]
    pub fn member_offset(&self, structure: &str, member: &str) -> Option<u32> {
        let ty = self.named(structure, &[STRUCT, UNION])?;
        let bits = self.member_bits(ty, member, MAX_DEPTH, &mut { MAX_MEMBERS })?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether a struct, or a struct or union without a type name inside it, has such a member.
    #[must_use]
    pub fn has_member_within(&self, structure: &str, member: &str) -> bool {
        self.named(structure, &[STRUCT, UNION])
            .is_some_and(|ty| self.within(ty, member, MAX_DEPTH, &mut { MAX_MEMBERS }))
    }

    fn within(&self, ty: Type, member: &str, depth: u32, left: &mut u32) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        (0..ty.entries()).map(|index| ty.offset + 12 + index * 12).any(|entry| {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
            let name = word(&self.bytes, entry).and_then(|name| self.string(name as usize));
            let inner = word(&self.bytes, entry + 4).and_then(|id| self.get(id));
            name == Some(member.as_bytes())
                || inner.is_some_and(|inner| {
                    matches!(inner.kind(), STRUCT | UNION)
                        && inner.name == 0
                        && self.within(inner, member, depth, left)
                })
        })
    }

    /// Size of a struct in bytes.
    #[must_use]
    pub fn size(&self, structure: &str) -> Option<u32> {
        Some(self.named(structure, &[STRUCT, UNION])?.size_or_id)
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let ty = self.named(enumeration, &[ENUM, ENUM64])?;
        let step = if ty.kind() == ENUM { 8 } else { 12 };
        (0..ty.entries()).map(|index| ty.offset + 12 + index * step).find_map(|entry| {
            let entry_name = word(&self.bytes, entry)? as usize;
            (self.string(entry_name)? == name.as_bytes()).then(|| word(&self.bytes, entry + 4))?
        })
    }

    /// What a tracepoint passes to a raw tracepoint program, as C writes the types.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let pointer = self.get(self.named(&format!("btf_trace_{name}"), &[TYPEDEF])?.size_or_id)?;
        let prototype = self.get(pointer.size_or_id)?;
        if pointer.kind() != POINTER || prototype.kind() != PROTOTYPE {
            return None;
        }
        // The first parameter is the tracepoint's own data, which programs do not see.
        (1..prototype.entries())
            .map(|index| {
                let ty = word(&self.bytes, prototype.offset + 12 + index * 8 + 4)?;
                self.spelled(ty, MAX_DEPTH)
            })
            .collect()
    }

    fn spelled(&self, id: u32, depth: u32) -> Option<String> {
        if id == 0 {
            return Some("void".to_owned());
        }
        let depth = depth.checked_sub(1)?;
        let ty = self.get(id)?;
        let name = String::from_utf8_lossy(self.string(ty.name)?).into_owned();
        Some(match ty.kind() {
            POINTER => format!("{} *", self.spelled(ty.size_or_id, depth)?).replace("* *", "**"),
            CONST => format!("const {}", self.spelled(ty.size_or_id, depth)?),
            VOLATILE | RESTRICT | TYPE_TAG => self.spelled(ty.size_or_id, depth)?,
            STRUCT | FORWARD => format!("struct {name}"),
            UNION => format!("union {name}"),
            ENUM | ENUM64 => format!("enum {name}"),
            _ => name,
        })
    }

    fn member_bits(&self, ty: Type, member: &str, depth: u32, left: &mut u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        (0..ty.entries()).map(|index| ty.offset + 12 + index * 12).find_map(|entry| {
            *left = left.checked_sub(1)?;
            let name = self.string(word(&self.bytes, entry)? as usize)?;
            let mut bits = word(&self.bytes, entry + 8)?;
            if ty.has_bit_fields() {
                bits &= 0x00ff_ffff;
            }
            if name == member.as_bytes() {
                return Some(bits);
            }
            let inner = self.get(word(&self.bytes, entry + 4)?)?;
            let anonymous = name.is_empty() && matches!(inner.kind(), STRUCT | UNION);
            anonymous.then(|| self.member_bits(inner, member, depth, left)?.checked_add(bits))?
        })
    }

    /// The first type of that name that is of one of these kinds.
    fn named(&self, name: &str, kinds: &[u32]) -> Option<Type> {
        let start = self.named.partition_point(|&id| self.name_of(id) < name.as_bytes());
        self.named[start..]
            .iter()
            .take_while(|&&id| self.name_of(id) == name.as_bytes())
            .filter_map(|&id| self.get(id))
            .find(|ty| kinds.contains(&ty.kind()))
    }

    fn name_of(&self, id: u32) -> &[u8] {
        self.get(id).and_then(|ty| self.string(ty.name)).unwrap_or_default()
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.type_at(*self.types.get(id as usize).filter(|_| id != 0)?)
    }

    fn type_at(&self, offset: usize) -> Option<Type> {
        Some(Type {
            offset,
            name: word(&self.bytes, offset)? as usize,
            info: word(&self.bytes, offset + 4)?,
            size_or_id: word(&self.bytes, offset + 8)?,
        })
    }

    fn string(&self, offset: usize) -> Option<&[u8]> {
        self.bytes.get(self.strings.checked_add(offset)?..)?.split(|&byte| byte == 0).next()
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types are numbered from 1 in the order in which they are added.
    #[derive(Default)]
    struct Blob {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Blob {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let offset = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend(name.bytes().chain([0]));
            offset
        }

        fn ty(&mut self, name: &str, kind: u32, entries: usize, size_or_id: u32) -> &mut Self {
            let name = self.name(name);
            let info = kind << 24 | u32::try_from(entries).unwrap();
            self.words(&[name, info, size_or_id])
        }

        fn words(&mut self, words: &[u32]) -> &mut Self {
            self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (
                u32::try_from(self.types.len()).unwrap(),
                u32::try_from(self.strings.len()).unwrap(),
            );
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }
    }

    fn crafted() -> Vec<u8> {
        let mut blob = Blob::default();
        let (a, b, c) = (blob.name("a"), blob.name("b"), blob.name("c"));
        blob.ty("int", INT, 0, 4).words(&[0x0100_0020]); // 1
        blob.ty("", UNION, 2, 8).words(&[b, 1, 0, c, 1, 32]); // 2
        blob.ty("outer", STRUCT, 2, 16).words(&[a, 1, 0, 0, 2, 64]); // 3
        let (red, green) = (blob.name("RED"), blob.name("GREEN"));
        blob.ty("colour", ENUM, 2, 4).words(&[red, 0, green, 7]); // 4
        blob.ty("", POINTER, 0, 3); // 5
        blob.ty("", PROTOTYPE, 3, 0).words(&[0, 0, 0, 5, 0, 1]); // 6
        blob.ty("", POINTER, 0, 6); // 7
        blob.ty("btf_trace_thing", TYPEDEF, 0, 7); // 8
        blob.bytes()
    }

    #[test]
    fn members_of_anonymous_unions_count_as_the_structs_own() {
        let btf = Btf::parse(crafted()).unwrap();
        assert_eq!(btf.member_offset("outer", "a"), Some(0));
        assert_eq!(btf.member_offset("outer", "b"), Some(8));
        assert_eq!(btf.member_offset("outer", "c"), Some(12));
        assert_eq!(btf.member_offset("outer", "d"), None);
        assert_eq!(btf.member_offset("inner", "a"), None);
        assert_eq!(btf.size("outer"), Some(16));
    }

    #[test]
    fn enumerators_and_tracepoints_are_found_by_name() {
        let btf = Btf::parse(crafted()).unwrap();
        assert_eq!(btf.enumerator("colour", "GREEN"), Some(7));
        assert_eq!(btf.enumerator("colour", "BLUE"), None);
        assert_eq!(btf.tracepoint("thing").unwrap(), ["struct outer *", "int"]);
        assert_eq!(btf.tracepoint("other"), None);
    }

    #[test]
    fn a_blob_cut_anywhere_or_with_any_byte_changed_is_survived() {
        let blob = crafted();
        for length in 0..blob.len() {
            drop(Btf::parse(blob[..length].to_vec()));
        }
        for index in 0..blob.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = blob.clone();
                changed[index] = value;
                if let Some(btf) = Btf::parse(changed) {
                    let _ = (
                        btf.member_offset("outer", "c"),
                        btf.enumerator("colour", "GREEN"),
                        btf.tracepoint("thing"),
                    );
                }
            }
        }
    }

    #[test]
    fn a_struct_that_holds_itself_without_a_name_ends() {
        let mut blob = Blob::default();
        blob.ty("loop", STRUCT, 1, 8).words(&[0, 1, 0]);
        assert_eq!(Btf::parse(blob.bytes()).unwrap().member_offset("loop", "a"), None);
        // Three times: as many ways as 3 to the power of the depth.
        let mut blob = Blob::default();
        blob.ty("loop", STRUCT, 3, 8).words(&[0, 1, 0, 0, 1, 0, 0, 1, 0]);
        blob.ty("", STRUCT, 3, 8).words(&[0, 2, 0, 0, 2, 0, 0, 2, 0]);
        blob.ty("outer", STRUCT, 1, 8).words(&[0, 2, 0]);
        let btf = Btf::parse(blob.bytes()).unwrap();
        assert_eq!(btf.member_offset("loop", "a"), None);
        assert!(!btf.has_member_within("outer", "a"));
    }

    #[test]
    fn the_running_kernel_tells_where_members_are_and_what_tracepoints_pass() {
        let btf = match Btf::of_running_kernel() {
            Ok(btf) => btf,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return;
            }
        };
        assert_eq!(btf.member_offset("list_head", "prev"), Some(8));
        assert_eq!(btf.size("list_head"), Some(16));
        assert!(btf.member_offset("task_struct", "tgid") > btf.member_offset("task_struct", "pid"));
        assert_eq!(btf.enumerator("pid_type", "PIDTYPE_PID"), Some(0));
        assert_eq!(
            btf.tracepoint("sched_process_fork").unwrap(),
            ["struct task_struct *", "struct task_struct *"]
        );
    }
}
