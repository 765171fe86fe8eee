//! Any tracepoint of the running kernel as a kind, from what its `format` in tracefs says.

use std::{fs, io};

use tipstaff_events::{
    Role,
    catalogue::COMMON,
    tracepoint::{MAX_BYTES, MAX_LOCATIONS, RELATIVE},
    wire::{ABSENT, Header},
};

use super::{
    error::ProbeError,
    family::{At, Hook, Part, Rung},
    mount::Tracefs,
};
use crate::kind::{Field, From, Kind, Repr, RingName};

/// Name of the object and of its program.
pub(super) const OBJECT: &str = "tracepoint";
const PROGRAM: &str = "any";
/// Largest offset of the first own field.
const MAX_FIRST: u16 = 16;

#[expect(clippy::cast_possible_truncation, reason = "64")]
const HEADER: u16 = size_of::<Header>() as u16;

/// A tracepoint, as its `format` describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tracepoint {
    category: String,
    name: String,
    /// Offset of the first own field in the tracepoint's record.
    first: u16,
    /// Bytes of the record.
    bytes: u16,
    fields: Vec<Member>,
    /// Fields that cannot be told, as declared.
    left_out: Vec<String>,
}

/// One field of a record.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    name: String,
    offset: u16,
    repr: Repr,
}

impl Tracepoint {
    /// Reads the format of `CATEGORY:NAME`.
    pub(super) fn find(spec: &str, tracefs: &Tracefs) -> Result<Self, ProbeError> {
        let refused = |reason: String| ProbeError::Tracepoint { spec: spec.to_owned(), reason };
        let plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let (category, name) = spec
            .split_once(':')
            .filter(|(category, name)| plain(category) && plain(name))
            .ok_or_else(|| {
                refused("expected CATEGORY:NAME, as in sched:sched_process_exec".to_owned())
            })?;
        let path = tracefs.event(category, name).join("format");
        let text = fs::read_to_string(path).map_err(|error| {
            refused(match error.kind() {
                io::ErrorKind::NotFound => {
                    "this kernel has no such tracepoint; events/ in tracefs lists all by category"
                        .to_owned()
                }
                _ => format!("its format cannot be read: {error}"),
            })
        })?;
        Self::parse(category, name, &text).map_err(refused)
    }

    fn parse(category: &str, name: &str, format: &str) -> Result<Self, String> {
        let mut tracepoint = Self {
            category: category.to_owned(),
            name: name.to_owned(),
            first: 0,
            bytes: 0,
            fields: Vec::new(),
            left_out: Vec::new(),
        };
        // The fields that every tracepoint has come first, and end with an empty line.
        let mut own = false;
        for line in format.lines() {
            let line = line.trim();
            if line.is_empty() && tracepoint.bytes > 0 {
                own = true;
            }
            let Some(field) = line.strip_prefix("field:") else { continue };
            let field = Declared::parse(field)
                .ok_or_else(|| format!("its format has a line that is not understood: {line}"))?;
            let end = field.offset.checked_add(field.size).filter(|end| *end <= MAX_BYTES);
            tracepoint.bytes = tracepoint
                .bytes
                .max(end.ok_or_else(|| format!("its record is larger than {MAX_BYTES} bytes"))?);
            if own {
                tracepoint.add(&field);
            } else {
                tracepoint.first = tracepoint.bytes.next_multiple_of(8);
            }
        }
        if tracepoint.bytes == 0 || tracepoint.first > MAX_FIRST {
            return Err("its format is not as expected".to_owned());
        }
        Ok(tracepoint)
    }

    fn add(&mut self, declared: &Declared) {
        let locations =
            self.fields.iter().filter(|member| matches!(member.repr, Repr::DataLoc { .. })).count();
        match declared.repr() {
            Some(Repr::DataLoc { .. }) if locations == MAX_LOCATIONS => {
                self.left_out
                    .push(format!("{} (only {MAX_LOCATIONS} strings are read)", declared.name));
            }
            Some(repr) => self.fields.push(Member {
                // A kind has some names already.
                name: if COMMON.iter().any(|common| common.name == declared.name) {
                    format!("tp_{}", declared.name)
                } else {
                    declared.name.to_owned()
                },
                offset: declared.offset,
                repr,
            }),
            None => self.left_out.push(format!("{} ({})", declared.name, declared.ty)),
        }
    }

