"""Proves that the stack and the shipped policies work, on both servers, without Tenure.

Started by `stack.py check`, in the stack's virtual environment (it signs with botocore).
Prints one line per check and, last, `N passed, N failed`.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import botocore.auth
from api import Api, ApiError
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from layout import HERE

Json = dict[str, Any]

BODY = "Action=GetCallerIdentity&Version=2011-06-15"


class Report:
    """Counts, and says what failed without stopping at it."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            result = work()
        except Exception as error:  # one failure must not hide the next
            self.failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
            return None
        self.passed += 1
        print(f"ok    {name}", flush=True)
        return result


class Stack:
    """`stack.py up --json`, as a test would use it."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "stack.py"), "up", "--json"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the stack did not start")
        self.info: Json = json.loads(line)

    def processes(self) -> list[int]:
        """All descendants of the launcher, plugins and database backends included."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
        found, new = set(), {self.process.pid}
        while new:
            found |= new
            new = {pid for pid, parent in parents.items() if parent in new} - found
        return sorted(found)

    def stop(self, how: str) -> None:
        if how == "EOF":
            assert self.process.stdin is not None
            self.process.stdin.close()
        else:
            self.process.send_signal(getattr(signal, how))
        self.process.wait(20)


# --- AWS -------------------------------------------------------------------------------


def signed_headers(
    session: Json, region: str, endpoint: str, *, server_id: str | None = None, age: timedelta = timedelta()
) -> dict[str, str]:
    """GetCallerIdentity, signed as a task would, possibly in the past."""
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
               "Host": urllib.parse.urlsplit(endpoint).netloc}
    if server_id is not None:
        headers["X-Vault-AWS-IAM-Server-ID"] = server_id
    request = AWSRequest("POST", endpoint, data=BODY, headers=headers)
    credentials = Credentials(
        session["access_key_id"], session["secret_access_key"], session["session_token"]
    )
    then = datetime.now(UTC) - age
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: then.replace(tzinfo=None)):
        botocore.auth.SigV4Auth(credentials, "sts", region).add_auth(request)
    return dict(request.headers.items())


