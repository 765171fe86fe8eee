use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;
use crate::guard::Mode;

fn fingerprint(size: u64) -> Fingerprint {
    Fingerprint { device: 0, inode: 1, size, modified: (0, 0), changed: (0, 0) }
}

fn files(entries: &[(&str, u64)]) -> Files {
    entries.iter().map(|&(name, size)| (name.into(), fingerprint(size))).collect()
}

fn names(gone: &[&str], came: &[&str]) -> Names {
    let own = |names: &[&str]| names.iter().map(OsString::from).collect();
    Names { gone: own(gone), came: own(came) }
}

#[test]
fn a_file_is_told_once_when_it_has_been_quiet() {
    let mut settled = Settled::default();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(settled.compare(&files(&[("a", 1)]), at(0)), names(&[], &[]));
    assert_eq!(settled.compare(&files(&[("a", 2)]), at(150)), names(&[], &[]));
    assert_eq!(
        settled.compare(&files(&[("a", 2)]), at(300)),
        names(&[], &[]),
        "it grew 150 ms ago"
    );
    assert_eq!(settled.due(at(300)), Some(Duration::from_millis(50)));
    assert_eq!(settled.compare(&files(&[("a", 2)]), at(350)), names(&[], &["a"]));
    assert_eq!(settled.compare(&files(&[("a", 2)]), at(900)), names(&[], &[]));
    assert_eq!(settled.due(at(900)), None);
}

#[test]
fn a_file_with_a_writer_is_not_told_before_it_is_closed() {
    let mut settled = Settled::default();
    let at = |ms| Instant::now() + Duration::from_millis(ms);
    settled.heard(vec![("a".into(), Writer::Writes)]);
    assert_eq!(settled.compare(&files(&[("a", 1)]), at(0)), names(&[], &[]));
    assert_eq!(
        settled.compare(&files(&[("a", 1)]), at(5000)),
        names(&[], &[]),
        "its writer is slow"
    );
    settled.heard(vec![("a".into(), Writer::Closed)]);
    assert_eq!(settled.compare(&files(&[("a", 1)]), at(5001)), names(&[], &["a"]));
    settled.heard(vec![("a".into(), Writer::Writes)]);
    assert_eq!(settled.compare(&files(&[("a", 2)]), at(6000)), names(&[], &[]));
    assert_eq!(
        settled.compare(&files(&[("a", 2)]), at(16_001)),
        names(&[], &["a"]),
        "the event of closing was lost"
    );
}

#[test]
fn removed_and_renamed_files_are_told_together() {
    let mut settled = Settled { told: files(&[("a", 1), ("b", 1)]), ..Settled::default() };
    let start = Instant::now();
    assert_eq!(settled.compare(&files(&[("b", 1), ("c", 1)]), start), names(&[], &[]));
    assert_eq!(
        settled.compare(&files(&[("b", 1), ("c", 1)]), start + QUIET),
        names(&["a"], &["c"])
    );
}

#[test]
fn a_file_that_is_back_as_it_was_is_not_told() {
    let mut settled = Settled { told: files(&[("a", 1)]), ..Settled::default() };
    let start = Instant::now();
    settled.compare(&files(&[]), start);
    settled.compare(&files(&[("a", 1)]), start + QUIET / 2);
    assert_eq!(settled.compare(&files(&[("a", 1)]), start + QUIET * 2), names(&[], &[]));
    assert_eq!(settled.due(start), None);
}

#[test]
fn our_own_looking_wakes_nobody() {
    let event = |kind| interesting(Ok(Event::new(kind).add_path("/d/a.wasm".into())));
    assert_eq!(event(EventKind::Access(AccessKind::Open(AccessMode::Any))), None);
    assert_eq!(event(EventKind::Access(AccessKind::Close(AccessMode::Read))), None);
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    assert_eq!(event(written), Some(vec![("a.wasm".into(), Writer::Closed)]));
}

/// A watched directory and what is told of it.
struct Place {
    dir: TempDir,
    told: Receiver<Told>,
    _watch: Watch,
}

