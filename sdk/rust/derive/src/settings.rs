//! `#[derive(Settings)]`.

use std::fmt::Write as _;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    DeriveInput, Expr, ExprLit, ExprUnary, Lit, Result, UnOp, ext::IdentExt, spanned::Spanned,
};

use crate::named_fields;

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&input.generics, "settings have no parameters"));
    }
    let name = &input.ident;
    let (mut settings, mut reads, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    for field in &named_fields(input, "settings")?.named {
        let ident = field.ident.as_ref().expect("the fields have names");
        let key = ident.unraw().to_string();
        let (ty, doc) = (&field.ty, quote_toml(&documentation(field)));
        let default = match default(field)? {
            None => quote!(::core::option::Option::None),
            Some(value) => {
                let (text, kind) = toml(&value)?;
                let message = format!("the default of `{key}` is not of its type");
                checks.push(quote_spanned! {value.span()=>
                    const _: () = assert!(
                        ::tipstaff::settings::suits(#kind, <#ty as ::tipstaff::settings::SettingValue>::TYPE),
                        #message
                    );
                });
                quote!(::core::option::Option::Some(#text))
            }
        };
        settings.push(quote_spanned! {ty.span()=>
            ::tipstaff::Setting {
                name: #key,
                ty: <#ty as ::tipstaff::settings::SettingValue>::TYPE,
                doc: #doc,
                default: #default,
            }
        });
        reads.push(
            quote_spanned!(ty.span()=> #ident: ::tipstaff::settings::get::<#ty>(settings, #key)?),
        );
    }
    Ok(quote! {
        #(#checks)*

        impl ::tipstaff::Settings for #name {
            const SETTINGS: &'static [::tipstaff::Setting] = &[#(#settings),*];

            fn read(
                settings: &[(::std::string::String, ::std::string::String)],
            ) -> ::core::result::Result<Self, ::std::string::String> {
                ::core::result::Result::Ok(Self { #(#reads),* })
            }
        }
    })
}

/// The field's documentation as one line.
fn documentation(field: &syn::Field) -> String {
    let lines = field.attrs.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

fn default(field: &syn::Field) -> Result<Option<Expr>> {
    let mut default = None;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("setting")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("default") {
                default = Some(meta.value()?.parse()?);
                Ok(())
            } else {
                Err(meta.error("expected `default = ...`"))
            }
        })?;
    }
    Ok(default)
}

/// A literal as TOML, and the name of its type.
fn toml(value: &Expr) -> Result<(String, &'static str)> {
    match value {
        Expr::Lit(ExprLit { lit, .. }) => match lit {
            Lit::Str(text) => Ok((quote_toml(&text.value()), "text")),
            Lit::Int(number) => Ok((number.base10_digits().to_owned(), "integer")),
            Lit::Float(number) => Ok((number.base10_digits().to_owned(), "number")),
            Lit::Bool(flag) => Ok((flag.value.to_string(), "boolean")),
            _ => Err(syn::Error::new_spanned(lit, "not a value of a setting")),
        },
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => match toml(expr)? {
            (text, kind @ ("integer" | "number")) => Ok((format!("-{text}"), kind)),
            _ => Err(syn::Error::new_spanned(value, "not a value of a setting")),
        },
        Expr::Array(array) => {
            let (mut texts, mut kind) = (Vec::new(), "array");
            for element in &array.elems {
                let (text, of) = toml(element)?;
                let whole = match of {
                    "text" => "texts",
                    "integer" => "integers",
                    _ => {
                        return Err(syn::Error::new_spanned(
                            element,
                            "an array of a setting holds strings or integers",
                        ));
                    }
                };
                if kind != "array" && kind != whole {
                    return Err(syn::Error::new_spanned(
                        element,
                        "not of the same type as the element before it",
                    ));
                }
                kind = whole;
                texts.push(text);
            }
            Ok((format!("[{}]", texts.join(", ")), kind))
        }
        _ => Err(syn::Error::new_spanned(
            value,
            "not a value of a setting: a literal, or an array of literals",
        )),
    }
}

pub fn quote_toml(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
