//! The image that is nothing but the binary: a root that is read-only, without a shell, `/etc/passwd`, `/tmp`, `/proc`,
//! `/dev` or a HOME, as any user.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::broker::{Process, TENURE, must_have, run, text};
use crate::vault::{CANARY, Vault};

const NAMESPACE: &[&str] =
    &["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];

/// Makes the root read-only but for the two volumes, and starts the binary in it, as the user that is asked for.
const ENTER: &str = "set -e
mount --bind \"$1\" \"$1\"
mount --bind \"$2\" \"$1/run/tenure\"
mount --bind \"$3\" \"$1/var/log/tenure\"
mount -o remount,bind,ro \"$1\"
root=$1 user=$4
shift 4
exec unshare --user --map-user=\"$user\" --map-group=\"$user\" --root=\"$root\" -- /tenure \"$@\"";

/// A root for `tenure`, with its two volumes beside it.
struct Image {
    folder: tempfile::TempDir,
    user: &'static str,
}

impl Image {
    fn new(vault: &Vault, user: &'static str) -> Self {
        // On the file system of the binary, so that it need not be copied.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let image = Self { folder, user };
        for folder in ["root/run/tenure", "root/var/log/tenure", "root/etc/tenure", "run", "log"] {
            std::fs::create_dir_all(image.path(folder)).expect("a folder");
        }
        let binary = image.path("root/tenure");
        if std::fs::hard_link(TENURE, &binary).is_err() {
            std::fs::copy(TENURE, &binary).expect("the binary");
        }
        // Nothing, where it is linked statically.
        let libraries = text(
            &run({
                let mut ldd = Command::new("ldd");
                ldd.arg(TENURE);
                ldd
            })
            .stdout,
        );
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = image.path("root").join(&library[1..]);
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            std::fs::copy(library, to).expect("a library");
        }
        std::fs::write(image.path("root/etc/tenure/secret-id"), format!("{CANARY}secret-id"))
            .expect("a file");
        std::fs::write(
            image.path("root/etc/tenure/tenure.toml"),
            format!(
                "vault.address = \"{}\"\nrun.token_role = \"run\"\naudit.file = \"/var/log/tenure/audit.jsonl\"\n\
                 [listen.unix]\npath = \"/run/tenure/tenure.sock\"\n\
                 [listen.tcp]\naddress = \"127.0.0.1:0\"\ntoken_file = \"/run/tenure/token\"\n\
                 [vault.auth.approle]\nrole_id = \"orders\"\nsecret_id_file = \"/etc/tenure/secret-id\"\n\
                 [[prefetch]]\npath = \"database/creds/orders\"\n",
                vault.address
            ),
        )
        .expect("a file");
        image
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tenure` in the image.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(NAMESPACE[0]);
        command.args(&NAMESPACE[1..]).args(["sh", "-c", ENTER, "sh"]);
        command.args([self.path("root"), self.path("run"), self.path("log")]).arg(self.user).args(words);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        run(self.command(words))
    }
}

/// Every path below `folder`, with its size and mode.
fn listed(folder: &Path) -> BTreeSet<(PathBuf, u64, u32)> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let about = entry.metadata().expect("its data");
        found.insert((entry.path(), about.len(), about.permissions().mode()));
        if about.is_dir() {
            found.extend(listed(&entry.path()));
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = listed(folder)
        .into_iter()
        .map(|(path, ..)| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_binary_alone_is_enough() {
    must_have(NAMESPACE);
    let vault = Vault::start();
    for user in ["65532", "4242", "0"] {
        let image = Image::new(&vault, user);
        let before = listed(&image.path("root"));
        let refused = image.run(&["dev", "--init", "/seed.toml"]);
        assert!(text(&refused.stderr).contains("Read-only file system"), "{}", text(&refused.stderr));

        for words in [&["health"][..], &["ready"], &["wait", "--timeout", "0s"]] {
            let output = image.run(words);
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            assert!(text(&output.stderr).contains("there is no such socket"), "{}", text(&output.stderr));
        }
        let mut broker = Process::start(image.command(&["serve"]));
        // It becomes a command without a shell: itself, as there is nothing else.
        let started = image.run(&["wait", "--", "/tenure", "get", "secret/data/app", "--field", "key"]);
        assert_eq!(
            text(&started.stdout),
            format!("{CANARY}value"),
            "{}\n{}",
            text(&started.stderr),
            broker.said()
        );
        for (words, said) in [(&["health"][..], "alive\n"), (&["ready"], "ready\n"), (&["wait"], "ready\n")] {
            let output = image.run(words);
            assert_eq!((text(&output.stdout).as_str(), output.status.code()), (said, Some(0)), "{words:?}");
        }
        assert_eq!(names(&image.path("run")), ["tenure.sock", "token"]);
        broker.signal(Signal::TERM);
        assert_eq!(broker.ended().code(), Some(0), "{}", broker.said());
        assert_eq!(vault.tokens(), 0, "{}", broker.said());

        // The two volumes are all that was written to.
        assert_eq!(listed(&image.path("root")), before);
        assert_eq!(names(&image.path("run")), ["token"]);
        assert_eq!(names(&image.path("log")), ["audit.jsonl", "audit.jsonl.orphans"]);
        let said = broker.said();
        assert!(said.lines().all(|line| line.starts_with('{')), "JSON, as stderr is no terminal: {said}");
    }
}
