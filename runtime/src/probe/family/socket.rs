//! connect, accept, listen, `tcp_close`.

use tipstaff_events::catalogue::{accept, connect, listen, tcp_close};

use super::{At, Family, Hook, Part, Rung, SYS_EXIT, called, uring};

/// Changes of a socket's state (Linux 4.16).
const SET_STATE: At<'static> = At::Twice {
    name: "inet_sock_set_state",
    passes: &["const struct sock *", "const int", "const int"],
};
/// A TCP socket is gone (Linux 4.16).
const DESTROYED: At<'static> = At::Twice { name: "tcp_destroy_sock", passes: &["struct sock *"] };

/// What the kinds lack where a completion does not say of which request it is.
const WITHOUT_MULTISHOT: Option<&str> = Some("multishot accepts by io_uring are not seen");

pub(in super::super) static FAMILY: Family = Family {
    object: "socket",
    parts: &[
        // Before the calls: an attempt whose start was not seen has no outcome.
        Part {
            kinds: &[connect::KIND],
            fields: 0,
            without: Some("the outcome of a non-blocking attempt is pending"),
            ladder: &[Rung {
                hooks: &[
                    Hook { program: "connect_state", at: SET_STATE },
                    Hook { program: "connect_state_again", at: SET_STATE },
                    Hook { program: "connect_gone", at: DESTROYED },
                    Hook { program: "connect_gone_again", at: DESTROYED },
                ],
                lacks: None,
            }],
        },
        Part {
            kinds: &[tcp_close::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[
                    Hook { program: "close_state", at: SET_STATE },
                    Hook { program: "close_state_again", at: SET_STATE },
                ],
                lacks: None,
            }],
        },
        // Who accepts a connection is also of interest to tcp_close.
        Part {
            kinds: &[connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND],
            fields: 0,
            without: None,
            ladder: &[Rung {
                hooks: &[
                    called("connect_call", 0),
                    called("accept_call", 1),
                    called("listen_call", 2),
                    Hook { program: "socket", at: SYS_EXIT },
                ],
                lacks: None,
            }],
        },
        uring::overflows(&[connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND]),
        Part {
            kinds: &[connect::KIND, accept::KIND, listen::KIND, tcp_close::KIND],
            fields: 0,
            without: uring::WITHOUT,
            ladder: &uring::requests(WITHOUT_MULTISHOT),
        },
    ],
    aggregates: None,
    maps: &[],
};
