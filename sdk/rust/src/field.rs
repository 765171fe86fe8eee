//! Types of fields, and where they lie in a row.

use std::net::{IpAddr, Ipv6Addr};

use crate::row::{Fixed, HEADER};

/// A type that a value in a row can have.
#[diagnostic::on_unimplemented(
    message = "a field of an event cannot be a `{Self}`",
    label = "not a type that a row can hold",
    note = "there are u8, u16, u32, u64, i32, i64, bool, &str, &[u8], tipstaff::List, std::net::IpAddr, and Option of these"
)]
pub trait Value<'a>: Sized {
    /// Name in the manifest.
    const TYPE: &'static str;
    /// Size in the fixed part, in bytes.
    const SIZE: usize;
    /// Alignment, in bytes.
    const ALIGN: usize;
    /// Reads the value at `offset`.
    fn get(row: Fixed<'a>, offset: usize) -> Self;
}

/// A [`Value`], or an `Option` of one: a field that may be missing.
#[diagnostic::on_unimplemented(
    message = "a field of an event cannot be a `{Self}`",
    label = "not a type that a row can hold",
    note = "there are u8, u16, u32, u64, i32, i64, bool, &str, &[u8], tipstaff::List, std::net::IpAddr, and Option of these"
)]
pub trait Field<'a>: Sized {
    /// How the field lies in a row; the name is left empty.
    const COLUMN: Column;
    /// Reads the field at its place.
    fn read(row: Fixed<'a>, place: Place) -> Self;
}

impl<'a, V: Value<'a>> Field<'a> for V {
    const COLUMN: Column =
        Column { name: "", ty: V::TYPE, size: V::SIZE, align: V::ALIGN, optional: false };

    #[inline]
    fn read(row: Fixed<'a>, place: Place) -> Self {
        V::get(row, place.offset)
    }
}

impl<'a, V: Value<'a>> Field<'a> for Option<V> {
    const COLUMN: Column =
        Column { name: "", ty: V::TYPE, size: V::SIZE, align: V::ALIGN, optional: true };

    #[inline]
    fn read(row: Fixed<'a>, place: Place) -> Self {
        row.is_present(place.bit).then(|| V::get(row, place.offset))
    }
}

/// What a manifest says of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the field.
    pub name: &'static str,
    /// Name of its type.
    pub ty: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Whether it may be missing.
    pub optional: bool,
}

impl Column {
    /// The same, with a name.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// Where a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset from the start of the row, in bytes.
    pub offset: usize,
    /// Bit in the header's mask, if the field is optional.
    pub bit: u32,
}

/// Where the field of this index lies: the C layout of the listed fields behind the header.
#[must_use]
pub const fn place(columns: &[Column], index: usize) -> Place {
    let mut place = Place { offset: HEADER, bit: 0 };
    let mut at = 0;
    loop {
        place.offset = place.offset.next_multiple_of(columns[at].align);
        if at == index {
            assert!(
                place.bit < 32 || !columns[at].optional,
                "an event has at most 32 optional fields"
            );
            return place;
        }
        place.offset += columns[at].size;
        place.bit += columns[at].optional as u32;
        at += 1;
    }
}

/// Where the fixed part ends, in bytes from the start of the row.
#[must_use]
pub const fn end(columns: &[Column]) -> usize {
    match columns.len() {
        0 => HEADER,
        n => place(columns, n - 1).offset + columns[n - 1].size,
    }
}

macro_rules! numbers {
    ($($ty:ident)+) => { $(
        impl<'a> Value<'a> for $ty {
            const TYPE: &'static str = stringify!($ty);
            const SIZE: usize = size_of::<$ty>();
            const ALIGN: usize = size_of::<$ty>();

            #[inline]
            fn get(row: Fixed<'a>, offset: usize) -> Self {
                row.$ty(offset)
            }
        }
    )+ };
}

numbers! { u8 u16 u32 u64 i32 i64 }

impl<'a> Value<'a> for bool {
    const TYPE: &'static str = "u8";
    const SIZE: usize = 1;
    const ALIGN: usize = 1;

    #[inline]
    fn get(row: Fixed<'a>, offset: usize) -> Self {
        row.u8(offset) != 0
    }
}

impl<'a> Value<'a> for &'a str {
    const TYPE: &'static str = "text";
    const SIZE: usize = 8;
    const ALIGN: usize = 4;

    #[inline]
    fn get(row: Fixed<'a>, offset: usize) -> Self {
        str::from_utf8(row.bytes(offset)).expect("the agent promises UTF-8")
    }
}

impl<'a> Value<'a> for &'a [u8] {
    const TYPE: &'static str = "bytes";
    const SIZE: usize = 8;
    const ALIGN: usize = 4;

    #[inline]
    fn get(row: Fixed<'a>, offset: usize) -> Self {
        row.bytes(offset)
    }
}

impl<'a> Value<'a> for IpAddr {
    const TYPE: &'static str = "address";
    const SIZE: usize = 16;
    const ALIGN: usize = 8;

    #[inline]
    fn get(row: Fixed<'a>, offset: usize) -> Self {
        Ipv6Addr::from(row.array::<16>(offset)).to_canonical()
    }
}

/// Several strings, as in `args` of `exec` or `proc.ancestors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List<'a>(&'a str);

impl<'a> List<'a> {
    /// The strings, in order.
    #[must_use]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = &'a str> {
        self.0.split_terminator('\0')
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The strings with a space between them, for a message.
    #[must_use]
    pub fn joined(self) -> String {
        self.0.trim_end_matches('\0').replace('\0', " ")
    }
}

impl<'a> Value<'a> for List<'a> {
    const TYPE: &'static str = "text";
    const SIZE: usize = 8;
    const ALIGN: usize = 4;

    #[inline]
    fn get(row: Fixed<'a>, offset: usize) -> Self {
        Self(<&str>::get(row, offset))
    }
}
