//! The derives of the crate `tipstaff`. Use them from there.
#![forbid(unsafe_code)]

mod event;
mod settings;

use proc_macro::TokenStream;

/// Makes a struct an event that a policy can subscribe to.
///
/// On the struct: `#[event(kind = "NAME")]`, `filter = "CONDITION"` if only some events of the kind
/// are wanted (`where` in the manifest; the host tests it, in the kernel where that can be done),
/// `optional` if the policy runs without this kind, and for an aggregated kind `every = "1s"`, the time
/// between two rows of the same keys (1 s otherwise). `urgent` if its rows are to be delivered at once,
/// perhaps out of order, which the operator has to grant. `sample = 100` if one event of a hundred is
/// enough, with `sample_by = "process"` all events of one process of a hundred; the field `weight` says
/// how many events a row stands for. On a field: `#[event(field = "NAME")]` where its name is not the field's (`proc.parent.exe`), and
/// `#[event(flags)]` on one of the type `tipstaff::Flags`.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    event::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct the settings that a policy takes.
///
/// The documentation of a field tells the operator what it does. `#[setting(default = VALUE)]` makes
/// it optional: a string, a number, `true`, `false`, or an array of strings or integers.
#[proc_macro_derive(Settings, attributes(setting))]
pub fn settings(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    settings::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// The named fields of a struct.
fn named_fields<'a>(input: &'a syn::DeriveInput, what: &str) -> syn::Result<&'a syn::FieldsNamed> {
    match &input.data {
        syn::Data::Struct(syn::DataStruct { fields: syn::Fields::Named(fields), .. }) => Ok(fields),
        _ => Err(syn::Error::new_spanned(
            &input.ident,
            format!("{what} must be a struct with named fields"),
        )),
    }
}

/// Checks a name that goes into the manifest.
fn check_name(name: &str, place: impl quote::ToTokens) -> syn::Result<()> {
    let fine =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
    if fine {
        Ok(())
    } else {
        Err(syn::Error::new_spanned(
            place,
            format!("{name:?} is not a name: letters, digits, `_`, `.`, `:` and `-`"),
        ))
    }
}
