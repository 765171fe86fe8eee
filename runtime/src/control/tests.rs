use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    thread,
};

use crossbeam_channel::unbounded;

use super::*;
use crate::agent::Order;

fn answered(mode: &str, error: Option<&str>) -> Answered {
    Answered {
        version: VERSION,
        error: error.map(str::to_owned),
        mode: mode.to_owned(),
        policies: vec![Standing {
            policy: "p".into(),
            mode: "audit".into(),
            why: "because".into(),
            tables: vec![Tabled { scope: "command".into(), mode: "audit".into() }],
        }],
        released: 3,
    }
}

/// An agent that answers as it is told, and what it was asked.
fn serve(directory: &Path, answer: Answered) -> crossbeam_channel::Receiver<Request> {
    let (orders, ordered) = unbounded();
    let (asked, requests) = unbounded();
    thread::spawn(move || {
        while let Ok(Order::Control(request, sender)) = ordered.recv() {
            asked.send(request).unwrap();
            let _ = sender.send(answer.clone());
        }
    });
    let directory = directory.to_owned();
    let (ready, is_ready) = unbounded();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let control = Control::bind(&directory, "a").unwrap();
            ready.send(()).unwrap();
            control.serve(orders).await;
        });
    });
    is_ready.recv().unwrap();
    requests
}

#[test]
fn a_request_reaches_the_agent_and_its_answer_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    // Left behind by an agent that was killed.
    std::fs::write(path(directory.path(), "a"), "").unwrap();
    let requests = serve(directory.path(), answered("enforce", None));
    let socket = path(directory.path(), "a");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for request in [
        Request::Mode { set: None, policy: None },
        Request::Mode { set: Some("audit".into()), policy: Some("p".into()) },
        Request::Release { policy: None },
    ] {
        let found = ask(directory.path(), "a", request.clone()).unwrap();
        assert_eq!((found, requests.recv().unwrap()), (answered("enforce", None), request));
    }
}

#[test]
fn a_refusal_is_an_error_and_so_is_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let _requests = serve(directory.path(), answered("audit", Some("there is no policy `q`")));
    let request = Request::Release { policy: Some("q".into()) };
    let error = ask(directory.path(), "a", request.clone()).unwrap_err().to_string();
    assert_eq!(error, "there is no policy `q`");
    let error = ask(directory.path(), "b", request).unwrap_err().to_string();
    assert!(error.starts_with("no agent `b` runs: nobody listens at "), "{error}");
}

#[test]
fn what_is_not_understood_is_answered_and_the_next_line_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let requests = serve(directory.path(), answered("audit", None));
    let mut stream = UnixStream::connect(path(directory.path(), "a")).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for (line, expected) in [
        ("", "not understood"),
        ("{\"version\":2,\"do\":\"mode\"}", "version 2 is not spoken here, expected version 1"),
        ("{\"version\":1,\"do\":\"dance\"}", "unknown variant `dance`"),
        ("{\"version\":1,\"do\":\"mode\"}", "\"mode\":\"audit\""),
    ] {
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains(expected), "{line}: {answer}");
    }
    assert_eq!(requests.try_iter().count(), 1);
    stream.write_all(&vec![b' '; MAX_LINE]).unwrap();
    let mut answer = String::new();
    answers.read_line(&mut answer).unwrap();
    assert!(answer.contains("a line of more than 65536 bytes"), "{answer}");
    answer.clear();
    assert_eq!(answers.read_line(&mut answer).unwrap(), 0, "{answer}");
}
