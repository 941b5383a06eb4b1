//! Sealed subjects by real transit engines: the binary's commands, with a real login, against an issuer that is played.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::broker::Setup;
use crate::harness::{Server, text};

against_both!(a_token_is_sealed_and_the_seal_checked);

const ARN: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:root";
const OTHER: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:other";

/// An issuer with one Ed25519 key, for as long as the test runs.
pub(crate) struct Issuer {
    url: String,
    key: Ed25519KeyPair,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")});
        let x = encoded(key.public_key());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or_default();
                let keys = head[..read].starts_with(b"GET /jwks");
                let body = if keys { &jwks } else { &discovery }.to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                // A client that went away shows in what it does.
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { url, key }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let claims = json!({"iss": self.url, "aud": "tenure", "sub": "ada", "groups": ["staff", "admins"], "exp": now + 600});
        let message = format!("{}.{}", encoded(r#"{"alg":"EdDSA","kid":"k"}"#), encoded(claims.to_string()));
        format!("{message}.{}", encoded(self.key.sign(message.as_bytes())))
    }
}

#[track_caller]
fn operate(server: &Server, path: &str, body: &Value) {
    let answer = server.admin("PUT", path, Some(body));
    assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn a_token_is_sealed_and_the_seal_checked(server: &Server) {
    let issuer = Issuer::start();
    let with = |role: &str, key: &str| {
        Setup::new(server).set("vault.auth.aws", "role", role).and(&format!(
            "[subject]\ngroups = [\"admins\"]\n[subject.seal]\nkey = \"{key}\"\n[[subject.issuer]]\nurl = \"{}\"\naudiences = \
             [\"tenure\"]\nallow_loopback_http = true\n",
            issuer.url
        ))
    };
    let entry = with("orders-seal", "tenure-subject");
    let task = with("orders-subject", "tenure-subject");
    let token = issuer.token();
    std::fs::write(entry.dir().join("token"), &token).expect("a file");
    let file = entry.dir().join("token").display().to_string();
    let seal = |setup: &Setup<'_>, more: &[&str]| {
        let words = ["subject", "seal", "--token-file", &file, "--execution-arn", ARN];
        setup.command(&[&words, more].concat())
    };

    let said = seal(&entry, &["--json"]);
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!((said.status.code(), &*err), (Some(0), ""), "{out}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["subject"]["id"], "ada");
    let sealed = text(&said["sealed"]).to_owned();
    assert!(sealed.starts_with("tns1.") && !out.contains(&token));

    let checked = |setup: &Setup<'_>, sealed: &str, more: &[&str]| {
        let file = setup.dir().join("seal");
        std::fs::write(&file, sealed).expect("a file");
        let file = file.display().to_string();
        let said = setup.command(&[&["subject", "verify", "--json", "--file", &file], more].concat());
        (
            said.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned(),
        )
    };
    let (code, out) = checked(&task, &sealed, &["--execution-arn", ARN]);
    assert_eq!(code, 0, "{out}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["subject"]["groups"], json!(["admins"]));
    assert_eq!(said["subject"]["issuer"], issuer.url);
    let child = ["--execution-arn", OTHER, "--parent-execution-arn", ARN];
    assert_eq!(checked(&task, &sealed, &child).0, 0, "a child names its parent");
    let (code, out) = checked(&task, &sealed, &["--execution-arn", OTHER]);
    assert!(code == 1 && out.contains("for another execution"), "{code} {out}");
    let (payload, _) = sealed.rsplit_once('.').expect("a signature");
    let (code, out) = checked(&task, &format!("{payload}.{}", "A".repeat(86)), &["--execution-arn", ARN]);
    assert!(code == 1 && out.contains("not signed by that key"), "{code} {out}");

    // A task may check and not seal, and a key that is not there is said.
    let said = seal(&task, &[]);
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && said.stdout.is_empty(), "{err}");
    assert!(err.contains("lacks update on transit/sign/tenure-subject"), "{err}");
    let said = seal(&with("orders-seal", "none"), &[]);
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && err.contains("lacks update on transit/sign/none"), "{err}");

    // Rotated: both good. Retired: the old one is not.
    operate(server, "transit/keys/tenure-subject/rotate", &json!({}));
    assert_eq!(checked(&task, &sealed, &["--execution-arn", ARN]).0, 0, "rotated");
    let said = seal(&entry, &[]);
    let newer = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    assert_eq!(newer.split('.').nth(2), Some("2"), "{newer}");
    assert_eq!(checked(&task, &newer, &["--execution-arn", ARN]).0, 0, "by the new version");
    let least = json!({"min_decryption_version": 2});
    operate(server, "transit/keys/tenure-subject/config", &least);
    let (code, out) = checked(&task, &sealed, &["--execution-arn", ARN]);
    assert!(code == 1 && out.contains("versions below 2 were retired"), "{code} {out}");
    assert_eq!(checked(&task, &newer, &["--execution-arn", ARN]).0, 0, "the new version counts");
}
