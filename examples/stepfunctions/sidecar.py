"""The broker beside the worker: registering a run, and the Vault client that works for it.

The broker speaks HTTP on a Unix socket (`unix:///run/tenure/tenure.sock`), where it knows
its caller by the uid, or on loopback TCP (`http://127.0.0.1:8200`), where registering needs
the token of `listen.tcp.token_file`. Either way a run's *handle* is what a Vault client
sends as its token: hvac needs to know nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool


class TenureError(Exception):
    """What the broker refused, by the name that a state machine's Retry and Catch can match."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


@dataclass(frozen=True)
class Run:
    """A registered run. All that `vault` reads ends with it."""

    id: str
    deadline: str
    vault: hvac.Client


class Sidecar:
    """The broker at one address. Each thread needs a `Sidecar` of its own."""

    def __init__(self, address: str, token_file: str | None = None) -> None:
        self._http = requests.Session()
        self._http.trust_env = False  # never by way of a proxy
        path = address.removeprefix("unix://")
        self._url = address
        if path != address:
            self._url = "http://localhost"
            self._http.mount(self._url, _UnixSocketAdapter(path))
        self._token = Path(token_file).read_text().strip() if token_file else None

    @contextmanager
    def run(self, fields: dict[str, Any]) -> Iterator[Run]:
        """A run, from its registration until the `with` block is left, however it is left.

        Registering again with the same execution, state and attempt gives the same run: a
        worker that lost the answer just asks again.
        """
        made = self._ask("POST", "/tenure/runs", self._token, fields)
        handle = made["handle"]
        try:
            yield Run(made["id"], made["deadline"],
                      hvac.Client(url=self._url, token=handle, session=self._http, timeout=40))
        finally:
            # Should this be lost, the deadline ends the run.
            try:
                self._ask("DELETE", f"/tenure/runs/{made['id']}", handle)
            except TenureError:
                pass

    def _ask(self, method: str, path: str, token: str | None, body: Any = None) -> Any:
        headers = {} if token is None else {"X-Vault-Token": token}
        try:
            answer = self._http.request(method, self._url + path, json=body, headers=headers, timeout=40)
        except requests.RequestException as error:
            raise TenureError("Tenure.Unavailable", f"the broker does not answer: {error}") from error
        said = _json(answer)
        if answer.ok:
            return said
        # The broker names every error; what has no name is from somebody else at that address.
        raise TenureError(
            said.get("error") or "Tenure.Unavailable",
            "; ".join(said.get("errors", [])) or f"{method} {path}: {answer.status_code}",
        )


@contextmanager
def named_failures() -> Iterator[None]:
    """Turns what hvac raises into the names that the broker gave: Tenure.Denied, Tenure.RunOver and so on."""
    try:
        yield
    except hvac.exceptions.VaultError as error:
        said = error.json if isinstance(error.json, dict) else {}
        raise TenureError(said.get("error") or "Tenure.Unavailable", str(error)) from error
    except requests.RequestException as error:
        raise TenureError("Tenure.Unavailable", f"the broker does not answer: {error}") from error


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except requests.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixSocketAdapter(HTTPAdapter):
    """What `requests`, and so hvac, lacks to reach a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = _UnixPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> _UnixPool:
        return self._pool
