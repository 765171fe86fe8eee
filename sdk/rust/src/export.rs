//! `export!`: what makes a component of a policy.

/// Makes this crate a policy. `export!(POLICY: EVENT, EVENT)`, then, each behind a semicolon and
/// only if needed:
///
/// - `settings = TYPE`: the type that has `#[derive(Settings)]`;
/// - `tick = "1s"`: time between two calls of [`OnTick::on_tick`](crate::OnTick::on_tick).
///
/// The manifest has the name and version of the package.
///
/// ```
/// use tipstaff::{Counter, OnTick, Policy};
///
/// struct Heart(Counter);
///
/// impl Policy for Heart {
///     fn configure(_: &[(String, String)]) -> Result<Self, String> {
///         Ok(Self(Counter::new("beats_total", &[])))
///     }
/// }
///
/// impl OnTick for Heart {
///     fn on_tick(&mut self, _now_ns: u64) {
///         self.0.add(1);
///     }
/// }
///
/// tipstaff::export!(Heart:; tick = "1s");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    (
        $policy:ty: $($event:ty),* $(,)?
        $(; settings = $settings:ty)?
        $(; tick = $tick:literal)?
        $(;)?
    ) => {
        const _: () = {
            const PARTS: $crate::manifest::Parts<'static> = $crate::manifest::Parts {
                name: ::core::env!("CARGO_PKG_NAME"),
                version: ::core::env!("CARGO_PKG_VERSION"),
                tick: $crate::__first!($(::core::option::Option::Some($tick),)? ::core::option::Option::None),
                subscriptions: &[$(
                    $crate::manifest::Subscription {
                        kind: <$event as $crate::Event<'_>>::KIND,
                        optional: <$event as $crate::Event<'_>>::OPTIONAL,
                        every: <$event as $crate::Event<'_>>::EVERY,
                        sample: <$event as $crate::Event<'_>>::SAMPLE,
                        by_process: <$event as $crate::Event<'_>>::BY_PROCESS,
                        urgent: <$event as $crate::Event<'_>>::URGENT,
                        columns: <$event as $crate::Event<'_>>::FIELDS,
                        condition: <$event as $crate::Event<'_>>::WHERE,
                    }
                ),*],
                settings: <$crate::__first_type!($($settings,)? ()) as $crate::Settings>::SETTINGS,
            };
            const LENGTH: usize = $crate::manifest::length(&PARTS);
            // One static for all of it: several would come out in another order.
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "tipstaff:manifest"))]
            #[used]
            static MANIFEST: [u8; LENGTH] = $crate::manifest::text(&PARTS);
            const KINDS: &[&str] = &[$(<$event as $crate::Event<'_>>::KIND),*];

            ::std::thread_local! {
                static POLICY: ::core::cell::RefCell<::core::option::Option<$policy>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl $crate::policy::Exported for $policy {
                fn cell() -> &'static $crate::policy::Cell<Self> {
                    &POLICY
                }
            }

            struct Exported;

            impl $crate::bindings::exports::tipstaff::policy::policy::Guest for Exported {
                fn describe() -> ::std::string::String {
                    ::std::string::String::from_utf8_lossy(&MANIFEST).into_owned()
                }

                fn configure(
                    settings: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::core::result::Result<::std::string::String, ::std::string::String> {
                    $crate::policy::configure(&POLICY, &settings)?;
                    ::core::result::Result::Ok(Self::describe())
                }

                fn on_batch(rows: ::std::vec::Vec<u8>) {
                    $crate::policy::batch(&POLICY, &rows, KINDS, |_policy, row| {
                        let index = 0u8;
                        $(
                            if row.subscription() == index {
                                let fixed = row.fixed(const {
                                    $crate::field::end(<$event as $crate::Event<'_>>::FIELDS)
                                });
                                let event = <$event as $crate::Event<'_>>::read(fixed, row.flags());
                                return <$policy as $crate::On<$event>>::on(_policy, row.time_ns(), event);
                            }
                            let index = index + 1;
                        )*
                        ::core::panic!("row of subscription {}, there are {index}", row.subscription());
                    });
                }
            }

            $crate::bindings::export_author!(Exported with_types_in $crate::bindings);

            $(
                impl $crate::bindings::ticks::exports::tipstaff::policy::ticks::Guest for Exported {
                    fn on_tick(now_ns: u64) {
                        let _: &str = $tick;
                        $crate::policy::with(&POLICY, |policy| {
                            <$policy as $crate::OnTick>::on_tick(policy, now_ns);
                        });
                    }
                }

                $crate::bindings::ticks::export_author_ticks!(
                    Exported with_types_in $crate::bindings::ticks
                );
            )?
        };
    };
}

/// Makes the optional export `hand-over` of a policy that has [`HandOver`](crate::HandOver). To be
/// called beside [`export!`](macro@crate::export).
#[macro_export]
macro_rules! export_hand_over {
    ($policy:ty) => {
        const _: () = {
            struct Exported;

            impl $crate::bindings::hand_over::exports::tipstaff::policy::hand_over::Guest for Exported {
                fn save() -> ::std::vec::Vec<u8> {
                    $crate::policy::with(<$policy as $crate::policy::Exported>::cell(), |policy| {
                        <$policy as $crate::HandOver>::save(policy)
                    })
                }

                fn restore(
                    state: ::std::vec::Vec<u8>,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    $crate::policy::with(<$policy as $crate::policy::Exported>::cell(), |policy| {
                        <$policy as $crate::HandOver>::restore(policy, &state)
                    })
                }
            }

            $crate::bindings::hand_over::export_author_hand_over!(
                Exported with_types_in $crate::bindings::hand_over
            );
        };
    };
}

/// The first of its arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:expr $(, $rest:expr)?) => {
        $first
    };
}

/// The first of its arguments, which are types.
#[doc(hidden)]
#[macro_export]
macro_rules! __first_type {
    ($first:ty $(, $rest:ty)?) => {
        $first
    };
}
