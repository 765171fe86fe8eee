//! Names of users, from `/etc/passwd`.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

/// The list of users is read again for an unknown one, but not more often than this.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Users {
    names: HashMap<u32, Box<[u8]>>,
    read: Option<Instant>,
}

impl Users {
    /// The name of a user, if it has one.
    pub fn name(&mut self, id: u32) -> Option<Box<[u8]>> {
        if !self.names.contains_key(&id) && self.read.is_none_or(|read| read.elapsed() > READ_AGAIN)
        {
            self.read();
        }
        self.names.get(&id).cloned()
    }

    /// All users.
    pub fn all(&mut self) -> impl Iterator<Item = (u32, Box<[u8]>)> {
        self.read();
        self.names.iter().map(|(&id, name)| (id, name.clone()))
    }

    fn read(&mut self) {
        self.names = fs::read("/etc/passwd").map(|list| parse(&list)).unwrap_or_default();
        self.read = Some(Instant::now());
    }
}

fn parse(list: &[u8]) -> HashMap<u32, Box<[u8]>> {
    let mut names = HashMap::new();
    for line in list.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        let id = fields.clone().nth(2).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        if let (Some(name), Some(id)) = (fields.next(), id) {
            // The first one counts, as for the C library.
            names.entry(id).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_user_counts_and_odd_lines_do_not() {
        let names =
            parse(b"root:x:0:0::/root:/bin/sh\n# no\ntoor:x:0:0::/:\nbad:x:y:0\nme:x:1000:1000");
        assert_eq!(names.len(), 2);
        assert_eq!((&*names[&0], &*names[&1000]), (b"root".as_slice(), b"me".as_slice()));
    }

    #[test]
    fn this_machine_has_root() {
        assert_eq!(Users::default().name(0).as_deref(), Some(b"root".as_slice()));
    }
}
