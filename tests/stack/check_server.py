"""The life of a run by hand-made requests, on one server, and what must be refused there."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from api import Api, ApiError
from check_report import Report, expect, until
from check_sts import BODY, chained_session, signed_headers

Json = dict[str, Any]


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Checks:
    """The life of a run, by hand, on one server."""

    def __init__(self, report: Report, stack: Json, name: str) -> None:
        self.report = report
        self.stack = stack
        self.name = name
        self.server: Json = stack[name]
        self.anonymous = Api(self.server["address"])
        self.root = self.anonymous.under(self.server["root_token"])

    def run(self) -> None:
        for name, work in (
            ("login with a wrong server id is refused", self.wrong_server_id),
            ("login of a role that is not bound is refused", self.unbound_role),
            ("login with a stale signature is refused", self.stale_login),
            ("login signed for AWS's own endpoint", self.aws_endpoint),
            ("login by a chained role", self.chained_login),
            ("login bound to the role's unique id", self.unique_id_login),
            ("login token reads no secret and makes no other token", self.login_is_weak),
            ("KV values, and the mount preflight without `default`", self.key_values),
            ("a run: database user made, used, renewed, revoked, confirmed", self.database_run),
            ("revoking ends open database sessions", self.sessions_end),
            ("revoking a database user that is gone already succeeds", self.user_gone),
            ("a short lease ends by itself", self.short_lease),
            ("an orphan run token outlives its login", self.orphan),
            ("a child run token does not", self.child),
            ("the token role's ceiling holds", self.ceiling),
            ("a direct login token reads secrets itself", self.direct),
            ("batch and use-limited login tokens make no run token", self.weak_logins),
            ("a short login token ends", self.short_login),
            ("audit log shows client, run and headers, and no secret", self.audit),
            ("TLS by the stack's CA and name", self.tls),
            ("mutual TLS needs the client certificate", self.mutual_tls),
            ("killed, started again, unsealed: everything is still there", self.restart),
        ):
            self.report.check(f"{self.name}: {name}", work)

    # Each of the following raises where something is not as it should be.

    def login(
        self, role: str = "orders", session: Json | None = None, endpoint: str = "", **how: Any
    ) -> Json:
        sts = self.stack["sts"]
        endpoint = endpoint or sts["url"] + "/"
        how.setdefault("server_id", self.server["server_id"])
        headers = signed_headers(session or sts, sts["region"], endpoint, **how)
        auth: Json = self.anonymous.put("auth/aws/login", {
            "role": role,
            "iam_http_request_method": "POST",
            "iam_request_url": base64_of(endpoint),
            "iam_request_body": base64_of(BODY),
            "iam_request_headers": base64_of(json.dumps(headers)),
        })["auth"]
        return auth

    def make_run(self, login: Json, role: str = "run", ttl: str = "90s", **more: Any) -> Json:
        asked = {"ttl": ttl, "renewable": True, "meta": {"execution_arn": "arn:aws:states:check"}} | more
        auth: Json = self.anonymous.under(login["client_token"]).put(f"auth/token/create/{role}", asked)["auth"]
        return auth

    def as_run(self, run: Json) -> Api:
        return self.anonymous.under(run["client_token"])

    def refused(self, work: Callable[[], Any], *statuses: int) -> ApiError:
        try:
            got = work()
        except ApiError as error:
            expect(error.status in (statuses or (403,)), error)
            return error
        raise AssertionError(f"was not refused: {got}")

    def wrong_server_id(self) -> None:
        self.refused(lambda: self.login(server_id="another.test"), 400, 403)

    def unbound_role(self) -> None:
        self.refused(lambda: self.login(session=self.stack["sts"]["other"]), 400, 403)

    def stale_login(self) -> None:
        self.refused(lambda: self.login(age=timedelta(minutes=16)), 400, 403, 500)

    def aws_endpoint(self) -> None:
        # What a client signs that knows nothing of this STS: Vault sends it to its own
        # `sts_endpoint` with the host that was signed.
        self.login(endpoint="https://sts.eu-west-1.amazonaws.com/")

    def chained_login(self) -> None:
        sts = self.stack["sts"]
        self.login("orders-chained", chained_session(sts, sts["chained"]["external_id"]))

    def unique_id_login(self) -> None:
        self.login("orders-unique")

    def login_is_weak(self) -> None:
        login = self.login()
        expect(login["token_policies"] == ["tenure-login"], login["token_policies"])
        api = self.anonymous.under(login["client_token"])
        self.refused(lambda: api.get("database/creds/orders"))
        self.refused(lambda: api.get("secret/data/orders/config"))
        self.refused(lambda: api.get("kv1/orders/config"))
        self.refused(lambda: api.put("auth/token/create"))
        self.refused(lambda: api.put("auth/token/create/run-child"))
        self.refused(lambda: api.put("auth/token/create/run", {"policies": ["root"]}), 400, 403)
        self.refused(lambda: api.put("auth/token/create/run", {"policies": ["tenure-login"]}), 400, 403)
        self.refused(lambda: api.put("auth/token/create-orphan"))
        api.get("auth/token/lookup-self")
        api.put("auth/token/renew-self")
        api.put("auth/token/revoke-self")

    def key_values(self) -> None:
        api = self.as_run(self.make_run(self.login()))
        expect(api.get("secret/data/orders/config")["data"]["data"]["password"] == "canary-kv2-7f3a", "kv2")
        expect(api.get("kv1/orders/config")["data"]["password"] == "canary-kv1-91bc", "kv1")
        expect(api.list("secret/metadata/orders/")["data"]["keys"] == ["config", "states/"], "list")
        # What the CLI's `kv get` asks first; it checks access to the mount by itself.
        mount = api.get("sys/internal/ui/mounts/secret/orders/config")["data"]
        expect(mount["options"]["version"] == "2", mount)
        mount = api.get("sys/internal/ui/mounts/kv1/orders/config")["data"]
        expect(mount["options"]["version"] == "1", mount)
        self.refused(lambda: api.put("secret/data/orders/config", {"data": {"password": "x"}}))

    def database_run(self) -> None:
        login = self.login()
        broker = self.anonymous.under(login["client_token"])
        run = self.make_run(login)
        expect(run["token_policies"] == ["orders"] and run["orphan"], run)
        api = self.as_run(run)
        secret = api.get("database/creds/orders")
        user = secret["data"]["username"]
        expect(user.startswith(self.server["username_prefix"]), user)
        expect(self.sql("SELECT item FROM orders", secret["data"]) == "first order", "no row")
        expect("permission denied" in self.sql("CREATE TABLE mine ()", secret["data"]), "could create")
        api.put("sys/leases/renew", {"lease_id": secret["lease_id"], "increment": 60})
        api.put("auth/token/renew-self")
        expect(broker.put("sys/leases/lookup", {"lease_id": secret["lease_id"]})["data"]["ttl"] > 0, "ttl")
        # By accessor, as after a lost response.
        broker.put("auth/token/revoke-accessor", {"accessor": run["accessor"]})
        until(lambda: self.role_count(user) == 0)
        self.gone(broker, secret["lease_id"])
        self.refused(lambda: broker.put("auth/token/lookup-accessor", {"accessor": run["accessor"]}), 400)
        self.refused(lambda: api.get("kv1/orders/config"))
        expect("authentication failed" in self.sql("SELECT 1", secret["data"]), "still connects")

    def sessions_end(self) -> None:
        run = self.make_run(self.login())
        data = self.as_run(run).get("database/creds/orders")["data"]
        session = self.psql("SELECT pg_sleep(60)", data)
        until(lambda: self.count(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{data['username']}'") == 1)
        self.as_run(run).put("auth/token/revoke-self")
        _, errors = session.communicate(timeout=10)
        expect("terminating connection due to administrator command" in errors, errors)
        # The session ends first, then the user.
        until(lambda: self.role_count(data["username"]) == 0)

    def user_gone(self) -> None:
        run = self.make_run(self.login())
        secret = self.as_run(run).get("database/creds/orders")
        postgres = self.stack["postgres"]
        admin = {"username": postgres["admin_user"], "password": postgres["admin_password"]}
        self.sql(f'DROP ROLE "{secret["data"]["username"]}"', admin)
        # Otherwise Vault tries six times and then calls the lease irrevocable.
        self.root.put("sys/leases/revoke", {"lease_id": secret["lease_id"], "sync": True})
        self.as_run(run).put("auth/token/revoke-self")

    def short_lease(self) -> None:
        run = self.make_run(self.login())
        secret = self.as_run(run).get("database/creds/orders-short")
        expect(secret["lease_duration"] == 4, secret["lease_duration"])
        until(lambda: self.role_count(secret["data"]["username"]) == 0, 15)
        self.as_run(run).put("auth/token/revoke-self")

    def orphan(self) -> None:
        login = self.login()
        run = self.make_run(login)
        self.anonymous.under(login["client_token"]).put("auth/token/revoke-self")
        time.sleep(0.3)
        self.as_run(run).get("kv1/orders/config")
        self.as_run(run).put("auth/token/revoke-self")

    def child(self) -> None:
        login = self.login("orders-extra")
        run = self.make_run(login, "run-child")
        self.anonymous.under(login["client_token"]).put("auth/token/revoke-self")

        def ended() -> bool:
            try:
                self.as_run(run).get("kv1/orders/config")
            except ApiError:
                return True
            return False

        until(ended)

    def ceiling(self) -> None:
        login = self.login("orders-extra")
        # What a request asks of explicit_max_ttl binds nothing; the role's value does.
        asked = self.make_run(login, "run", "8s", explicit_max_ttl="8s")
        renewed = self.as_run(asked).put("auth/token/renew-self", {"increment": "600s"})
        expect(renewed["auth"]["lease_duration"] > 500, renewed["auth"]["lease_duration"])
        short = self.make_run(login, "run-short", "600s")
        expect(short["lease_duration"] <= 12, short["lease_duration"])
        period = self.make_run(login, "run-period", "8s")
        expect(period["lease_duration"] == 60, period["lease_duration"])
        fixed = self.make_run(login, "run", "8s", renewable=False)
        self.refused(lambda: self.as_run(fixed).put("auth/token/renew-self"), 400)

    def direct(self) -> None:
        login = self.login("orders-direct")
        api = self.anonymous.under(login["client_token"])
        secret = api.get("database/creds/orders")
        api.put("sys/leases/revoke", {"lease_id": secret["lease_id"], "sync": True})
        expect(self.role_count(secret["data"]["username"]) == 0, "the role is still there")
        api.get("secret/data/orders/config")

    def weak_logins(self) -> None:
        for role in ("orders-batch", "orders-uses"):
            login = self.login(role)
            self.refused(lambda: self.make_run(login), 400, 403)

    def short_login(self) -> None:
        login = self.login("orders-short")
        expect(login["lease_duration"] == 6, login["lease_duration"])
        api = self.anonymous.under(login["client_token"])
        time.sleep(6.5)
        self.refused(lambda: api.get("auth/token/lookup-self"))

    def audit(self) -> None:
        login = self.login()
        run = self.make_run(login, ttl="60s")
        headers = {"X-Tenure-Request": "check-request", "X-Tenure-Run": "check-run", "X-Tenure-Chain": "check-head"}
        answer = self.as_run(run).get("kv1/orders/config", headers)
        self.refused(lambda: self.as_run(run).request("GET", "sys/auth", None, headers))
        log = Path(self.server["audit_log"])
        expect(log.stat().st_mode & 0o777 == 0o644, oct(log.stat().st_mode))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        by_request = [e for e in lines if e["request"].get("id") == answer["request_id"]]
        expect(len(by_request) == 2, by_request)
        for entry in by_request:
            expect(entry["auth"]["metadata"]["execution_arn"] == "arn:aws:states:check", entry)
            seen = {k.lower(): v for k, v in entry["request"]["headers"].items()}
            for name, value in headers.items():
                expect(seen[name.lower()] == [value], seen)
        denied = [e for e in lines if e["request"].get("path") == "sys/auth" and e.get("error")
                  and "x-tenure-request" in {k.lower() for k in e["request"].get("headers") or {}}]
        expect(bool(denied), "the denied request has no entry with our headers")
        clients = {(e.get("auth") or {}).get("metadata", {}).get("client_arn") for e in lines
                   if (e.get("auth") or {}).get("metadata")}
        expect(any(c and c.endswith("assumed-role/orders-task/task-1") for c in clients), clients)
        text = log.read_text()
        for canary in ("canary-kv2-7f3a", "canary-kv1-91bc", run["client_token"], login["client_token"]):
            expect(canary not in text, "a secret is in the audit log")

    def tls(self) -> None:
        url = self.server["tls_address"] + "/v1/sys/health"
        context = ssl.create_default_context(cafile=self.server["ca_file"])
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            expect(answer.status == 200, answer.status)
        try:
            urllib.request.urlopen(url, context=ssl.create_default_context(), timeout=5)
        except urllib.error.URLError as error:
            expect(isinstance(error.reason, ssl.SSLCertVerificationError), error)
        else:
            raise AssertionError("trusted without the CA")

    def mutual_tls(self) -> None:
        url = self.server["mtls_address"] + "/v1/sys/health"
        context = ssl.create_default_context(cafile=self.server["ca_file"])
        try:
            urllib.request.urlopen(url, context=context, timeout=5)
        except OSError:
            pass
        else:
            raise AssertionError("no client certificate was asked for")
        context.load_cert_chain(self.server["client_cert"], self.server["client_key"])
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            expect(answer.status == 200, answer.status)

    def restart(self) -> None:
        run = self.make_run(self.login())
        os.kill(self.server["pid"], signal.SIGKILL)
        until(lambda: self.anonymous.health() is None)
        # The launcher ends it: it is known by the run directory on its command line.
        subprocess.Popen(self.server["argv"], env=self.server["env"], start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.anonymous.health() == 503, 15)
        self.anonymous.put("sys/unseal", {"key": self.server["unseal_key"]})
        until(lambda: self.anonymous.health() == 200, 15)
        self.as_run(run).get("kv1/orders/config")
        secret = self.as_run(run).get("database/creds/orders")
        self.as_run(run).put("auth/token/revoke-self")
        until(lambda: self.role_count(secret["data"]["username"]) == 0)

    def gone(self, api: Api, lease_id: str) -> None:
        """The server forgets the lease a moment after the database has forgotten the user."""

        def forgotten() -> bool:
            try:
                api.put("sys/leases/lookup", {"lease_id": lease_id})
            except ApiError as error:
                expect(error.status in (400, 403) and "invalid lease" in str(error), error)
                return True
            return False

        until(forgotten)

    # --- psql ---

    def psql(self, statement: str, login: Json) -> subprocess.Popen[str]:
        postgres = self.stack["postgres"]
        return subprocess.Popen(
            [postgres["psql"], "-X", "-A", "-t", "-h", postgres["host"], "-p", str(postgres["port"]),
             "-U", login["username"], "-d", postgres["dbname"], "-c", statement],
            env={"PATH": os.environ["PATH"], "PGPASSWORD": login["password"]},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def sql(self, statement: str, login: Json) -> str:
        output, errors = self.psql(statement, login).communicate(timeout=15)
        return (output + errors).strip()

    def count(self, statement: str) -> int:
        postgres = self.stack["postgres"]
        admin = {"username": postgres["admin_user"], "password": postgres["admin_password"]}
        return int(self.sql(statement, admin))

    def role_count(self, user: str) -> int:
        return self.count(f"SELECT count(*) FROM pg_roles WHERE rolname = '{user}'")
