"""Configures a fresh server with the shipped policies, and beside them what only tests need.

What is read from `policies/` is what users are told to apply: if it did not work, no test
of the stack would. What is made up here (roles named `...-short`, `...-batch` and so on)
shows the edges and is not shipped.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from api import Api, ApiError
from layout import EXTRA, POLICIES, REGION, SERVER_ID
from postgres import DATABASE, Admin
from server import Server

AUDITED_HEADERS = ("X-Tenure-Request", "X-Tenure-Run", "X-Tenure-Chain")
PLACEHOLDER = re.compile(r"\$\{([A-Z_]+)\}")

Json = dict[str, Any]


def configure(server: Server, admin: Admin, postgres_port: int, sts: Json) -> None:
    """Everything, over the HTTP API, as an operator would with the CLI."""
    api = server.api()
    values = {
        "AWS_ACCOUNT_ID": sts["account_id"],
        "AWS_REGION": REGION,
        "STS_ENDPOINT": sts["url"],
        "IAM_ENDPOINT": sts["url"],
        "VAULT_SERVER_ID": SERVER_ID,
        "POSTGRES_ADDRESS": f"127.0.0.1:{postgres_port}",
        "POSTGRES_DATABASE": DATABASE,
        "POSTGRES_SSLMODE": "disable",
        "POSTGRES_ADMIN_USER": admin.user,
        "POSTGRES_ADMIN_PASSWORD": admin.password,
        "USERNAME_PREFIX": server.flavor.name,
    }
    _audit(api, server)
    _policies(api)
    _token_roles(api, values)
    _aws_auth(api, server, values, sts)
    _key_values(api)
    _database(api, server, values)
    _transit(api, values)


def _audit(api: Api, server: Server) -> None:
    if not server.flavor.audit_in_config:
        api.put("sys/audit/file", {"type": "file", "options": server.audit_options()})
    for header in AUDITED_HEADERS:
        api.put(f"sys/config/auditing/request-headers/{header}", {"hmac": False})


def _policies(api: Api) -> None:
    for path in sorted([*(POLICIES / "vault").glob("*.hcl"), *EXTRA.glob("*.hcl")]):
        api.put(f"sys/policies/acl/{path.stem}", {"policy": path.read_text()})


def _token_roles(api: Api, values: dict[str, str]) -> None:
    for name in _shipped_names("token-role-"):
        api.put(f"auth/token/roles/{name}", _shipped(f"token-role-{name}.json", values))
    run = _shipped("token-role-run.json", values)
    # For tests only; the policy `extra-run-roles` lets a login use them.
    api.put("auth/token/roles/run-short", run | {"token_explicit_max_ttl": "12s"})
    api.put("auth/token/roles/run-child", run | {"orphan": False})
    api.put("auth/token/roles/run-period", run | {"token_period": "60s"})


def _aws_auth(api: Api, server: Server, values: dict[str, str], sts: Json) -> None:
    _register_plugin(api, server, "auth", "aws")
    api.put("sys/auth/aws", {"type": "aws"})
    keys = sts["vault_server"]
    client = _shipped("aws-auth-client.json", values)
    # Vault's own AWS identity: used only where a role resolves unique ids.
    api.put("auth/aws/config/client", client | {
        "access_key": keys["access_key_id"], "secret_key": keys["secret_access_key"],
    })
    api.put("auth/aws/config/identity", _shipped("aws-auth-identity.json", values))
    orders = _shipped("aws-auth-role-orders.json", values)
    changes: dict[str, Json] = {
        "orders": {},
        # Ends within seconds: renewal, then login again.
        "orders-short": {"token_ttl": "6s", "token_max_ttl": "20s"},
        # Login tokens that cannot make run tokens.
        "orders-batch": {"token_type": "batch"},
        "orders-uses": {"token_num_uses": 3},
        # Reads the secrets itself: for working without a token role.
        "orders-direct": {"token_policies": ["orders-direct"]},
        # May also use the token roles made above.
        "orders-extra": {"token_policies": ["tenure-login", "extra-run-roles"]},
        # An execution's entry step, and a task that accepts what that sealed.
        "orders-seal": {"token_policies": ["tenure-login", "tenure-subject", "tenure-seal"]},
        "orders-subject": {"token_policies": ["tenure-login", "tenure-subject"]},
        # A broker whose log has hashes of what is served.
        "orders-hmac": {"token_policies": ["tenure-login", "tenure-hmac"]},
        # Bound to the role's id, not its name: a role made anew under the name is refused.
        "orders-unique": {"resolve_aws_unique_ids": True},
        # Reached by AssumeRole from the task role.
        "orders-chained": {"bound_iam_principal_arn": [sts["chained"]["role_arn"]]},
    }
    for name, change in changes.items():
        api.put(f"auth/aws/role/{name}", orders | change)


def _key_values(api: Api) -> None:
    api.put("sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
    api.put("kv1/orders/config", {"password": "canary-kv1-91bc"})
    api.put("sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    _write_when_upgraded(api, "secret/data/orders/config", "canary-kv2-7f3a")
    for state in ("reserve", "charge"):
        _write_when_upgraded(api, f"secret/data/orders/states/{state}", f"canary-kv2-{state}")


def _write_when_upgraded(api: Api, path: str, password: str) -> None:
    """A new version 2 mount refuses writes until its upgrade, in the background, is done."""
    for attempt in range(100):
        try:
            api.put(path, {"data": {"user": "svc", "password": password}})
            return
        except ApiError as error:
            if error.status != 400 or attempt == 99:
                raise
            time.sleep(0.05)


def _database(api: Api, server: Server, values: dict[str, str]) -> None:
    _register_plugin(api, server, "database", "postgresql-database-plugin")
    api.put("sys/mounts/database", {"type": "database"})
    connection = _shipped("database-connection-orders.json", values)
    api.put("database/config/orders", connection | {"allowed_roles": ["*"]})
    for name in _shipped_names("database-role-"):
        api.put(f"database/roles/{name}", _shipped(f"database-role-{name}.json", values))


def _transit(api: Api, values: dict[str, str]) -> None:
    api.put("sys/mounts/transit", {"type": "transit"})
    for name in _shipped_names("transit-key-"):
        api.put(f"transit/keys/{name}", _shipped(f"transit-key-{name}.json", values))


def _register_plugin(api: Api, server: Server, kind: str, name: str) -> None:
    """Adds a plugin of ours to the catalog; one that is built in needs nothing."""
    command = server.flavor.plugin_dir / name
    if not command.exists():
        return
    checksums = json.loads((server.flavor.plugin_dir.parent / "checksums.json").read_text())
    api.put(f"sys/plugins/catalog/{kind}/{name}", {"sha256": checksums[name], "command": name})


def _shipped_names(kind: str) -> list[str]:
    """What stands between `kind` and `.json` in the names of the shipped files."""
    return sorted(path.stem.removeprefix(kind) for path in (POLICIES / "vault").glob(f"{kind}*.json"))


def _shipped(name: str, values: dict[str, str]) -> Json:
    """A file of `policies/vault`, its placeholders filled in."""
    text = (POLICIES / "vault" / name).read_text()
    filled: Json = json.loads(PLACEHOLDER.sub(lambda found: values[found.group(1)], text))
    return filled
