//! Vault, and who pretends to be it: nothing is said to a server whose certificate is not good.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::broker::{Serve, path, until};

/// What a server has read in clear.
type Heard = Arc<Mutex<Vec<u8>>>;

/// Unavailable, whatever is asked: the broker asks again.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posture/tls").join(name).display().to_string()
}

/// A server with that certificate, or without TLS.
fn server(certificate: Option<&str>) -> (SocketAddr, Heard) {
    let config = certificate.map(|name| {
        let chain =
            vec![CertificateDer::from_pem_file(fixture(&format!("{name}.pem"))).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("a certificate that fits its key"))
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (config, hears) = (config.clone(), Arc::clone(&hears));
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut buffer = [0; 8192];
                let hear = |bytes: &[u8]| hears.lock().expect("the lock").extend_from_slice(bytes);
                if let Some(config) = config {
                    let mut tls = ServerConnection::new(config).expect("a connection");
                    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
                    if let Ok(count) = tls.read(&mut buffer) {
                        hear(&buffer[..count]);
                        let _ = tls.write_all(BUSY);
                        let _ = tls.flush();
                    }
                } else if let Ok(count) = stream.read(&mut buffer) {
                    hear(&buffer[..count]);
                    let _ = stream.write_all(BUSY);
                }
            });
        }
    });
    (address, heard)
}

fn over_tls(certificate: &str) -> (Serve, Heard) {
    let (address, heard) = server(Some(certificate));
    let reach = format!("ca_file = \"{}\"\ntls_server_name = \"vault.test\"", fixture("ca.pem"));
    (Serve { vault: format!("https://{address}"), reach, ..Serve::default() }, heard)
}

#[test]
fn a_good_certificate_is_spoken_to() {
    let (serve, heard) = over_tls("good");
    let broker = serve.start();
    until("it asks", Duration::from_secs(20), || !heard.lock().expect("the lock").is_empty());
    let text = String::from_utf8_lossy(&heard.lock().expect("the lock")).into_owned();
    assert!(text.contains("hvs.login-token-of-nobody"), "{text}");
    broker.finish();
}

#[test]
fn bad_certificates_are_refused_before_anything_is_said() {
    for (certificate, words) in
        [("expired", "expired"), ("elsewhere", "another name"), ("self-signed", "authority")]
    {
        let (serve, heard) = over_tls(certificate);
        let log = serve.refused();
        assert!(log.contains(words), "{certificate}: {words:?} is not in {log}");
        assert!(!log.contains("hvs.login"), "{log}");
        assert_eq!(heard.lock().expect("the lock").len(), 0, "{certificate}: something was said");
    }
    // The platform's authorities do not know ours.
    let (serve, heard) = over_tls("good");
    let log = Serve { reach: "tls_server_name = \"vault.test\"".to_owned(), ..serve }.refused();
    assert!(log.contains("authorit"), "{log}");
    assert_eq!(heard.lock().expect("the lock").len(), 0);
}

/// Perhaps a real one, with rights that the run has not.
#[test]
fn a_token_that_is_none_of_ours_goes_nowhere() {
    const STRANGER: &str = "hvs.CAESIJstrangerstrangerstranger";
    let (address, heard) = server(None);
    let serve = Serve { vault: format!("http://{address}"), ..Serve::default() };
    let broker = serve.start();
    let place = broker.unix();
    for header in ["x-vault-token: ", "authorization: Bearer ", "authorization: "] {
        for method in ["GET", "LIST", "PUT", "POST", "DELETE"] {
            let mut socket = place.connect().expect("connected");
            let text = place.request(method, &path(1), &format!("{header}{STRANGER}\r\n"), "");
            socket.write_all(text.as_bytes()).expect("written");
            let answer = socket.answer().expect("an answer");
            assert_eq!(answer.status, 403, "{}", answer.body);
            assert!(!answer.body.contains(STRANGER), "{}", answer.body);
        }
    }
    until("it asks for its own sake", Duration::from_secs(20), || heard.lock().expect("the lock").len() > 50);
    assert!(
        !String::from_utf8_lossy(&heard.lock().expect("the lock")).contains(STRANGER),
        "it was forwarded"
    );
    for output in [broker.log(), broker.audit()] {
        assert!(!output.contains(STRANGER), "it is in an output");
        assert!(!output.contains("hvs.login-token-of-nobody"), "our own is in an output");
    }
    broker.finish();
}
