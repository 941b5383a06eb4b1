"""`stack.py up`: starts the parts in parallel, configures them, keeps them, stops them."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import people
from build import SetupError
from child import Child, Children, StartError, clean_environment, stop_strays
from configure import configure
from layout import ACCOUNT, HERE, INTERPRETER, POLICIES, REGION, SERVER_ID, Artifacts, say, stack_dir
from postgres import Admin, Postgres
from rundir import RunDir
from server import Flavor, Server, Tls, server_argv

Json = dict[str, Any]


class Stopped(BaseException):
    """A signal asked us to stop. Not an Exception: nothing may swallow it."""


def up(*, as_json: bool, only: str | None, with_stepfunctions: bool) -> int:
    """Runs the stack until stdin ends (with `as_json`) or a signal comes."""
    artifacts = Artifacts()
    if missing := artifacts.missing(stepfunctions=with_stepfunctions):
        raise SetupError(f"not set up: {', '.join(missing)}; run `stack.py setup`")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)

    run_dir = RunDir()
    children = Children()
    failed = False
    try:
        started = time.monotonic()
        description = _start(artifacts, children, run_dir.path, only, with_stepfunctions)
        say(f"stack: ready in {time.monotonic() - started:.1f} s")
        if as_json:
            print(json.dumps(description), flush=True)
            _until_stdin_ends()
        else:
            people.present(description, stack_dir())
            while True:
                signal.pause()
    except Stopped:
        pass
    except BaseException:
        failed = True
        raise
    finally:
        # Stopping must not be stopped: a second Ctrl-C would leave servers behind.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        children.stop()
        stop_strays([server_argv(flavor, run_dir.path) for flavor in _flavors(artifacts)])
        run_dir.close(keep=failed)
    return 0


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


def _until_stdin_ends() -> None:
    while True:
        select.select([sys.stdin], [], [])
        if not os.read(sys.stdin.fileno(), 4096):
            return


def _start(
    artifacts: Artifacts, children: Children, run_dir: Path, only: str | None, with_stepfunctions: bool
) -> Json:
    # Processes first, all of them from this thread (see `Children.spawn`); then the
    # waiting; then the configuration, which is requests only, in threads.
    flavors = [f for f in _flavors(artifacts) if only in (None, f.name)]
    admins = {f.name: Admin(f"{f.name}_admin", secrets.token_hex(16)) for f in flavors}

    tls = _spawn_tls(artifacts, children, run_dir)
    sts = _spawn_sts(artifacts, children, run_dir)
    stepfunctions = _spawn_stepfunctions(artifacts, children, run_dir) if with_stepfunctions else None
    postgres = Postgres(children, run_dir)
    _finish(children, tls)
    servers = [Server(children, run_dir, f, Tls(run_dir / "tls")) for f in flavors]
    for server in servers:
        server.spawn()
    postgres.start()
    for server in servers:
        server.wait()

    with ThreadPoolExecutor() as pool:
        unsealing = [pool.submit(server.initialise) for server in servers]
        preparing = pool.submit(postgres.prepare, list(admins.values()))
        aws = pool.submit(_ready_line, sts).result()
        preparing.result()
        for waiting in unsealing:
            waiting.result()
        configuring = [
            pool.submit(configure, server, admins[server.flavor.name], postgres.port, aws)
            for server in servers
        ]
        for waiting in configuring:
            waiting.result()
        extras = {} if stepfunctions is None else {
            "stepfunctions": _ready_line(stepfunctions) | {"log": str(stepfunctions.log)}
        }

    return {
        "run_dir": str(run_dir),
        "python": str(artifacts.python),
        "postgres": postgres.describe(),
        "sts": aws,
    } | extras | {
        server.flavor.name: server.describe() | {
            "database_admin": {"user": admins[server.flavor.name].user,
                               "password": admins[server.flavor.name].password},
            "username_prefix": f"{server.flavor.name}-",
        }
        for server in servers
    }


def _flavors(artifacts: Artifacts) -> list[Flavor]:
    return [
        Flavor("vault", artifacts.vault, artifacts.vault_dir / "plugins",
               audit_in_config=False, has_mlock=True),
        Flavor("openbao", artifacts.openbao, artifacts.openbao_dir / "plugins",
               audit_in_config=True, has_mlock=False),
    ]


def _spawn_tls(artifacts: Artifacts, children: Children, run_dir: Path) -> Child:
    (run_dir / "tls").mkdir()
    return children.spawn(
        "tls.py", [str(artifacts.python), str(HERE / "tls.py"), str(run_dir / "tls"), SERVER_ID],
        log=run_dir / "tls.log", env=clean_environment(run_dir),
    )


def _spawn_sts(artifacts: Artifacts, children: Children, run_dir: Path) -> Child:
    return children.spawn(
        "sts.py",
        [str(artifacts.python), str(HERE / "sts.py"), "--region", REGION, "--policies", str(POLICIES),
         "--web-identity-token-file", str(run_dir / "web-identity-token")],
        log=run_dir / "sts.log", env=clean_environment(run_dir), stdout=subprocess.PIPE,
    )


def _spawn_stepfunctions(artifacts: Artifacts, children: Children, run_dir: Path) -> Child:
    home = run_dir / "stepfunctions"
    home.mkdir()
    return children.spawn(
        "stepfunctions",
        [str(artifacts.interpreter_python), str(INTERPRETER / "serve.py"), "--home", str(home),
         "--region", REGION, "--account", ACCOUNT],
        log=run_dir / "stepfunctions.log", env=clean_environment(home), stdout=subprocess.PIPE,
        # All that it has is in memory, and it would take six seconds to end in an orderly way.
        stop_signal=signal.SIGKILL,
    )


def _finish(children: Children, child: Child) -> None:
    if child.process.wait(60) != 0:
        raise StartError(f"{child.name} failed:\n{child.last_log_lines()}")
    children.forget(child)


def _ready_line(child: Child) -> Json:
    """What a child says of itself, once, when it is ready."""
    pipe: IO[bytes] | None = child.process.stdout
    assert pipe is not None
    ready, _, _ = select.select([pipe], [], [], 60)
    line = pipe.readline() if ready else b""
    if not line:
        raise StartError(f"{child.name} is not ready:\n{child.last_log_lines()}")
    description: Json = json.loads(line)
    return description
