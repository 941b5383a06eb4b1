"""AWS, as far as the stack needs it: STS and IAM (moto), and an ECS credentials endpoint.

Runs in the stack's virtual environment, as a process of its own. It checks signatures
(moto does) and, in front of moto, what the real STS also checks and moto does not:
the region of the credential scope, the age of a signature, the end of a session, that
an external id is given where a role asks for one, and that a web identity token is known.

Prints one JSON line when it is ready.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from iam_setup import assume, make_identities
from layout import ACCOUNT
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sts.models import sts_backends
from werkzeug.serving import make_server

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

SCOPE = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
TOO_OLD = timedelta(minutes=15)
TOO_NEW = timedelta(minutes=5)


class StsChecks:
    """WSGI middleware: the checks of the real STS that moto leaves out."""

    def __init__(
        self, app: WsgiApp, region: str, web_identity_token: str, needs_external_id: str
    ) -> None:
        self._app = app
        self._region = region
        self._web_identity_token = web_identity_token
        self._needs_external_id = needs_external_id

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal is None:
            return _as_of_sts(self._app, environ, start_response)
        status, code, message = refusal
        return _answer(start_response, status, _error_xml(code, message), "text/xml")

    def _refusal(self, environ: dict[str, Any]) -> tuple[str, str, str] | None:
        scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        if scope is None:
            return self._unsigned_refusal(environ)
        access_key, _, region, service = scope.groups()
        if service != "sts":
            return None
        if region != self._region:
            # The trailing blank is AWS's own.
            return _not_matching("Credential should be scoped to a valid region. ")
        return (
            _age_refusal(environ.get("HTTP_X_AMZ_DATE", ""))
            or _session_refusal(access_key)
            or self._external_id_refusal(_form(environ))
        )

    def _external_id_refusal(self, form: dict[str, list[str]]) -> tuple[str, str, str] | None:
        """A wrong id is moto's to refuse, a missing one it lets pass."""
        if form.get("RoleArn") != [self._needs_external_id] or "ExternalId" in form:
            return None
        message = f"User is not authorized to perform: sts:AssumeRole on resource: {self._needs_external_id}"
        return "403 Forbidden", "AccessDenied", message

    def _unsigned_refusal(self, environ: dict[str, Any]) -> tuple[str, str, str] | None:
        form = _form(environ)
        if form.get("Action") != ["AssumeRoleWithWebIdentity"]:
            return None
        if form.get("WebIdentityToken") == [self._web_identity_token]:
            return None
        message = "Couldn't retrieve verification key from your identity provider"
        return "400 Bad Request", "InvalidIdentityToken", message


def _age_refusal(signed_at: str) -> tuple[str, str, str] | None:
    form = "%Y%m%dT%H%M%SZ"
    try:
        signed = datetime.strptime(signed_at, form).replace(tzinfo=UTC)
    except ValueError:
        return "400 Bad Request", "IncompleteSignature", "Date must be in ISO-8601 'basic format'."
    now = datetime.now(UTC)
    stamp = now.strftime(form)
    if signed < now - TOO_OLD:
        limit = (now - TOO_OLD).strftime(form)
        return _not_matching(
            f"Signature expired: {signed_at} is now earlier than {limit} ({stamp} - 15 min.)"
        )
    if signed > now + TOO_NEW:
        limit = (now + TOO_NEW).strftime(form)
        return _not_matching(
            f"Signature not yet current: {signed_at} is still later than {limit} ({stamp} + 5 min.)"
        )
    return None


def _session_refusal(access_key: str) -> tuple[str, str, str] | None:
    session = sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(access_key)
    if session is None or session.expiration.replace(tzinfo=UTC) > datetime.now(UTC):
        return None
    return "403 Forbidden", "ExpiredToken", "The security token included in the request is expired"


def _not_matching(message: str) -> tuple[str, str, str]:
    return "403 Forbidden", "SignatureDoesNotMatch", message


def _error_xml(code: str, message: str) -> bytes:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">\n'
        "  <Error>\n    <Type>Sender</Type>\n"
        f"    <Code>{code}</Code>\n    <Message>{message}</Message>\n"
        f"  </Error>\n  <RequestId>{secrets.token_hex(16)}</RequestId>\n</ErrorResponse>\n"
    ).encode()


def _form(environ: dict[str, Any]) -> dict[str, list[str]]:
    """Reads the body's form and puts the body back for the application behind."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    return parse_qs(body.decode("utf-8", "replace"))


def _as_of_sts(app: WsgiApp, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Moto's own refusals lack STS's content type, and Vault relays none that is not XML.

    They also wrap the error once more than STS does, and the SDKs then find no code in it.
    """
    status = ""
    headers: list[tuple[str, str]] = []

    def start(answered: str, named: list[tuple[str, str]], *_rest: Any) -> None:
        nonlocal status, headers
        status, headers = answered, named

    body = b"".join(app(environ, start))
    if not status.startswith("403"):
        start_response(status, headers)
        return [body]
    body = body.replace(b"<Errors>", b"").replace(b"</Errors>", b"")
    return _answer(start_response, status, body, "text/xml")


