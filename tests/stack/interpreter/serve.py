"""Step Functions: the interpreter of LocalStack, made to answer as AWS documents it.

Runs in a virtual environment of its own, as a process of its own. As it comes, it listens
on every interface and knows its callers' accounts by the look of their access key; here it
listens on loopback, on a port that the system chose, and has one account, whoever signs.
Signatures are not checked. What else differs from AWS is put right in `as_aws.py`.

Prints one JSON line when it is ready. All that it writes is below its working directory.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, TextIO

# `iam` and `sts` for the role that a state machine assumes to start another one.
SERVICES = "stepfunctions,sts,iam"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--account", required=True)
    arguments = parser.parse_args()

    answer = _keep_stdout()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    port = listener.getsockname()[1]
    _environment(arguments.home, arguments.region, port)
    _one_account(arguments.account)
    _listen_only_on(listener)

    from as_aws import behave_as_aws
    from localstack.runtime.main import main as run

    behave_as_aws()
    ready = {
        "endpoint": f"http://127.0.0.1:{port}",
        "region": arguments.region,
        "account_id": arguments.account,
        "access_key_id": f"AKIA{secrets.token_hex(8).upper()}",
        "secret_access_key": secrets.token_hex(20),
        "role_arn": f"arn:aws:iam::{arguments.account}:role/orders-workflow",
        "pid": os.getpid(),
    }
    threading.Thread(target=_say_when_ready, args=(answer, ready), daemon=True).start()
    run()


def _keep_stdout() -> TextIO:
    """Our own way to say that all is ready: what the interpreter prints goes to the log."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answer


def _environment(home: Path, region: str, port: int) -> None:
    """Read once, when LocalStack is first imported."""
    temporary = home / "tmp"
    temporary.mkdir()
    os.environ.update({
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "SERVICES": SERVICES,
        "EAGER_SERVICE_LOADING": "1",
        "AWS_DEFAULT_REGION": region,
        "FILESYSTEM_ROOT": str(home / "root"),
        "TMPDIR": str(temporary),
        # Nothing is reported or fetched, and names are the system's to resolve.
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
    })


def _one_account(account: str) -> None:
    """The broker's key is the STS's, a test's is ours: both must see the same executions."""
    from localstack.aws import accounts

    # Before anything imports the function by its name.
    accounts.get_account_id_from_access_key_id = lambda _access_key: account


def _listen_only_on(listener: socket.socket) -> None:
    """The server takes only the port of `GATEWAY_LISTEN` and binds to all addresses."""
    from twisted.internet import endpoints

    def adopted(reactor: Any, _port: int) -> Any:
        return endpoints.AdoptedStreamServerEndpoint(reactor, listener.fileno(), socket.AF_INET)

    endpoints.TCP4ServerEndpoint = adopted


def _say_when_ready(answer: TextIO, ready: dict[str, Any]) -> None:
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with straight.open(f"{ready['endpoint']}/_localstack/health", timeout=2) as health:
                if json.load(health)["services"].get("stepfunctions") == "running":
                    break
        except OSError:
            pass
        time.sleep(0.05)
    print(json.dumps(ready), file=answer, flush=True)


if __name__ == "__main__":
    sys.exit(main())
