//! What is secret is where it is asked for, and nowhere else.

use std::io::Write as _;
use std::path::Path;

use rustix::process::{Resource, Rlimit, prlimit};

use crate::broker::{Broker, VALUES, content, path, pause, read};

#[test]
fn no_secret_handle_or_token_is_in_an_output() {
    let broker = Broker::dev();
    let mut told = String::new();
    let mut handles = Vec::new();
    for (_, place) in broker.places() {
        for number in 0..VALUES {
            read(&mut place.connect().expect("connected"), number);
        }
        let mut socket = place.connect().expect("connected");
        let body = "{\"subject\": \"ada\"}";
        let more = format!("content-length: {}\r\n", body.len());
        socket.write_all(place.request("POST", "/tenure/runs", &more, body).as_bytes()).expect("written");
        let run: serde_json::Value =
            serde_json::from_str(&socket.answer().expect("an answer").body).expect("JSON");
        let handle = run["handle"].as_str().expect("a handle").to_owned();
        for target in [
            path(1).as_str(),
            "/v1/secret/data/none",
            "/v1/database/creds/none",
            "/v1/a//b",
            "/tenure/leases",
        ] {
            let as_run =
                format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nx-vault-token: {handle}\r\n\r\n");
            socket.write_all(as_run.as_bytes()).expect("written");
            let answer = socket.answer().expect("an answer");
            if answer.status != 200 {
                told += &answer.body;
            }
        }
        for page in ["/tenure/leases", "/tenure/runs", "/tenure/ready", "/metrics", "/nothing"] {
            told += &place.once(page).expect("a page").body;
        }
        told += &place
            .once(&format!("/tenure/runs/{}", run["id"].as_str().expect("an id")))
            .expect("a page")
            .body;
        // Whoever puts a secret into a place where none belongs does not read it back.
        for misplaced in [format!("/v1/{handle}/%zz"), format!("/v1/secret/data/x?token={handle}")] {
            told += &place.once(&misplaced).expect("an answer").body;
        }
        handles.push(handle);
    }
    pause(200);
    told += &broker.audit();
    told += &broker.log();
    for number in 0..VALUES {
        assert!(!told.contains(&content(number)), "a value is in an output");
    }
    for secret in handles.iter().map(String::as_str).chain([broker.token()]) {
        assert!(!told.contains(secret), "a handle or the local token is in an output:\n{told}");
    }
    broker.finish();
}

/// Comparing byte by byte until the first difference tells where it is, to who measures. Handles are looked up by their hash
/// (`runs::registry`) and compared with [`tenure::secret::Credential::matches`]; that nothing else compares them is seen in
/// the sources.
#[test]
fn what_is_presented_is_compared_in_constant_time_alone() {
    fn look(dir: &Path, wrong: &mut Vec<String>, files: &mut usize) {
        for entry in std::fs::read_dir(dir).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look(&path, wrong, files);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if path
                .components()
                .any(|part| ["tests.rs", "fuzz.rs"].iter().any(|name| part.as_os_str() == *name))
            {
                continue;
            }
            *files += 1;
            for line in code.lines().filter(|line| line.contains("expose()")) {
                if line.contains("==")
                    || line.contains("!=")
                    || line.contains(".eq(")
                    || line.contains(".cmp(")
                {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    let (mut wrong, mut files) = (Vec::new(), 0);
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut wrong, &mut files);
    assert!(files > 100, "the sources are not where they are looked for");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn nothing_is_disclosed_that_cannot_be_written_down() {
    // An ignored signal stays so: a file that may not grow is an error then, as a full disk is.
    let broker = Broker::dev_after("trap '' XFSZ");
    for (_, place) in broker.places() {
        read(&mut place.connect().expect("connected"), 1);
        let size = std::fs::metadata(broker.path("audit.jsonl")).expect("the log").len();
        let limit =
            |bytes| prlimit(Some(broker.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None });
        limit(Some(size + 100)).expect("our child");
        let mut kept = place.connect().expect("connected");
        for _ in 0..20 {
            let refused = kept.ask(&path(1)).expect("an answer");
            assert_eq!(refused.status, 503, "{}", refused.body);
            assert!(
                refused.body.contains("audit log") && !refused.body.contains(&content(1)),
                "{}",
                refused.body
            );
        }
        limit(None).expect("our child");
        crate::broker::until("it reads again", std::time::Duration::from_secs(10), || {
            kept.ask(&path(1)).is_ok_and(|answer| answer.status == 200)
        });
    }
    broker.finish();
}
