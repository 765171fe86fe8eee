use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
};

use tempfile::TempDir;

use super::*;

const OTHER: u32 = 12345;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory that only we can write, with a file in it.
fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    mode(dir.path(), 0o755);
    let file = dir.path().join("a.toml");
    fs::write(&file, "text").unwrap();
    mode(&file, 0o644);
    (dir, file)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    Trust::of(Mode::Observe).read(path, 100).map_err(|error| error.to_string())
}

#[test]
fn where_something_may_be_done_only_root_is_trusted() {
    for mode in [Mode::Audit, Mode::Enforce] {
        assert_eq!(Trust::of(mode).to_string(), "root");
    }
}

#[test]
fn a_file_of_our_own_is_read() {
    let (_dir, file) = place();
    assert_eq!(read(&file).unwrap(), b"text");
}

#[test]
fn a_file_that_others_can_write_is_refused_with_the_line_that_fixes_it() {
    let (_dir, file) = place();
    for bad in [0o664, 0o646, 0o666] {
        mode(&file, bad);
        let shown = file.display();
        assert_eq!(
            read(&file).unwrap_err(),
            format!(
                "{shown} can be written by others (mode {bad:04o}), who could change it: chmod go-w {shown}"
            )
        );
    }
}

#[test]
fn a_directory_above_that_others_can_write_is_refused_and_named() {
    let (dir, _) = place();
    let (open, below) = (dir.path().join("open dir"), dir.path().join("open dir/below"));
    fs::create_dir_all(&below).unwrap();
    mode(&open, 0o777);
    let file = below.join("a.toml");
    fs::write(&file, "text").unwrap();
    let error = read(&file).unwrap_err();
    assert!(
        error.ends_with(&format!(
            "who could change {}: chmod go-w '{}'",
            file.display(),
            open.display()
        )),
        "{error}"
    );
    mode(&open, 0o1777);
    assert_eq!(
        read(&file).unwrap(),
        b"text",
        "others cannot replace what is in a sticky directory"
    );
}

#[test]
fn a_directory_of_policies_must_not_be_shared_even_if_it_is_sticky() {
    let (dir, _) = place();
    assert_eq!(Trust::of(Mode::Observe).names(dir.path()).unwrap(), ["a.toml"]);
    mode(dir.path(), 0o1777);
    let error = Trust::of(Mode::Observe).names(dir.path()).unwrap_err().to_string();
    assert!(error.contains("(mode 1777)"), "{error}");
}

#[test]
fn links_are_followed_and_what_they_lead_to_is_checked() {
    let (dir, file) = place();
    let link = dir.path().join("link");
    symlink("./sub/../a.toml", &link).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    assert_eq!(read(&link).unwrap(), b"text");
    let absolute = dir.path().join("absolute");
    symlink(&link, &absolute).unwrap();
    assert_eq!(read(&absolute).unwrap(), b"text");
    mode(&file, 0o666);
    assert!(read(&absolute).unwrap_err().contains("a.toml can be written by others"));
    let circle = dir.path().join("circle");
    symlink("circle", &circle).unwrap();
    assert!(read(&circle).unwrap_err().contains("cannot follow"));
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let (dir, file) = place();
    assert!(read(dir.path()).unwrap_err().ends_with("is a directory, expected a file"));
    assert!(
        Trust::of(Mode::Observe)
            .names(&file)
            .unwrap_err()
            .to_string()
            .ends_with("is a file, expected a directory")
    );
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, FileMode::RUSR, 0).unwrap();
    assert!(read(&pipe).unwrap_err().ends_with("is a pipe, expected a file"));
    assert!(read(&file.join("x")).unwrap_err().contains("cannot open"));
    assert!(read(Path::new("/")).unwrap_err().ends_with("is a directory, expected a file"));
}

#[test]
fn a_missing_file_is_said_to_be_missing() {
    let (dir, _) = place();
    let error = Trust::of(Mode::Observe).read(&dir.path().join("none"), 1).unwrap_err();
    assert!(error.is_missing(), "{error}");
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let (_dir, file) = place();
    assert!(Trust::of(Mode::Observe).read(&file, 4).is_ok());
    assert!(matches!(
        Trust::of(Mode::Observe).read(&file, 3),
        Err(TrustError::Long { max: 3, .. })
    ));
}

#[test]
fn a_missing_directory_of_the_agents_own_is_made_for_its_owner_alone() {
    let (dir, _) = place();
    let cache = dir.path().join("a/b");
    Trust::of(Mode::Observe).directory(&cache).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    Trust::of(Mode::Observe).directory(&cache).unwrap();
    mode(&cache, 0o770);
    assert!(matches!(Trust::of(Mode::Observe).directory(&cache), Err(TrustError::Writable { .. })));
}

#[test]
fn files_links_and_directories_of_another_user_are_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let trust = Trust::owners(vec![0]);
    let (dir, file) = place();
    assert!(trust.read(&file, 100).is_ok());
    chown(&file, Some(OTHER), None).unwrap();
    let shown = file.display();
    assert_eq!(
        trust.read(&file, 100).unwrap_err().to_string(),
        format!(
            "{shown} belongs to user {OTHER}, who could change it; expected root: chown root: {shown}"
        )
    );
    assert!(Trust::owners(vec![OTHER, 0]).read(&file, 100).is_ok());

    let (shared, _) = place();
    mode(shared.path(), 0o1777);
    let target = dir.path().join("ours");
    fs::write(&target, "text").unwrap();
    let link = shared.path().join("link");
    symlink(&target, &link).unwrap();
    assert!(trust.read(&link, 100).is_ok());
    std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
    assert!(matches!(trust.read(&link, 100), Err(TrustError::Owner { owner: OTHER, .. })));

    chown(dir.path(), Some(OTHER), None).unwrap();
    let error = trust.read(&target, 100).unwrap_err().to_string();
    assert!(error.contains(&format!(
        "{} belongs to user {OTHER}, who could change {}",
        dir.path().display(),
        target.display()
    )));
}