    /// The kind that this tracepoint is.
    pub(super) fn kind(&self, id: u16, name: &str) -> Kind {
        let left_out = if self.left_out.is_empty() {
            String::new()
        } else {
            format!(" Left out: {}.", self.left_out.join(", "))
        };
        let doc = format!("The tracepoint {}:{}.{left_out}", self.category, self.name);
        let fields = self
            .fields
            .iter()
            .map(|member| Field {
                name: member.name.clone().into(),
                unit: "".into(),
                doc: "".into(),
                from: From::Record { offset: HEADER + member.offset, repr: member.repr },
                wanted: 0,
                absent: 0,
                role: Role::Key,
            })
            .collect();
        Kind {
            id,
            name: name.to_owned().into(),
            doc: doc.into(),
            ring: RingName::Bulk,
            size: HEADER + self.bytes,
            fields,
        }
    }

    /// The constants of the object for this tracepoint, by symbol.
    pub(super) fn constants(&self, kind: u16) -> [(&'static str, Vec<u32>); 5] {
        let mut locations: Vec<u32> = self
            .fields
            .iter()
            .filter_map(|member| match member.repr {
                Repr::DataLoc { relative, .. } => {
                    Some(u32::from(member.offset) | if relative { RELATIVE } else { 0 })
                }
                _ => None,
            })
            .collect();
        locations.resize(MAX_LOCATIONS, ABSENT);
        [
            ("KIND", vec![kind.into()]),
            ("BYTES", vec![self.bytes.into()]),
            ("FIRST", vec![self.first.into()]),
            ("LOCATIONS", locations),
            ("IN_PROCESS", vec![u32::from(self.is_of_calls())]),
        ]
    }

    /// Whether it is of system calls: these alone are sure never to come in an interrupt, where the
    /// current process is whichever was interrupted.
    fn is_of_calls(&self) -> bool {
        ["syscalls", "raw_syscalls"].contains(&self.category.as_str())
    }

    /// Its one probe. Only the classic hook has the record that `format` describes.
    pub(super) fn with_part(&self, kind: u16, each: impl FnOnce(&Part)) {
        let at = At::Classic { category: &self.category, name: &self.name };
        let hooks = [Hook { program: PROGRAM, at }];
        let ladder = [Rung { hooks: &hooks, lacks: None }];
        each(&Part { kinds: &[kind], fields: 0, without: None, ladder: &ladder });
    }
}

/// A line of a `format`: `char comm[16]; offset:8; size:16; signed:0;`, with tabs between.
struct Declared<'a> {
    /// Type without the name, an array's length left in place.
    ty: String,
    name: &'a str,
    offset: u16,
    size: u16,
    signed: bool,
}

impl<'a> Declared<'a> {
    fn parse(field: &'a str) -> Option<Self> {
        let mut parts = field.split(';').map(str::trim);
        let declaration = parts.next()?;
        let mut number = |key: &str| -> Option<u16> {
            parts.next()?.strip_prefix(key)?.strip_prefix(':')?.parse().ok()
        };
        let (offset, size, signed) = (number("offset")?, number("size")?, number("signed")? != 0);
        let (before, array) = match declaration.rfind('[') {
            // `char comm[16]`: the length stands behind the name; `__data_loc char[] x`: before it.
            Some(at) if declaration.ends_with(']') => declaration.split_at(at),
            _ => (declaration, ""),
        };
        let (ty, name) = before.trim_end().rsplit_once(' ')?;
        let (name, pointer) = name.strip_prefix('*').map_or((name, ""), |name| (name, "*"));
        Some(Self { ty: format!("{}{pointer}{array}", ty.trim()), name, offset, size, signed })
    }

