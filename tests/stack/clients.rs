//! Vault's own clients, unchanged: only their address, and on TCP their token, points at the broker.

use std::process::{Command, Stdio};

use serde_json::Value;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};

use crate::broker::{Broker, Setup};
use crate::harness::{Server, text};
use crate::http::Place;

against_both! {
    the_command_line_reads_over_both_doors
    hvac_reads_over_tcp
    vaultrs_reads_over_tcp
}

const KV1: &str = "canary-kv1-91bc";
const KV2: &str = "canary-kv2-7f3a";

/// The address and the token of a door, as clients take them from the environment.
fn door(broker: &Broker<'_>, place: &Place) -> Vec<(&'static str, String)> {
    match place {
        Place::Unix(path) => vec![("VAULT_ADDR", format!("unix://{}", path.display()))],
        Place::Tcp(address) => {
            vec![("VAULT_ADDR", format!("http://{address}")), ("VAULT_TOKEN", broker.token())]
        }
    }
}

/// Runs a program with nothing but these variables, and takes its JSON.
#[track_caller]
fn output(broker: &Broker<'_>, program: &str, words: &[&str], variables: &[(&str, String)]) -> Value {
    let output = Command::new(program)
        .args(words)
        .env_clear()
        .env("HOME", broker.setup.dir())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .expect("the client's binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {words:?}: {said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words:?}: {output:?}"))
}

fn the_command_line_reads_over_both_doors(server: &Server) {
    let broker = Setup::new(server).start();
    let login = broker.credential("orders");
    for place in [broker.unix(), broker.tcp()] {
        let variables = door(&broker, &place);
        let cli = |words: &[&str]| output(&broker, server.says("bin"), words, &variables);
        let read = cli(&["read", "-format=json", "database/creds/orders"]);
        assert_eq!(read["data"]["username"], login.user.as_str());
        assert_eq!(read["data"]["password"], login.password.as_str());
        assert_eq!(read["lease_id"], login.lease_id.as_str());
        assert!(read["lease_duration"].as_u64().is_some_and(|left| left > 200 && left <= 300), "{read}");
        let read = cli(&["read", "-format=json", "kv1/orders/config"]);
        assert_eq!(read["data"]["password"], KV1);
        let got = cli(&["kv", "get", "-format=json", "secret/orders/config"]);
        assert_eq!(got["data"]["data"]["password"], KV2);
        let got = cli(&["kv", "get", "-format=json", "-mount=secret", "-version=1", "orders/config"]);
        assert_eq!(got["data"]["metadata"]["version"], 1);
        let got = cli(&["kv", "get", "-format=json", "kv1/orders/config"]);
        assert_eq!(got["data"]["password"], KV1);
        assert_eq!(cli(&["kv", "list", "-format=json", "secret/orders"])[0], "config");
        assert_eq!(cli(&["list", "-format=json", "secret/metadata/orders"])[0], "config");
        let lookup = cli(&["token", "lookup", "-format=json"]);
        assert_eq!(lookup["data"]["meta"]["run"], broker.run.as_str());
        assert_eq!(lookup["data"]["id"], "", "the token itself stays with the broker");
    }
    assert_eq!(server.asked(&broker.run, "database/creds/orders"), 1, "all of them share one credential");
    broker.finish();
}

fn hvac_reads_over_tcp(server: &Server) {
    const PROGRAM: &str = "
import hvac, json
client = hvac.Client()
assert client.is_authenticated()
print(json.dumps([
    client.read('database/creds/orders'),
    client.secrets.database.generate_credentials('orders'),
    client.secrets.kv.v2.read_secret_version(path='orders/config', raise_on_deleted_version=True),
    client.secrets.kv.v2.list_secrets(path='orders'),
    client.secrets.kv.v1.read_secret(path='orders/config', mount_point='kv1'),
]))
try:
    client.secrets.kv.v2.create_or_update_secret(path='orders/config', secret={'a': 'b'})
except hvac.exceptions.InvalidRequest: raise
except hvac.exceptions.VaultError as error:
    assert 'serves reads' in str(error), error
else:
    raise AssertionError('a write was taken')
";
    let broker = Setup::new(server).start();
    let login = broker.credential("orders");
    let variables = door(&broker, &broker.tcp());
    let got = output(&broker, text(&server.stack["python"]), &["-c", PROGRAM], &variables);
    for read in [&got[0], &got[1]] {
        assert_eq!(read["data"]["username"], login.user.as_str());
        assert_eq!(read["data"]["password"], login.password.as_str());
    }
    assert_eq!(got[2]["data"]["data"]["password"], KV2);
    assert_eq!(got[3]["data"]["keys"][0], "config");
    assert_eq!(got[4]["data"]["password"], KV1);
    broker.finish();
}

fn vaultrs_reads_over_tcp(server: &Server) {
    // A program of its own chooses a provider, as an application would.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let broker = Setup::new(server).start();
    let login = broker.credential("orders");
    let Place::Tcp(address) = broker.tcp() else { panic!("a TCP door") };
    let settings = VaultClientSettingsBuilder::default()
        .address(format!("http://{address}"))
        .token(broker.token())
        .build()
        .expect("settings");
    let client = VaultClient::new(settings).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let got = vaultrs::database::role::creds(&client, "database", "orders").await.expect("a credential");
        assert_eq!((got.username, got.password), (login.user.clone(), login.password.clone()));
        let got: Value = vaultrs::kv2::read(&client, "secret", "orders/config").await.expect("KV 2");
        assert_eq!(got["password"], KV2);
        // Other tests have secrets there, too.
        let listed = vaultrs::kv2::list(&client, "secret", "orders").await.expect("a list");
        assert_eq!(listed.first().map(String::as_str), Some("config"));
        let got: Value = vaultrs::kv1::get(&client, "kv1", "orders/config").await.expect("KV 1");
        assert_eq!(got["password"], KV1);
        let itself = vaultrs::token::lookup_self(&client).await.expect("a look-up");
        assert_eq!(itself.renewable, Some(false));
    });
    drop((client, runtime));
    broker.finish();
}