impl Place {
    fn with(before: impl FnOnce(&Path)) -> (Self, Vec<PathBuf>) {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        before(dir.path());
        let (tell, told) = mpsc::channel();
        let tell = move |what| drop(tell.send(what));
        let (watch, present) = Watch::start(dir.path(), Trust::of(Mode::Observe), tell).unwrap();
        (Self { dir, told, _watch: watch }, present)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn expect(&self, gone: &[&str], came: &[&str]) {
        let paths = |names: &[&str]| names.iter().map(|name| self.path(name)).collect();
        let expected = Changes { gone: paths(gone), came: paths(came) };
        assert!(matches!(self.next(), Told::Changes(changes) if changes == expected));
    }

    fn expect_silence(&self, time: Duration) {
        let told = self.told.recv_timeout(time);
        assert!(told.is_err(), "{told:?}");
    }
}

#[test]
fn only_wasm_files_that_are_there_at_first_are_returned() {
    let (place, present) = Place::with(|dir| {
        for name in ["a.wasm", "b.txt", ".hidden.wasm", "c.wasm.part"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        fs::create_dir(dir.join("sub.wasm")).unwrap();
        fs::write(dir.join("sub.wasm/d.wasm"), "x").unwrap();
        std::os::unix::fs::symlink("b.txt", dir.join("link.wasm")).unwrap();
        std::os::unix::fs::symlink("none", dir.join("dangling.wasm")).unwrap();
    });
    assert_eq!(present, [place.path("a.wasm"), place.path("link.wasm")]);
}

#[test]
fn a_file_copied_in_slowly_is_told_once_and_whole_when_it_is_closed() {
    let (place, _) = Place::with(|_| {});
    let mut file = fs::File::create(place.path("a.wasm")).unwrap();
    for _ in 0..4 {
        file.write_all(b"part").unwrap();
        thread::sleep(QUIET * 2);
    }
    place.expect_silence(Duration::from_millis(10));
    drop(file);
    let closed = Instant::now();
    place.expect(&[], &["a.wasm"]);
    assert!(closed.elapsed() < RESCAN, "that it was closed was heard: {:?}", closed.elapsed());
    place.expect_silence(QUIET * 3);
}

#[test]
fn files_renamed_in_replaced_and_removed_are_told() {
    let (place, _) = Place::with(|dir| fs::write(dir.join("a.wasm"), "1").unwrap());
    fs::write(place.path("a.tmp"), "2").unwrap();
    fs::rename(place.path("a.tmp"), place.path("a.wasm")).unwrap();
    place.expect(&[], &["a.wasm"]);
    fs::rename(place.path("a.wasm"), place.path("b.wasm")).unwrap();
    place.expect(&["a.wasm"], &["b.wasm"]);
    fs::write(place.path("b.wasm"), "other").unwrap();
    place.expect(&[], &["b.wasm"]);
    fs::remove_file(place.path("b.wasm")).unwrap();
    place.expect(&["b.wasm"], &[]);
}

#[test]
fn a_changed_mode_is_told_because_a_refused_file_may_now_be_trusted() {
    let (place, _) = Place::with(|dir| fs::write(dir.join("a.wasm"), "1").unwrap());
    fs::set_permissions(place.path("a.wasm"), fs::Permissions::from_mode(0o600)).unwrap();
    place.expect(&[], &["a.wasm"]);
}

#[test]
fn a_directory_that_cannot_be_trusted_any_more_is_told_once_and_its_files_stay() {
    let (place, _) = Place::with(|dir| fs::write(dir.join("a.wasm"), "1").unwrap());
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(place.path("b.wasm"), "1").unwrap();
    assert!(matches!(place.next(), Told::Unreadable(TrustError::Writable { .. })));
    place.expect_silence(QUIET * 3);
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place.expect(&[], &["b.wasm"]);
}

#[test]
fn a_directory_that_is_replaced_is_watched_again() {
    let (place, _) = Place::with(|dir| {
        fs::create_dir(dir.join("one")).unwrap();
        fs::create_dir(dir.join("two")).unwrap();
        fs::write(dir.join("two/a.wasm"), "1").unwrap();
        std::os::unix::fs::symlink("one", dir.join("now")).unwrap();
    });
    let (tell, told) = mpsc::channel();
    let tell = move |what| drop(tell.send(what));
    let (_watch, present) =
        Watch::start(&place.path("now"), Trust::of(Mode::Observe), tell).unwrap();
    assert!(present.is_empty());
    std::os::unix::fs::symlink("two", place.path("next")).unwrap();
    fs::rename(place.path("next"), place.path("now")).unwrap();
    let wait = Duration::from_secs(20);
    let Ok(Told::Changes(changes)) = told.recv_timeout(wait) else { panic!("nothing was told") };
    assert_eq!(changes.came, [place.path("now/a.wasm")]);
    let heard = Instant::now();
    fs::write(place.path("two/b.wasm"), "1").unwrap();
    assert!(matches!(told.recv_timeout(wait), Ok(Told::Changes(_))));
    assert!(heard.elapsed() < RESCAN, "events of the new directory are heard");
}

#[test]
fn a_directory_that_is_missing_is_an_error_at_the_start() {
    let dir = TempDir::new().unwrap();
    let error =
        Watch::start(&dir.path().join("none"), Trust::of(Mode::Observe), |_| {}).unwrap_err();
    assert!(error.is_missing(), "{error}");
}