def http(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def who_am_i(sts: Json, session: Json, **how: Any) -> tuple[int, str]:
    region = how.pop("region", sts["region"])
    return http("POST", sts["url"] + "/", BODY.encode(), signed_headers(session, region, sts["url"] + "/", **how))


def expect(condition: bool, what: Any) -> None:
    if not condition:
        raise AssertionError(what)


def expect_error(answer: tuple[int, str], status: int, text: str) -> None:
    expect(answer[0] == status and text in answer[1], answer)


def web_identity_session(sts: Json, token: str) -> tuple[int, str]:
    form = urllib.parse.urlencode({
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": sts["web_identity"]["role_arn"],
        "RoleSessionName": "web", "WebIdentityToken": token,
    })
    return http("POST", sts["url"] + "/", form.encode(), {"Content-Type": "application/x-www-form-urlencoded"})


def ecs_session(sts: Json, token: str | None = None) -> tuple[int, str]:
    return http("GET", sts["ecs"]["url"], headers={"Authorization": token or sts["ecs"]["token"]})


def as_session(ecs: Json) -> Json:
    return {"access_key_id": ecs["AccessKeyId"], "secret_access_key": ecs["SecretAccessKey"],
            "session_token": ecs["Token"]}


def chained_session(sts: Json, external_id: str | None) -> Json:
    import boto3

    answer = boto3.client(
        "sts", endpoint_url=sts["url"], region_name=sts["region"], aws_access_key_id=sts["access_key_id"],
        aws_secret_access_key=sts["secret_access_key"], aws_session_token=sts["session_token"],
    ).assume_role(
        RoleArn=sts["chained"]["role_arn"], RoleSessionName="broker", SourceIdentity="orders",
        Tags=[{"Key": "execution", "Value": "one"}], **({"ExternalId": external_id} if external_id else {}),
    )["Credentials"]
    return {"access_key_id": answer["AccessKeyId"], "secret_access_key": answer["SecretAccessKey"],
            "session_token": answer["SessionToken"]}


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def check_sts(report: Report, sts: Json) -> None:
    def identified() -> None:
        answer = who_am_i(sts, sts)
        expect_error(answer, 200, "assumed-role/orders-task/task-1")

    def web_identity() -> None:
        token = Path(sts["web_identity"]["token_file"]).read_text()
        status, text = web_identity_session(sts, token)
        expect(status == 200, text)
        session = {
            "access_key_id": between(text, "<AccessKeyId>", "<"),
            "secret_access_key": between(text, "<SecretAccessKey>", "<"),
            "session_token": between(text, "<SessionToken>", "<"),
        }
        expect_error(who_am_i(sts, session), 200, "assumed-role/orders-task/web")

    def ecs() -> None:
        before = json.loads(http("GET", sts["ecs"]["count_url"])[1])["asked"]
        first = json.loads(ecs_session(sts)[1])
        expect_error(who_am_i(sts, as_session(first)), 200, "assumed-role/orders-task/ecs-task-1")
        http("POST", sts["ecs"]["rotate_url"], b"")
        second = json.loads(ecs_session(sts)[1])
        expect_error(who_am_i(sts, as_session(second)), 200, "assumed-role/orders-task/ecs-task-2")
        after = json.loads(http("GET", sts["ecs"]["count_url"])[1])["asked"]
        expect(after == before + 2, (before, after))

    def ended() -> None:
        http("POST", sts["ecs"]["rotate_url"] + "?seconds=1", b"")
        session = as_session(json.loads(ecs_session(sts)[1]))
        expect_error(who_am_i(sts, session), 200, "orders-task")
        time.sleep(1.2)
        expect_error(who_am_i(sts, session), 403, "<Code>ExpiredToken</Code>")
        http("POST", sts["ecs"]["rotate_url"], b"")

    def chained() -> None:
        session = chained_session(sts, sts["chained"]["external_id"])
        expect_error(who_am_i(sts, session), 200, "assumed-role/orders-broker/broker")
        for wrong_id in ("wrong", None):
            try:
                chained_session(sts, wrong_id)
            except Exception as error:
                expect("AccessDenied" in str(error), error)
            else:
                raise AssertionError(f"external id {wrong_id!r} was accepted")

    wrong = sts | {"secret_access_key": "x" * 40}
    no_token = sts | {"session_token": "x"}
    minutes = timedelta(minutes=1)
    mismatch = "<Code>SignatureDoesNotMatch</Code>"
    report.check("sts: a task session is identified", identified)
    report.check("sts: a wrong secret is refused", lambda: expect_error(who_am_i(sts, wrong), 403, mismatch))
    report.check("sts: a wrong session token is refused",
                 lambda: expect_error(who_am_i(sts, no_token), 403, "InvalidClientTokenId"))
    report.check("sts: a foreign region is refused", lambda: expect_error(
        who_am_i(sts, sts, region="us-east-1"), 403,
        "<Message>Credential should be scoped to a valid region. </Message>"))
    report.check("sts: a signature of 14 minutes is accepted",
                 lambda: expect_error(who_am_i(sts, sts, age=14 * minutes), 200, "orders-task"))
    report.check("sts: a signature of 16 minutes is refused",
                 lambda: expect_error(who_am_i(sts, sts, age=16 * minutes), 403, "Signature expired: "))
    report.check("sts: a signature from the future is refused",
                 lambda: expect_error(who_am_i(sts, sts, age=-6 * minutes), 403, "Signature not yet current: "))
    report.check("sts: web identity gives a session", web_identity)
    report.check("sts: an unknown web identity token is refused",
                 lambda: expect_error(web_identity_session(sts, "x"), 400, "InvalidIdentityToken"))
    report.check("sts: ECS credentials, counted and rotated", ecs)
    report.check("sts: ECS credentials need their token", lambda: expect_error(ecs_session(sts, "x"), 401, ""))
    report.check("sts: a session that ended is refused", ended)
    report.check("sts: role chaining needs the external id", chained)


# --- Vault and OpenBao -----------------------------------------------------------------


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

    def login(self, role: str = "orders", session: Json | None = None, **how: Any) -> Json:
        sts = self.stack["sts"]
        how.setdefault("server_id", self.server["server_id"])
        headers = signed_headers(session or sts, sts["region"], sts["url"] + "/", **how)
        encode = lambda text: base64.b64encode(text.encode()).decode()
        auth: Json = self.anonymous.put("auth/aws/login", {
            "role": role,
            "iam_http_request_method": "POST",
            "iam_request_url": encode(sts["url"] + "/"),
            "iam_request_body": encode(BODY),
            "iam_request_headers": encode(json.dumps(headers)),
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
        expect(api.list("secret/metadata/orders/")["data"]["keys"] == ["config"], "list")
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
        self.until(lambda: self.role_count(user) == 0)
        self.gone(broker, secret["lease_id"])
        self.refused(lambda: broker.put("auth/token/lookup-accessor", {"accessor": run["accessor"]}), 400)
        self.refused(lambda: api.get("kv1/orders/config"))
        expect("authentication failed" in self.sql("SELECT 1", secret["data"]), "still connects")

    def sessions_end(self) -> None:
        run = self.make_run(self.login())
        data = self.as_run(run).get("database/creds/orders")["data"]
        session = self.psql("SELECT pg_sleep(60)", data)
        self.until(lambda: self.count(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{data['username']}'") == 1)
        self.as_run(run).put("auth/token/revoke-self")
        _, errors = session.communicate(timeout=10)
        expect("terminating connection due to administrator command" in errors, errors)
        expect(self.role_count(data["username"]) == 0, "the role is still there")

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
        self.until(lambda: self.role_count(secret["data"]["username"]) == 0, 15)
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

        self.until(ended)

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
        self.until(lambda: self.anonymous.health() is None)
        # The launcher ends it: it is known by the run directory on its command line.
        subprocess.Popen(self.server["argv"], env=self.server["env"], start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.until(lambda: self.anonymous.health() == 503, 15)
        self.anonymous.put("sys/unseal", {"key": self.server["unseal_key"]})
        self.until(lambda: self.anonymous.health() == 200, 15)
        self.as_run(run).get("kv1/orders/config")
        secret = self.as_run(run).get("database/creds/orders")
        self.as_run(run).put("auth/token/revoke-self")
        self.until(lambda: self.role_count(secret["data"]["username"]) == 0)

    def gone(self, api: Api, lease_id: str) -> None:
        error = self.refused(lambda: api.put("sys/leases/lookup", {"lease_id": lease_id}), 400, 403)
        expect("invalid lease" in str(error), error)

    def until(self, ready: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            expect(time.monotonic() < deadline, f"not within {seconds} s")
            time.sleep(0.05)

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


# --- the launcher ----------------------------------------------------------------------


def check_stop(stack: Stack, how: str) -> None:
    pids = stack.processes()
    expect(len(pids) > 6, pids)
    stack.stop(how)
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if alive(pid)]:
        expect(time.monotonic() < deadline, f"still running: {[(p, command(p)) for p in left]}")
        time.sleep(0.1)
    run_dir = Path(stack.info["run_dir"])
    expect(how == "SIGKILL" or not run_dir.exists(), f"{run_dir} is still there")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "?"


def main() -> int:
    python = sys.argv[1]
    report = Report()
    stack = Stack(python)
    try:
        check_sts(report, stack.info["sts"])
        for name in ("vault", "openbao"):
            Checks(report, stack.info, name).run()
    finally:
        report.check("launcher: end of stdin leaves no process", lambda: check_stop(stack, "EOF"))
    for how in ("SIGTERM", "SIGINT", "SIGKILL"):
        report.check(f"launcher: {how} leaves no process", lambda: check_stop(Stack(python), how))
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
