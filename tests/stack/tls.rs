//! TLS to Vault: the authority, the name and the client certificate are checked, and each failure is named at the start.

use crate::broker::Setup;
use crate::harness::Server;

against_both! {
    a_certificate_of_the_given_authority_is_trusted
    a_client_certificate_is_shown_where_it_is_demanded
    what_does_not_fit_is_permanent_and_named
}

fn over_tls<'a>(server: &'a Server, address: &str) -> Setup<'a> {
    Setup::new(server)
        .set("vault", "address", server.says(address))
        .set("vault", "ca_file", server.says("ca_file"))
        .set("vault", "tls_server_name", server.says("server_name"))
}

fn a_certificate_of_the_given_authority_is_trusted(server: &Server) {
    let broker = over_tls(server, "tls_address").start();
    broker.credential("orders");
    broker.finish();
}

fn a_client_certificate_is_shown_where_it_is_demanded(server: &Server) {
    let broker = over_tls(server, "mtls_address")
        .set("vault", "client_cert", server.says("client_cert"))
        .set("vault", "client_key", server.says("client_key"))
        .start();
    broker.credential("orders");
    broker.finish();
}

fn what_does_not_fit_is_permanent_and_named(server: &Server) {
    let tls = || over_tls(server, "tls_address");
    let plain = server.says("address").replace("http://", "https://");
    for (what, setup, words) in [
        ("another authority", tls().unset("vault", "ca_file"), &["unknown authority", "CA file"][..]),
        (
            "another name",
            tls().set("vault", "tls_server_name", "elsewhere.test"),
            &["another name", "elsewhere.test", "TLS server name"],
        ),
        ("no client certificate", over_tls(server, "mtls_address"), &["client certificate"]),
        (
            "a CA file that is not there",
            tls().set("vault", "ca_file", "/nowhere/ca.pem"),
            &["/nowhere/ca.pem"],
        ),
        ("no TLS there", tls().set("vault", "address", &plain), &["does not speak TLS", "http://"]),
        (
            "TLS there",
            Setup::new(server).set(
                "vault",
                "address",
                &server.says("tls_address").replace("https://", "http://"),
            ),
            &["https://"],
        ),
    ] {
        let (code, log) = setup.refused();
        assert_eq!(code, 1, "{what}: {log}");
        for word in words {
            assert!(log.contains(word), "{what}: {word:?} is not in:\n{log}");
        }
    }
}
