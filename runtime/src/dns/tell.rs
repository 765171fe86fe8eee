//! What the proxy sees, as events.

use std::{mem::offset_of, time::Duration};

use tipstaff_events::{
    catalogue::{DNS_VERDICT, DnsAnswer, DnsQuery, PROTOCOL, dns_answer, dns_query},
    index,
};

use super::{Answer, Flow, Question, Ruling, Transport, mapped};
use crate::source::{Handover, records::Records};

/// Addresses in an event.
const MOST_ADDRESSES: usize = 16;

/// What was decided, and why: a name in [`DNS_VERDICT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Refuse,
    AllowOnTimeout,
    RefuseOnTimeout,
    Malformed,
    Unsupported,
    Overload,
    Server,
}

impl Decision {
    fn index(self) -> u8 {
        let name = match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
            Self::AllowOnTimeout => "allow_on_timeout",
            Self::RefuseOnTimeout => "refuse_on_timeout",
            Self::Malformed => "refuse_malformed",
            Self::Unsupported => "refuse_unsupported",
            Self::Overload => "refuse_overload",
            Self::Server => "refuse_server",
        };
        index(DNS_VERDICT, name)
    }
}

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => index(PROTOCOL, "udp"),
        Transport::Tcp => index(PROTOCOL, "tcp"),
    }
}

fn nanoseconds(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).to_ne_bytes()
}

/// Tells of a query. `question` is not there where it could not be read.
pub(super) fn query(
    handover: &Handover,
    flow: &Flow,
    id: u16,
    question: Option<&Question>,
    (decision, by): (Decision, Ruling),
    took: Duration,
) {
    if !handover.wants(dns_query::KIND) {
        return;
    }
    let mut records = Records::new(dns_query::KIND);
    let mut record = records.begin(&flow.header, size_of::<DnsQuery>());
    record.set(offset_of!(DnsQuery, decision_time), &nanoseconds(took));
    record.set(offset_of!(DnsQuery, address), &mapped(flow.server.ip()));
    record.set(offset_of!(DnsQuery, guard), &by.guard.to_ne_bytes());
    record.set(offset_of!(DnsQuery, rule), &by.rule.to_ne_bytes());
    record.set(offset_of!(DnsQuery, port), &flow.server.port().to_ne_bytes());
    record.set(offset_of!(DnsQuery, id), &id.to_ne_bytes());
    record.set(offset_of!(DnsQuery, protocol), &[protocol(flow.transport)]);
    record.set(offset_of!(DnsQuery, verdict), &[decision.index()]);
    match question {
        Some(question) => {
            record.push(offset_of!(DnsQuery, name), question.name.bytes());
            record.push(offset_of!(DnsQuery, record_type), question.type_name().into_bytes());
        }
        None => record.set_absent(dns_query::name | dns_query::record_type),
    }
    drop(record);
    handover.put(records);
}

/// Tells of an answer.
pub(super) fn answer(
    handover: &Handover,
    flow: &Flow,
    id: u16,
    question: &Question,
    answer: &Answer,
    took: Duration,
) {
    if !handover.wants(dns_answer::KIND) {
        return;
    }
    let mut records = Records::new(dns_answer::KIND);
    let mut record = records.begin(&flow.header, size_of::<DnsAnswer>());
    let count = u32::try_from(answer.addresses.len()).unwrap_or(u32::MAX);
    record.set(offset_of!(DnsAnswer, latency), &nanoseconds(took));
    record.set(offset_of!(DnsAnswer, address), &mapped(flow.server.ip()));
    record.set(offset_of!(DnsAnswer, port), &flow.server.port().to_ne_bytes());
    record.set(offset_of!(DnsAnswer, id), &id.to_ne_bytes());
    record.set(offset_of!(DnsAnswer, protocol), &[protocol(flow.transport)]);
    record.set(offset_of!(DnsAnswer, rcode), &answer.code.to_ne_bytes());
    record.set(offset_of!(DnsAnswer, truncated), &[u8::from(answer.truncated)]);
    record.set(offset_of!(DnsAnswer, address_count), &count.to_ne_bytes());
    match answer.ttl {
        Some(ttl) => record.set(offset_of!(DnsAnswer, ttl), &ttl.to_ne_bytes()),
        None => record.set_absent(dns_answer::ttl),
    }
    record.push(offset_of!(DnsAnswer, name), question.name.bytes());
    record.push(offset_of!(DnsAnswer, record_type), question.type_name().into_bytes());
    let addresses = answer.addresses.iter().take(MOST_ADDRESSES);
    record.push(
        offset_of!(DnsAnswer, addresses),
        addresses.flat_map(|address| format!("{address}\0").into_bytes()),
    );
    drop(record);
    handover.put(records);
}
