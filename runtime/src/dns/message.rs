//! DNS messages, as far as the proxy looks into them. They are read by the library `domain` and never
//! written again: what goes on is the bytes that came.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    net::IpAddr,
};

use domain::{
    base::{
        Message, ParsedName, Question as Asked,
        iana::{Opcode, Rcode, Rtype},
        wire::ParseError,
    },
    rdata::{A, Aaaa, Cname},
};

/// Bytes of the header of a message.
const HEADER: usize = 12;
/// A bit in the third byte of a message: it is an answer.
const IS_ANSWER: u8 = 0x80;
/// Bits in the third byte that an answer has from its query: the operation, recursion desired.
const COPIED: u8 = 0x79;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name in lower case, without the last dot; `.` for the root. A dot or backslash within a label
    /// has a backslash in front, a byte that is not printable ASCII is `\DDD` in decimal.
    pub name: String,
    /// Type of the records.
    pub record_type: u16,
    /// Class of the records; 1 is the Internet.
    pub class: u16,
}

impl Question {
    fn of(asked: &Asked<ParsedName<&[u8]>>) -> Self {
        Self {
            name: text(asked.qname()),
            record_type: asked.qtype().to_int(),
            class: asked.qclass().to_int(),
        }
    }

    /// Name of the type: `A`, `AAAA`, or `TYPE65400` for one without a name.
    #[must_use]
    pub fn type_name(&self) -> String {
        Rtype::from_int(self.record_type).to_string()
    }
}

/// A name as policies and events have it.
fn text(name: &ParsedName<&[u8]>) -> String {
    let mut text = String::new();
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label.as_slice().iter().map(u8::to_ascii_lowercase) {
            match byte {
                b'.' | b'\\' => text.extend(['\\', byte.into()]),
                b'!'..=b'~' => text.push(byte.into()),
                // Writing to a string does not fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
    }
    if text.is_empty() { ".".into() } else { text }
}

/// A message that cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It cannot be read as a query with one question.
    Malformed,
    /// It asks for something else than records: an update, a notification.
    Unsupported,
}

/// The transaction id; 0 where the message is too short to have one.
#[must_use]
pub fn id(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
}

/// Reads the question of a query. What follows it is the server's to judge.
///
/// # Errors
/// If it is none, or asks for something else.
pub fn query(message: &[u8]) -> Result<Question, Unfit> {
    let message = Message::from_octets(message).map_err(|_| Unfit::Malformed)?;
    if message.header().qr() {
        return Err(Unfit::Malformed);
    }
    if message.header().opcode() != Opcode::QUERY {
        return Err(Unfit::Unsupported);
    }
    message.sole_question().map(|asked| Question::of(&asked)).map_err(|_| Unfit::Malformed)
}

/// An answer without records to this query: its id, operation and question, recursion desired or not. `None`
/// where there must be no answer: to an answer, and to what has no header.
#[must_use]
pub fn reply(message: &[u8], code: Rcode) -> Option<Vec<u8>> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    if header[2] & IS_ANSWER != 0 {
        return None;
    }
    let question = question_bytes(message).unwrap_or_default();
    let mut reply = Vec::with_capacity(HEADER + question.len());
    reply.extend_from_slice(&header[..2]);
    reply.extend([header[2] & COPIED | IS_ANSWER, code.to_int()]);
    reply.extend(u16::from(!question.is_empty()).to_be_bytes());
    reply.extend([0; 6]);
    reply.extend_from_slice(question);
    Some(reply)
}

fn question_bytes(message: &[u8]) -> Option<&[u8]> {
    let parsed = Message::from_octets(message).ok()?;
    parsed.sole_question().ok()?;
    let mut questions = parsed.question();
    questions.next()?.ok()?;
    message.get(HEADER..questions.pos())
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Response code: 0 no error, 3 there is no such name.
    pub code: u16,
    /// Whether it did not fit, and is asked for again by TCP.
    pub truncated: bool,
    /// The addresses of the name that was asked for, and of the names that it stands for (CNAME).
    pub addresses: Vec<IpAddr>,
    /// The shortest time in seconds for which one of them, or a name on the way there, may be kept.
    pub ttl: Option<u32>,
}

/// Whether a message is an answer to this question with this id. Servers that do not understand a query may
/// leave the question out.
#[must_use]
pub fn answers(message: &[u8], id: u16, question: &Question) -> bool {
    let Ok(message) = Message::from_octets(message) else { return false };
    let header = message.header();
    header.id() == id
        && header.qr()
        && match message.header_counts().qdcount() {
            0 => header.rcode() != Rcode::NOERROR,
            _ => message.sole_question().is_ok_and(|asked| Question::of(&asked) == *question),
        }
}

/// Reads an answer to this question.
///
/// # Errors
/// If it cannot be read.
pub fn answer(message: &[u8], question: &Question) -> Result<Answer, ParseError> {
    let message = Message::from_octets(message).map_err(|_| ParseError::ShortInput)?;
    let (mut aliases, mut found) = (HashMap::<_, Vec<_>>::new(), Vec::new());
    for record in message.answer()? {
        let record = record?;
        let (owner, ttl) = (text(&record.owner().deref_octets()), record.ttl().as_secs());
        if let Some(record) = record.to_record::<Cname<_>>()? {
            aliases.entry(owner).or_default().push((text(record.data().cname()), ttl));
        } else if let Some(record) = record.to_record::<A>()? {
            found.push((owner, IpAddr::from(record.data().addr().octets()), ttl));
        } else if let Some(record) = record.to_record::<Aaaa>()? {
            found.push((owner, IpAddr::from(record.data().addr().octets()), ttl));
        }
    }
    let mut names = HashSet::from([question.name.clone()]);
    let mut to_follow = vec![question.name.clone()];
    let mut times = Vec::new();
    // Names stand for one another in any order. Each is followed once, however long the chain.
    while let Some(name) = to_follow.pop() {
        for (target, ttl) in aliases.remove(&name).unwrap_or_default() {
            if names.insert(target.clone()) {
                times.push(ttl);
                to_follow.push(target);
            }
        }
    }
    found.retain(|(owner, ..)| names.contains(owner));
    times.extend(found.iter().map(|(.., ttl)| *ttl));
    Ok(Answer {
        code: message.opt_rcode().to_int(),
        truncated: message.header().tc(),
        addresses: found.into_iter().map(|(_, address, _)| address).collect(),
        ttl: times.into_iter().min(),
    })
}

#[cfg(test)]
mod tests;
