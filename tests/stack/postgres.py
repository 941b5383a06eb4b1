"""PostgreSQL: the database whose users Vault and OpenBao make and end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from child import Child, Children, StartError, clean_environment, free_ports, wait_for
from layout import EXTRA, POLICIES

DATABASE = "orders"
SUPERUSER = "postgres"


def binaries() -> Path | None:
    """The directory of initdb, postgres and psql: the newest installed, or from PATH."""
    found = sorted(
        (p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda p: float(p.parent.name) if p.parent.name.replace(".", "").isdigit() else 0.0,
    )
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def service_user() -> tuple[int, int] | None:
    """Who PostgreSQL runs as: it refuses root, so root lends it another user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            continue
    raise StartError("run as root, PostgreSQL needs a user `postgres` or `nobody` to run as")


def can_reach(directory: Path) -> bool:
    """May the service user enter this directory? (A home directory often forbids it.)"""
    user = service_user()
    if user is None:
        return True
    probe = subprocess.run(
        ["test", "-x", str(directory)], user=user[0], group=user[1], extra_groups=[], check=False
    )
    return probe.returncode == 0


@dataclass(frozen=True)
class Admin:
    """The database user that one Vault makes users with; not a superuser."""

    user: str
    password: str


class Postgres:
    """One throw-away cluster: TCP on loopback only, scram-sha-256, no durability."""

    def __init__(self, children: Children, run_dir: Path) -> None:
        bin_dir = binaries()
        if bin_dir is None:
            raise StartError("PostgreSQL's server is missing: run `stack.py setup`")
        self._children = children
        self._bin = bin_dir
        self._user = service_user()
        self._home = run_dir / "postgres"
        self._data = self._home / "data"
        self._env = clean_environment(self._home)
        self.password = secrets.token_hex(16)
        self.psql = str(bin_dir / "psql")
        self.port = 0
        self._home.mkdir()
        password_file = self._home / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        if self._user is not None:
            for path in (self._home, password_file):
                os.chown(path, *self._user)
        self._init = children.spawn(
            "initdb",
            [str(bin_dir / "initdb"), "--no-sync", "--auth=scram-sha-256", f"--username={SUPERUSER}",
             f"--pwfile={password_file}", "--locale=C", "--encoding=UTF8", f"--pgdata={self._data}"],
            log=run_dir / "initdb.log", env=self._env, user=self._user,
        )
        self._log = run_dir / "postgres.log"

    def start(self) -> None:
        """Waits for initdb (started by the constructor), then starts the server."""
        if self._init.process.wait(60) != 0:
            raise StartError(f"initdb failed:\n{self._init.last_log_lines()}")
        self._children.forget(self._init)
        for _ in range(5):
            self.port = free_ports(1)[0]
            child = self._spawn()
            if wait_for(child, self._accepts, seconds=30):
                return
            self._children.forget(child)
        raise StartError("PostgreSQL found no free port in five attempts")

    def _spawn(self) -> Child:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            # The data is thrown away at the end: durability would only cost time.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return self._children.spawn(
            "postgres",
            [str(self._bin / "postgres"), "-D", str(self._data), *options],
            log=self._log, env=self._env, user=self._user,
            # Immediate shutdown: it ends the backends too, which are in groups of their own.
            stop_signal=signal.SIGQUIT, death_signal=signal.SIGQUIT,
        )

    def _accepts(self) -> bool:
        ready = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            env=self._env, check=False,
        )
        return ready.returncode == 0

    def prepare(self, admins: list[Admin]) -> None:
        """The application's database, and one admin per Vault by the shipped statements."""
        self._run_sql("postgres", ["-c", f"CREATE DATABASE {DATABASE}"])
        for admin in admins:
            self._run_sql(
                DATABASE,
                ["-v", f"admin={admin.user}", "-v", f"admin_password={admin.password}",
                 "-f", str(POLICIES / "postgres" / "vault-admin.sql")],
            )
        self._run_sql(DATABASE, ["-f", str(EXTRA / "orders-table.sql")])

    def _run_sql(self, database: str, arguments: list[str]) -> None:
        done = subprocess.run(
            [self.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
             "-U", SUPERUSER, "-d", database, *arguments],
            env=self._env | {"PGPASSWORD": self.password},
            capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise StartError(f"psql {' '.join(arguments)}:\n{done.stderr}")

    def describe(self) -> dict[str, object]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "dbname": DATABASE,
            "admin_user": SUPERUSER,
            "admin_password": self.password,
            "psql": self.psql,
            "log": str(self._log),
        }
