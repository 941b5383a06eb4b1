"""One Vault or OpenBao: a real server with raft storage and TLS, initialised and unsealed."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import Api, ApiError
from child import Child, Children, StartError, clean_environment, free_ports, wait_for
from layout import SERVER_ID


@dataclass(frozen=True)
class Flavor:
    """What differs between the two servers."""

    name: str
    binary: Path
    plugin_dir: Path
    # OpenBao refuses audit devices made by API: a file path is power over its host.
    audit_in_config: bool
    # Vault locks its memory (which raft's mapped files make costly) unless told not to;
    # OpenBao has no such setting any more.
    has_mlock: bool


class Tls:
    """The files that `tls.py` writes into a directory."""

    def __init__(self, directory: Path) -> None:
        self.ca = str(directory / "ca.pem")
        self.server = str(directory / "server.pem")
        self.server_key = str(directory / "server-key.pem")
        self.client = str(directory / "client.pem")
        self.client_key = str(directory / "client-key.pem")


def server_argv(flavor: Flavor, run_dir: Path) -> list[str]:
    """The command line that starts, and starts again, the server of one run."""
    return [str(flavor.binary), "server", f"-config={_config_file(flavor, run_dir)}"]


def _config_file(flavor: Flavor, run_dir: Path) -> Path:
    return run_dir / flavor.name / "server.json"


class Server:
    """The process and everything needed to start it again by hand."""

    def __init__(self, children: Children, run_dir: Path, flavor: Flavor, tls: Tls) -> None:
        self.flavor = flavor
        self._children = children
        self._tls = tls
        self._run_dir = run_dir
        self.home = run_dir / flavor.name
        self.data_dir = self.home / "data"
        self.data_dir.mkdir(parents=True)
        self.audit_log = run_dir / f"{flavor.name}-audit.jsonl"
        self.log = run_dir / f"{flavor.name}.log"
        self._config = _config_file(flavor, run_dir)
        self.argv = server_argv(flavor, run_dir)
        self.env = clean_environment(self.home)
        self.root_token = ""
        self.unseal_key = ""
        self._ports: list[int] = []
        self._child: Child | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    def api(self) -> Api:
        return Api(self.address, self.root_token or None)

    def spawn(self) -> None:
        """Starts the process on fresh ports; `wait` says whether it holds."""
        self._ports = free_ports(6)
        self._config.write_text(json.dumps(self._settings(), indent=2))
        self._child = self._children.spawn(
            self.flavor.name, self.argv, log=self.log, env=self.env,
            # SIGTERM even when the launcher is killed: so it ends its plugin processes.
            death_signal=signal.SIGTERM,
        )

    def wait(self) -> None:
        """Until it answers, on other ports if one of these was taken meanwhile."""
        for _ in range(5):
            assert self._child is not None
            if wait_for(self._child, lambda: self.api().health() is not None, seconds=30):
                return
            self._children.forget(self._child)
            self.spawn()
        raise StartError(f"{self.flavor.name} found no free ports in five attempts")

    def initialise(self) -> None:
        """One key share; unsealed and active on return."""
        made = self.api().put("sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root_token = made["root_token"]
        self.unseal_key = made["keys_base64"][0]
        self.api().put("sys/unseal", {"key": self.unseal_key})
        deadline = time.monotonic() + 30
        while self.api().health() != 200:
            if time.monotonic() > deadline:
                raise StartError(f"{self.flavor.name} did not become active after unsealing")
            time.sleep(0.05)
        # Raft's leader is elected, but the mounts may still be set up for a moment.
        while True:
            try:
                self.api().get("sys/mounts")
                return
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _settings(self) -> dict[str, Any]:
        plain, tls, mutual, *cluster = self._ports

        def listener(port: int, cluster_port: int, **more: Any) -> dict[str, Any]:
            # The cluster address would default to the next port, which may be in use.
            return {"tcp": {"address": f"127.0.0.1:{port}",
                            "cluster_address": f"127.0.0.1:{cluster_port}", **more}}

        certificate = {
            "tls_cert_file": self._tls.server,
            "tls_key_file": self._tls.server_key,
            "tls_client_ca_file": self._tls.ca,
        }
        settings: dict[str, Any] = {
            "storage": {"raft": {"path": str(self.data_dir), "node_id": "stack",
                                 "performance_multiplier": 1}},
            "listener": [
                listener(plain, cluster[0], tls_disable=True),
                listener(tls, cluster[1], **certificate),
                listener(mutual, cluster[2], tls_require_and_verify_client_cert=True, **certificate),
            ],
            "api_addr": self.address,
            "cluster_addr": f"https://127.0.0.1:{cluster[0]}",
            "plugin_directory": str(self.flavor.plugin_dir.resolve()),
            "pid_file": str(self.home / "pid"),
            "log_level": "info",
        }
        if self.flavor.has_mlock:
            settings["disable_mlock"] = True
        if self.flavor.audit_in_config:
            # The description is needed: OpenBao's parser folds an object of one key into
            # its parent, and then misses the options.
            device = {"description": "every request", "options": self.audit_options()}
            settings["audit"] = [{"file": {"file": device}}]
        return settings

    def audit_options(self) -> dict[str, str]:
        return {"file_path": str(self.audit_log), "mode": "0644"}

    def describe(self) -> dict[str, Any]:
        assert self._child is not None
        health = self.api().get("sys/health")
        return {
            "flavor": self.flavor.name,
            "version": health["version"],
            "address": self.address,
            "tls_address": f"https://127.0.0.1:{self._ports[1]}",
            "mtls_address": f"https://127.0.0.1:{self._ports[2]}",
            "server_name": SERVER_ID,
            "ca_file": self._tls.ca,
            "client_cert": self._tls.client,
            "client_key": self._tls.client_key,
            "server_id": SERVER_ID,
            "root_token": self.root_token,
            "unseal_key": self.unseal_key,
            "pid": self._child.process.pid,
            "argv": self.argv,
            "env": self.env,
            "config_file": str(self._config),
            "data_dir": str(self.data_dir),
            "audit_log": str(self.audit_log),
            "log": str(self.log),
            "bin": str(self.flavor.binary),
            "plugins": str(self.flavor.plugin_dir),
        }
