"""Runs the commands of `policies/README.md` as they stand, on an empty server.

A document that is executed cannot go stale.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from api import Api
from check_report import expect, until
from child import free_ports
from layout import POLICIES, PROJECT

Json = dict[str, Any]


def check_readme(stack: Json, name: str) -> None:
    """The first `sh` block of the page, then the rotation that follows it, then a read."""
    block = (POLICIES / "README.md").read_text().partition("```sh\n")[2].partition("```")[0]
    server, sts, postgres = stack[name], stack["sts"], stack["postgres"]
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with tempfile.TemporaryDirectory() as scratch:
        # The page says `vault`; with OpenBao that is `bao`.
        (Path(scratch) / "vault").symlink_to(server["bin"])
        environment = {
            "PATH": f"{scratch}:/usr/bin:/bin",
            "HOME": scratch,
            "VAULT_ADDR": address,
            "VAULT_TOKEN": "root",
            "AWS_ACCOUNT_ID": sts["account_id"],
            "AWS_REGION": sts["region"],
            "STS_ENDPOINT": sts["url"],
            "IAM_ENDPOINT": sts["url"],
            "VAULT_SERVER_ID": server["server_id"],
            "POSTGRES_ADDRESS": f"{postgres['host']}:{postgres['port']}",
            "POSTGRES_DATABASE": postgres["dbname"],
            "POSTGRES_SSLMODE": "disable",
            "POSTGRES_ADMIN_USER": "readme_admin",
            "POSTGRES_ADMIN_PASSWORD": "first-password",
            "USERNAME_PREFIX": "readme",
        }
        _database_admin(postgres, environment)
        dev = subprocess.Popen(
            [server["bin"], "server", "-dev", "-dev-root-token-id=root",
             f"-dev-listen-address={address.removeprefix('http://')}",
             f"-dev-plugin-dir={server['plugins']}"],
            env=server["env"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            api = Api(address, "root")
            until(lambda: api.health() == 200, 20)
            commands = block + "\nvault write -force database/rotate-root/orders\n"
            done = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-c", commands],
                cwd=PROJECT, env=environment, capture_output=True, text=True, check=False,
            )
            expect(done.returncode == 0, done.stderr)
            secret = api.get("database/creds/orders")
            expect(secret["data"]["username"].startswith("readme-orders-"), secret)
            api.put("sys/leases/revoke", {"lease_id": secret["lease_id"], "sync": True})
        finally:
            dev.terminate()
            dev.wait(20)
            _psql(postgres, environment, ["-c", "DROP OWNED BY readme_admin; DROP ROLE readme_admin"])


def _database_admin(postgres: Json, environment: dict[str, str]) -> None:
    _psql(postgres, environment, [
        "-v", f"admin={environment['POSTGRES_ADMIN_USER']}",
        "-v", f"admin_password={environment['POSTGRES_ADMIN_PASSWORD']}",
        "-f", str(POLICIES / "postgres" / "vault-admin.sql"),
    ])


def _psql(postgres: Json, environment: dict[str, str], arguments: list[str]) -> None:
    done = subprocess.run(
        [postgres["psql"], "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", postgres["host"],
         "-p", str(postgres["port"]), "-U", postgres["admin_user"], "-d", postgres["dbname"], *arguments],
        env=os.environ | environment | {"PGPASSWORD": postgres["admin_password"]},
        capture_output=True, text=True, check=False,
    )
    expect(done.returncode == 0, done.stderr)
