"""Proves that the STS identifies who it should, and refuses what the real one refuses."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from check_report import Report, expect

Json = dict[str, Any]

BODY = "Action=GetCallerIdentity&Version=2011-06-15"


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
