"""A few lines of Vault's HTTP API: what the launcher and the check need of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

# Straight to the server, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Json = dict[str, Any]


class ApiError(Exception):
    """An answer that is not a success, with Vault's own words."""

    def __init__(self, method: str, path: str, status: int, errors: Any) -> None:
        super().__init__(f"{method} {path}: {status} {errors}")
        self.status = status


class Api:
    """One server, and the token to speak with."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address = address
        self.token = token

    def under(self, token: str) -> Api:
        return Api(self._address, token)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Json:
        return self.request("GET", path, None, headers)

    def list(self, path: str) -> Json:
        return self.request("LIST", path, None)

    def put(self, path: str, body: Json | None = None, headers: dict[str, str] | None = None) -> Json:
        return self.request("PUT", path, body or {}, headers)

    def delete(self, path: str) -> Json:
        return self.request("DELETE", path, None)

    def request(
        self, method: str, path: str, body: Json | None, headers: dict[str, str] | None = None
    ) -> Json:
        request = urllib.request.Request(
            f"{self._address}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "X-Vault-Request": "true"} | (headers or {}),
        )
        if self.token:
            request.add_header("X-Vault-Token", self.token)
        try:
            with _opener.open(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ApiError(method, path, error.code, error.read().decode("utf-8", "replace").strip()) from None
        return json.loads(text) if text else {}

    def health(self) -> int | None:
        """The status of sys/health (200 active, 501 not initialised, 503 sealed), or None."""
        try:
            with _opener.open(f"{self._address}/v1/sys/health", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None
