//! `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    DeriveInput, GenericParam, Lifetime, LitInt, LitStr, Result, ext::IdentExt, spanned::Spanned,
};

use crate::{check_name, named_fields, settings::quote_toml};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let OnStruct { kind, optional, condition, every, urgent, sample, by_process } =
        on_struct(input)?;
    let every = every.map_or_else(
        || quote!(::core::option::Option::None),
        |every| quote!(::core::option::Option::Some(#every)),
    );
    let sample = sample.map_or_else(
        || quote!(::core::option::Option::None),
        |sample| quote!(::core::option::Option::Some(#sample)),
    );
    let row: Lifetime = match input.generics.params.iter().collect::<Vec<_>>().as_slice() {
        [] => syn::parse_quote!('row),
        [GenericParam::Lifetime(only)] => only.lifetime.clone(),
        _ => {
            return Err(syn::Error::new_spanned(
                &input.generics,
                "an event has at most one lifetime and no type parameters",
            ));
        }
    };
    let name = &input.ident;
    let (_, ty_generics, _) = input.generics.split_for_impl();

    let (mut columns, mut reads) = (Vec::new(), Vec::new());
    for field in &named_fields(input, "an event")?.named {
        let ident = field.ident.as_ref().expect("the fields have names");
        let (renamed, flags) = on_field(field)?;
        if flags {
            reads.push(quote!(#ident: flags));
            continue;
        }
        let column = renamed.map_or_else(|| ident.unraw().to_string(), |name| name.value());
        let (ty, index) = (&field.ty, columns.len());
        // The span of the type, so that an unknown one is an error there.
        columns.push(quote_spanned!(ty.span()=> <#ty as ::tipstaff::field::Field<#row>>::COLUMN.named(#column)));
        reads.push(quote_spanned!(ty.span()=> #ident: <#ty as ::tipstaff::field::Field<#row>>::read(
            row,
            const { ::tipstaff::field::place(<Self as ::tipstaff::Event<#row>>::FIELDS, #index) },
        )));
    }

    Ok(quote! {
        impl<#row> ::tipstaff::Event<#row> for #name #ty_generics {
            const KIND: &'static str = #kind;
            const OPTIONAL: bool = #optional;
            const WHERE: ::core::option::Option<&'static str> = #condition;
            const EVERY: ::core::option::Option<&'static str> = #every;
            const URGENT: bool = #urgent;
            const SAMPLE: ::core::option::Option<&'static str> = #sample;
            const BY_PROCESS: bool = #by_process;
            const FIELDS: &'static [::tipstaff::field::Column] = &[#(#columns),*];

            #[inline]
            fn read(row: ::tipstaff::row::Fixed<#row>, flags: ::tipstaff::Flags) -> Self {
                let _ = (row, flags);
                Self { #(#reads),* }
            }
        }
    })
}

/// What stands on the struct.
struct OnStruct {
    kind: String,
    optional: bool,
    /// An expression: the condition as a TOML string.
    condition: TokenStream,
    every: Option<String>,
    urgent: bool,
    /// Digits.
    sample: Option<String>,
    by_process: bool,
}

fn on_struct(input: &DeriveInput) -> Result<OnStruct> {
    let (mut kind, mut optional, mut every, mut urgent) = (None, false, None, false);
    let (mut sample, mut by_process) = (None, false);
    let mut condition = quote!(::core::option::Option::None);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("kind") {
                let name: LitStr = meta.value()?.parse()?;
                check_name(&name.value(), &name)?;
                kind = Some(name.value());
                Ok(())
            } else if meta.path.is_ident("optional") {
                optional = true;
                Ok(())
            } else if meta.path.is_ident("urgent") {
                urgent = true;
                Ok(())
            } else if meta.path.is_ident("sample") {
                let every: LitInt = meta.value()?.parse()?;
                every.base10_parse::<core::num::NonZeroU16>()?;
                sample = Some(every.base10_digits().to_owned());
                Ok(())
            } else if meta.path.is_ident("sample_by") {
                let by: LitStr = meta.value()?.parse()?;
                by_process = match by.value().as_str() {
                    "event" => false,
                    "process" => true,
                    _ => {
                        let expected = "expected \"event\" or \"process\"";
                        return Err(syn::Error::new_spanned(&by, expected));
                    }
                };
                Ok(())
            } else if meta.path.is_ident("filter") {
                let text: LitStr = meta.value()?.parse()?;
                let text = quote_toml(&text.value());
                condition = quote!(::core::option::Option::Some(#text));
                Ok(())
            } else if meta.path.is_ident("every") {
                let time: LitStr = meta.value()?.parse()?;
                if !time.value().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    return Err(syn::Error::new_spanned(&time, "expected a time such as \"1s\""));
                }
                every = Some(time.value());
                Ok(())
            } else {
                Err(meta.error(
                    "expected `kind = \"...\"`, `filter = \"...\"`, `every = \"1s\"`, `sample = 100`, `sample_by = \"process\"`, `urgent` or `optional`",
                ))
            }
        })?;
    }
    let kind = kind.ok_or_else(|| {
        syn::Error::new_spanned(&input.ident, "of what kind? write `#[event(kind = \"...\")]`")
    })?;
    if let (None, true) = (&sample, by_process) {
        return Err(syn::Error::new_spanned(
            &input.ident,
            "of how many processes is one taken? write `sample = 100`",
        ));
    }
    Ok(OnStruct { kind, optional, condition, every, urgent, sample, by_process })
}

fn on_field(field: &syn::Field) -> Result<(Option<LitStr>, bool)> {
    let (mut name, mut flags) = (None, false);
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("field") {
                let given: LitStr = meta.value()?.parse()?;
                check_name(&given.value(), &given)?;
                name = Some(given);
                Ok(())
            } else if meta.path.is_ident("flags") {
                flags = true;
                Ok(())
            } else {
                Err(meta.error("expected `field = \"...\"` or `flags`"))
            }
        })?;
    }
    Ok((name, flags))
}
