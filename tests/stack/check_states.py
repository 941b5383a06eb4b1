"""The token roles and database roles of single states, narrowing, the seal, and how sessions end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from api import Api
from check_report import Report, expect, until
from check_server import Checks, base64_of

Json = dict[str, Any]

STATES = ("reserve", "charge")


class StateChecks:
    """On one server, with what `check_server` offers for logging in and making runs."""

    def __init__(self, report: Report, stack: Json, name: str) -> None:
        self.report = report
        self.name = name
        self.by_hand = Checks(report, stack, name)

    def run(self) -> None:
        for name, work in (
            ("a state's token reads its own secrets and not the other's", self.kept_apart),
            ("a state's database user reads its own tables and not the other's", self.tables_apart),
            ("a token role refuses a policy beyond its own", self.no_more),
            ("a run token narrowed to fewer policies can do less, and end itself", self.narrowed),
            ("a state's ceiling holds, and nothing renews past it", self.ceiling),
            ("no renewal passes the role's ceiling, whatever the request said", self.ceiling_of_renewals),
            ("only the entry step's login seals a subject, and those that accept seals read the key", self.seal),
            ("revoking one lease ends a session in the middle of a transaction", self.transaction_ends),
            ("revoking ends all sessions, and a user that owns something", self.owner_ends),
        ):
            self.report.check(f"{self.name}: {name}", work)

    # Each of the following raises where something is not as it should be.

    def start(self, state: str, **more: Any) -> Json:
        return self.by_hand.make_run(self.by_hand.login(), f"run-{state}", **more)

    def refused(self, work: Callable[[], Any], *statuses: int) -> None:
        self.by_hand.refused(work, *statuses)

    def kept_apart(self) -> None:
        for own, other in (STATES, STATES[::-1]):
            run = self.start(own)
            expect(run["orphan"] and not run["renewable"], run)
            api = self.by_hand.as_run(run)
            value = api.get(f"secret/data/orders/states/{own}")["data"]["data"]
            expect(value["password"] == f"canary-kv2-{own}", "another value")
            api.get(f"database/creds/orders-{own}")
            self.refused(lambda: api.get(f"secret/data/orders/states/{other}"))
            self.refused(lambda: api.get(f"database/creds/orders-{other}"))
            self.refused(lambda: api.get("database/creds/orders"))
            self.refused(lambda: api.get("secret/data/orders/config"))
            self.refused(lambda: api.get("kv1/orders/config"))
            api.put("auth/token/revoke-self")

    def tables_apart(self) -> None:
        for own, mine, others in (("reserve", "orders", "charges"), ("charge", "charges", "orders")):
            run = self.start(own)
            data = self.by_hand.as_run(run).get(f"database/creds/orders-{own}")["data"]
            count = self.by_hand.sql(f"SELECT count(*) >= 0 FROM {mine}", data)
            expect(count == "t", count)
            answer = self.by_hand.sql(f"SELECT count(*) FROM {others}", data)
            expect("permission denied" in answer, answer)
            self.by_hand.as_run(run).put("auth/token/revoke-self")

    def no_more(self) -> None:
        for policy in ("orders-charge", "orders", "tenure-login", "root"):
            self.refused(lambda: self.start("reserve", policies=[policy]), 400, 403)
            self.refused(lambda: self.start("reserve", policies=["orders-reserve", policy]), 400, 403)

    def narrowed(self) -> None:
        every = ["orders", "orders-charge", "orders-reserve"]
        whole = self.start("worker")
        expect(whole["orphan"] and not whole["renewable"], whole)
        expect(sorted(whole["token_policies"]) == every, whole["token_policies"])
        # An empty list is no narrowing: it is as if nothing had been asked.
        empty = self.start("worker", policies=[])
        expect(sorted(empty["token_policies"]) == every, empty["token_policies"])
        narrow = self.start("worker", policies=["orders-charge"])
        expect(narrow["token_policies"] == ["orders-charge"], narrow["token_policies"])
        self.refused(lambda: self.start("worker", policies=["orders-charge", "tenure-login"]), 400, 403)
        for state in STATES:
            self.by_hand.as_run(whole).get(f"secret/data/orders/states/{state}")
        api = self.by_hand.as_run(narrow)
        api.get("secret/data/orders/states/charge")
        self.refused(lambda: api.get("secret/data/orders/states/reserve"))
        self.refused(lambda: api.get("database/creds/orders"))
        for run in (whole, empty, narrow):
            self.by_hand.as_run(run).put("auth/token/revoke-self")
        self.refused(lambda: api.get("secret/data/orders/states/charge"))

    def ceiling(self) -> None:
        run = self.start("charge", ttl="20h", explicit_max_ttl="20h")
        expect(3590 <= run["lease_duration"] <= 3600, run["lease_duration"])
        api = self.by_hand.as_run(run)
        self.refused(lambda: api.put("auth/token/renew-self", {"increment": "1h"}), 400)
        # (Its lookup repeats the `explicit_max_ttl` that was asked for; what it lives is the role's.)
        expect(api.get("auth/token/lookup-self")["data"]["ttl"] <= 3600, "ttl")
        api.put("auth/token/revoke-self")
        # Asked for with a deadline, it ends at the deadline.
        short = self.start("charge", ttl="2s")
        expect(short["lease_duration"] == 2, short["lease_duration"])
        time.sleep(2.5)
        self.refused(lambda: self.by_hand.as_run(short).get("auth/token/lookup-self"))

    def ceiling_of_renewals(self) -> None:
        login = self.by_hand.login("orders-extra")
        began = time.monotonic()
        run = self.by_hand.make_run(login, "run-short", "8s", explicit_max_ttl="20h")
        api = self.by_hand.as_run(run)
        time.sleep(5)
        renewed = api.put("auth/token/renew-self", {"increment": "1h"})["auth"]
        expect(renewed["lease_duration"] <= 7, renewed["lease_duration"])
        time.sleep(began + 12.5 - time.monotonic())
        self.refused(lambda: api.get("auth/token/lookup-self"))

    def sign(self, api: Api) -> str:
        signed = api.put("transit/sign/tenure-subject", {"input": base64_of("user-1")})
        return str(signed["data"]["signature"])

    def seal(self) -> None:
        entry, task, plain = (
            self.by_hand.anonymous.under(self.by_hand.login(role)["client_token"])
            for role in ("orders-seal", "orders-subject", "orders")
        )
        expect(self.sign(entry).startswith("vault:v1:"), "no signature")
        runs = [self.by_hand.as_run(self.start(role)) for role in (*STATES, "worker")]
        for who in (task, plain, *runs):
            self.refused(lambda: self.sign(who))
        # The key is read where seals are accepted, and nowhere else.
        for who in (plain, *runs):
            self.refused(lambda: who.get("transit/keys/tenure-subject"))
        key = task.get("transit/keys/tenure-subject")["data"]
        expect(key["type"] == "ed25519" and not key["exportable"], key)
        expect(len(key["keys"]["1"]["public_key"]) == 44, key["keys"])
        # Nobody asks the server whether a seal is good, and nobody turns the key over.
        asked = {"input": base64_of("user-1"), "signature": self.sign(entry)}
        for who in (entry, task):
            self.refused(lambda: who.put("transit/verify/tenure-subject", asked))
            self.refused(lambda: who.put("transit/keys/tenure-subject/rotate"))
            self.refused(lambda: who.put("transit/keys/tenure-subject/config", {"deletion_allowed": True}))
        for run in runs:
            run.put("auth/token/revoke-self")

    def sessions(self, user: str) -> int:
        return self.by_hand.count(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'")

    def revoke(self, lease_id: str) -> None:
        """As an operator does, and waits for it: the answer says that the statements have run."""
        self.by_hand.root.put("sys/leases/revoke", {"lease_id": lease_id, "sync": True})

    def transaction_ends(self) -> None:
        run = self.start("charge")
        secret = self.by_hand.as_run(run).get("database/creds/orders-charge")
        user = secret["data"]["username"]
        row = time.time_ns() % 1_000_000_000
        open_session = self.by_hand.psql(
            f"BEGIN; CREATE TEMPORARY TABLE scratch (id integer);"
            f" INSERT INTO charges VALUES ({row}, 1); SELECT pg_sleep(60)", secret["data"])
        until(lambda: self.by_hand.count(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            f" AND usename = '{user}'") == 1)
        self.revoke(secret["lease_id"])
        # No waiting: when the revocation is confirmed, the session has ended.
        expect(self.sessions(user) == 0, "the session is still there")
        expect(self.by_hand.role_count(user) == 0, "the role is still there")
        _, errors = open_session.communicate(timeout=10)
        expect("terminating connection due to administrator command" in errors, errors)
        expect(self.by_hand.count(f"SELECT count(*) FROM charges WHERE id = {row}") == 0, "it was committed")
        self.by_hand.as_run(run).put("auth/token/revoke-self")

    def owner_ends(self) -> None:
        run = self.start("reserve")
        secret = self.by_hand.as_run(run).get("database/creds/orders-reserve")
        user = secret["data"]["username"]
        # Anybody may make large objects and set defaults of his own: DROP ROLE alone would fail on both.
        made = self.by_hand.sql("SELECT lo_create(0)", secret["data"])
        expect(made.isdecimal(), made)
        changed = self.by_hand.sql(
            "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", secret["data"])
        expect("ERROR" not in changed, changed)
        sleeping = [self.by_hand.psql("SELECT pg_sleep(60)", secret["data"]) for _ in range(3)]
        until(lambda: self.sessions(user) == 3)
        # By the end of the run, as the broker does it.
        self.by_hand.as_run(run).put("auth/token/revoke-self")
        until(lambda: self.by_hand.role_count(user) == 0)
        expect(self.sessions(user) == 0, "a session is still there")
        for session in sleeping:
            _, errors = session.communicate(timeout=10)
            expect("terminating connection" in errors, errors)
        # What it made is not lost, and belongs to the group now.
        kept = self.by_hand.count(
            "SELECT count(*) FROM pg_largeobject_metadata JOIN pg_roles r ON r.oid = lomowner"
            f" WHERE pg_largeobject_metadata.oid = {made} AND rolname = 'orders_reserve'")
        expect(kept == 1, "the large object is gone, or not the group's")