    fn repr(&self) -> Option<Repr> {
        let ty = self.ty.trim_start_matches("const ");
        match ty {
            "__data_loc char[]" => Some(Repr::DataLoc { base: HEADER, relative: false }),
            "__rel_loc char[]" => Some(Repr::DataLoc { base: HEADER, relative: true }),
            _ if ty.starts_with("char[") => Some(Repr::Chars(self.size)),
            _ if ty.contains('[')
                || ty.starts_with("__data_loc")
                || ty.starts_with("__rel_loc") =>
            {
                None
            }
            _ if matches!(ty.split_once(' '), Some(("struct" | "union", _)))
                && !ty.ends_with('*') =>
            {
                None
            }
            _ => {
                let size =
                    u8::try_from(self.size).ok().filter(|size| matches!(size, 1 | 2 | 4 | 8))?;
                Some(Repr::Int { size, signed: self.signed })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: x\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

    fn parsed(own: &str) -> Tracepoint {
        Tracepoint::parse("c", "n", &format!("{HEAD}{own}\nprint fmt: \"field: %d\", REC->x\n"))
            .unwrap()
    }

    fn fields(tracepoint: &Tracepoint) -> Vec<(&str, u16, Repr)> {
        tracepoint
            .fields
            .iter()
            .map(|member| (member.name.as_str(), member.offset, member.repr))
            .collect()
    }

    #[test]
    fn strings_integers_and_names_that_a_kind_has_already() {
        // sched:sched_process_exec of Linux 6.18
        let found = parsed(
            "\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
             \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\
             \tfield:pid_t old_pid;\toffset:16;\tsize:4;\tsigned:1;\n",
        );
        let int = Repr::Int { size: 4, signed: true };
        assert_eq!(
            fields(&found),
            [
                ("filename", 8, Repr::DataLoc { base: 64, relative: false }),
                ("tp_pid", 12, int),
                ("old_pid", 16, int)
            ]
        );
        assert_eq!((found.first, found.bytes), (8, 20));
        assert_eq!(
            found.constants(70),
            [
                ("KIND", vec![70]),
                ("BYTES", vec![20]),
                ("FIRST", vec![8]),
                ("LOCATIONS", vec![8, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT]),
                ("IN_PROCESS", vec![0]),
            ]
        );
        let kind = found.kind(70, "execs");
        assert_eq!((kind.id, kind.size, &*kind.doc), (70, 84, "The tracepoint c:n."));
        assert_eq!(kind.fields[1].from, From::Record { offset: 76, repr: int });
    }

    #[test]
    fn arrays_structs_and_other_locations_are_left_out_by_name() {
        // block:block_rq_complete and syscalls:sys_enter_openat of Linux 6.18, and made-up ones
        let found = parsed(
            "\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
             \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
             \tfield:char rwbs[10];\toffset:24;\tsize:10;\tsigned:0;\n\
             \tfield:const char * filename;\toffset:40;\tsize:8;\tsigned:0;\n\
             \tfield:__u8 saddr_v6[16];\toffset:48;\tsize:16;\tsigned:0;\n\
             \tfield:__data_loc cpumask_t mask;\toffset:64;\tsize:4;\tsigned:0;\n\
             \tfield:__rel_loc char[] late;\toffset:68;\tsize:4;\tsigned:0;\n\
             \tfield:struct timespec at;\toffset:72;\tsize:8;\tsigned:0;\n\
             \tfield:void *skbaddr;\toffset:80;\tsize:8;\tsigned:0;\n\
             \tfield:bool on;\toffset:88;\tsize:1;\tsigned:0;\n",
        );
        let word = Repr::Int { size: 8, signed: false };
        assert_eq!(
            fields(&found),
            [
                ("dev", 8, Repr::Int { size: 4, signed: false }),
                ("sector", 16, word),
                ("rwbs", 24, Repr::Chars(10)),
                ("filename", 40, word),
                ("late", 68, Repr::DataLoc { base: 64, relative: true }),
                ("skbaddr", 80, word),
                ("on", 88, Repr::Int { size: 1, signed: false }),
            ]
        );
        assert_eq!(
            found.left_out,
            ["saddr_v6 (__u8[16])", "mask (__data_loc cpumask_t)", "at (struct timespec)"]
        );
    }

    #[test]
    fn a_format_that_is_not_one_is_refused() {
        for text in ["", "hello", "field:int x", "field:int x;\toffset:a;\tsize:4;\tsigned:1;"] {
            assert!(Tracepoint::parse("c", "n", text).is_err(), "{text}");
        }
        let large = format!("{HEAD}\tfield:char x[4096];\toffset:8;\tsize:4096;\tsigned:0;\n");
        assert_eq!(
            Tracepoint::parse("c", "n", &large).unwrap_err(),
            "its record is larger than 2048 bytes"
        );
    }
}