def _answer(
    start_response: StartResponse, status: str, body: bytes, content_type: str = "application/json"
) -> list[bytes]:
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


class EcsCredentials:
    """The credentials endpoint that ECS gives a task, with controls for tests.

    `GET /ecs/credentials` is what an AWS SDK asks; `POST /ecs/rotate` assumes the role
    anew (`?seconds=N` for a short session); `GET /ecs/count` says how often it was asked.
    """

    def __init__(self, app: WsgiApp, role_arn: str) -> None:
        self._app = app
        self._role_arn = role_arn
        self._lock = threading.Lock()
        self._session = assume(role_arn, "ecs-task-1")
        self._sessions = 1
        self._asked = 0
        self.token = secrets.token_urlsafe(24)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        request = (environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        match request:
            case ("GET", "/ecs/credentials"):
                if environ.get("HTTP_AUTHORIZATION") != self.token:
                    refused = {"code": "InvalidAuthorization", "message": "wrong or no token"}
                    return _answer(start_response, "401 Unauthorized", json.dumps(refused).encode())
                with self._lock:
                    self._asked += 1
                    answer = self._credentials()
            case ("POST", "/ecs/rotate"):
                query = parse_qs(environ.get("QUERY_STRING", ""))
                seconds = int(query.get("seconds", ["3600"])[0])
                with self._lock:
                    self._sessions += 1
                    self._session = assume(self._role_arn, f"ecs-task-{self._sessions}", seconds)
                    answer = {"AccessKeyId": self._session.access_key_id}
            case ("GET", "/ecs/count"):
                with self._lock:
                    answer = {"asked": self._asked, "sessions": self._sessions}
            case _:
                return self._app(environ, start_response)
        return _answer(start_response, "200 OK", json.dumps(answer).encode())

    def _credentials(self) -> dict[str, Any]:
        return {
            "AccessKeyId": self._session.access_key_id,
            "SecretAccessKey": self._session.secret_access_key,
            "Token": self._session.session_token,
            "Expiration": self._session.expiration,
            "RoleArn": self._role_arn,
        }


def _let_web_identity_pass_unsigned() -> None:
    """AssumeRoleWithWebIdentity is never signed; moto's enforcement expects that it is.

    That its token is right is checked in front of moto, by `StsChecks`.
    """
    enforce = ActionAuthenticatorMixin._authenticate_and_authorize_action

    def enforce_where_signed(self: Any, request_class: type, resource: str = "*") -> None:
        unsigned = "Authorization" not in self.headers
        if unsigned and self._get_action() == "AssumeRoleWithWebIdentity":
            return
        enforce(self, request_class, resource)

    ActionAuthenticatorMixin._authenticate_and_authorize_action = enforce_where_signed  # type: ignore[method-assign,assignment]


class QuietHandler(MotoRequestHandler):
    """Request lines are noise in a test's log; errors still come out."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--region", required=True)
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--web-identity-token-file", type=Path, required=True)
    arguments = parser.parse_args()

    web_identity_token = f"stack.{secrets.token_urlsafe(32)}.oidc"
    arguments.web_identity_token_file.write_text(web_identity_token)

    identities = make_identities(arguments.policies, arguments.region)
    _let_web_identity_pass_unsigned()
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # from here on every call must be signed

    moto = DomainDispatcherApplication(create_backend_app)
    checked = StsChecks(moto, arguments.region, web_identity_token, identities.chained_role)
    ecs = EcsCredentials(checked, identities.task_role)
    server = make_server("127.0.0.1", 0, ecs, threaded=True, request_handler=QuietHandler)
    url = f"http://127.0.0.1:{server.server_port}"

    def session(role_arn: str, name: str) -> dict[str, str]:
        return {"role_arn": role_arn} | assume(role_arn, name).as_json()

    ready = {
        "url": url,
        "region": arguments.region,
        "account_id": ACCOUNT,
        **session(identities.task_role, "task-1"),
        "other": session(identities.other_role, "other-1"),
        "chained": {"role_arn": identities.chained_role, "external_id": identities.external_id},
        "ecs": {
            "url": f"{url}/ecs/credentials",
            "token": ecs.token,
            "rotate_url": f"{url}/ecs/rotate",
            "count_url": f"{url}/ecs/count",
        },
        "web_identity": {
            "token_file": str(arguments.web_identity_token_file),
            "role_arn": identities.task_role,
        },
        "vault_server": identities.vault_server,
    }
    print(json.dumps(ready), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
