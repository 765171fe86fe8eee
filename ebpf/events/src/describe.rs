//! How a kind is written in the catalogue, and what is made of it. Used there only, and with what is
//! imported there.

/// Rust type of a field in the record.
macro_rules! wire_type {
    (U8) => {
        u8
    };
    (U16) => {
        u16
    };
    (U32) => {
        u32
    };
    (U64) => {
        u64
    };
    (I32) => {
        i32
    };
    (I64) => {
        i64
    };
    (Address) => {
        [u8; 16]
    };
    (Text) => {
        Text
    };
    (List) => {
        Text
    };
    (Histogram) => {
        Text
    };
    (Name) => {
        u8
    };
}

/// What a field is in a row of an aggregated kind.
macro_rules! role {
    () => {
        Role::Key
    };
    (sum) => {
        Role::Sum
    };
    (least) => {
        Role::Least
    };
    (greatest) => {
        Role::Greatest
    };
}

/// Writes, for each kind: the struct of its record, a module with the bits of its fields, and its
/// entry in `KINDS`.
///
/// Fields stand in descending order of alignment; `pad` fills the struct up to a multiple of 8. A kind
/// with fields that say how they add up (`sum`, `least`, `greatest`) is an aggregated one.
macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])+
        $record:ident $kind:ident = $id:literal in $ring:ident, pad $pad:literal {
            $(
                $(#[doc = $field_doc:literal])+
                $field:ident: $ty:ident $(($names:expr))?, $unit:literal $(, $role:ident)?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $record {
                /// What every record begins with.
                pub header: Header,
                $(
                    $(#[doc = $field_doc])+
                    pub $field: wire_type!($ty),
                )+
                /// Fills the record up to a multiple of 8 bytes; 0.
                pub pad: [u8; $pad],
            }

            impl Record for $record {
                const KIND: u16 = $id;
                const RING: Ring = Ring::$ring;
            }

            // Padding that the compiler adds would reach user space uninitialised.
            const _: () = assert!(
                size_of::<$record>()
                    == size_of::<Header>() + $(size_of::<wire_type!($ty)>() +)+ $pad
                && size_of::<$record>().is_multiple_of(8)
            );

            #[doc = concat!("Numbers and bits of the kind `", stringify!($kind), "`.")]
            #[allow(non_camel_case_types, non_upper_case_globals, dead_code, reason = "names are those of the fields")]
            pub mod $kind {
                enum Index { $($field),+ }
                /// Number of the kind.
                pub const KIND: u16 = $id;
                $(
                    #[doc = concat!("Bit of the field `", stringify!($field), "`, in `WANTED` and in `Header::absent`.")]
                    pub const $field: u32 = 1 << Index::$field as u32;
                )+
            }
        )+

        /// Every built-in kind, by ascending number.
        pub static KINDS: &[Kind] = &[$(
            Kind {
                id: $id,
                name: stringify!($kind),
                doc: &[$($doc),+],
                ring: Ring::$ring,
                #[expect(clippy::cast_possible_truncation, reason = "records are far below 64 KiB")]
                size: size_of::<$record>() as u16,
                fields: &[$(
                    Field {
                        name: stringify!($field),
                        ty: Type::$ty $(($names))?,
                        unit: $unit,
                        doc: &[$($field_doc),+],
                        #[expect(clippy::cast_possible_truncation, reason = "records are far below 64 KiB")]
                        offset: core::mem::offset_of!($record, $field) as u16,
                        wanted: $kind::$field as u64,
                        absent: $kind::$field,
                        role: role!($($role)?),
                    },
                )+],
            },
        )+];
    };
}

macro_rules! common {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ident, $unit:literal, $wanted:expr;)+) => {
        /// The fields that every built-in kind has, from the record's header.
        pub static COMMON: &[Field] = &[$(
            Field {
                name: stringify!($field),
                ty: Type::$ty,
                unit: $unit,
                doc: &[$($doc),+],
                #[expect(clippy::cast_possible_truncation, reason = "the header has 64 bytes")]
                offset: core::mem::offset_of!(Header, $field) as u16,
                wanted: $wanted,
                absent: 0,
                role: Role::Key,
            },
        )+];
    };
}
