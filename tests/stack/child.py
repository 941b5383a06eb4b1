"""Child processes that cannot outlive the launcher, and ports for them."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def dying_with_us(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends the child `death_signal` when this process ends.

    Only for the main thread: the kernel ties the signal to the *thread* that forked, so a
    child of a worker thread would die with that thread.
    """
    assert threading.current_thread() is threading.main_thread()
    parent = os.getpid()

    def in_child() -> None:
        # After setuid (which would clear it): Popen changes the user before this runs.
        _libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


class StartError(Exception):
    """A part of the stack did not come up; the message ends with its last log lines."""


@dataclass
class Child:
    """One running process, the leader of a process group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM

    def exited(self) -> bool:
        return self.process.poll() is not None

    def last_log_lines(self, count: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except OSError:
            return "(no log)"


@dataclass
class Children:
    """All processes of one stack. Stopping is by pid and process group, never by name."""

    running: list[Child] = field(default_factory=list)

    def spawn(
        self,
        name: str,
        argv: list[str],
        *,
        log: Path,
        env: dict[str, str],
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
        stdout: int | None = None,
    ) -> Child:
        """Starts `argv`. `death_signal` is what the kernel sends it if the launcher dies."""
        identity: dict[str, object] = {}
        if user is not None:
            identity = {"user": user[0], "group": user[1], "extra_groups": []}
        with log.open("ab") as log_file:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log_file if stdout is None else stdout,
                stderr=log_file,
                start_new_session=True,
                preexec_fn=dying_with_us(death_signal),
                cwd="/",
                **identity,  # type: ignore[call-overload]
            )
        child = Child(name, process, log, stop_signal)
        self.running.append(child)
        return child

    def forget(self, child: Child) -> None:
        self.running.remove(child)

    def stop(self, patience: float = 5.0) -> None:
        """Stops all at once, in reverse order of their start; kills what does not obey."""
        children = list(reversed(self.running))
        for child in children:
            if not child.exited():
                child.process.send_signal(child.stop_signal)
        deadline = time.monotonic() + patience
        for child in children:
            try:
                child.process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            # The group too: a plugin outlives a server that was killed.
            try:
                os.killpg(child.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            child.process.wait()
        self.running.clear()


def stop_strays(argvs: list[list[str]]) -> None:
    """Ends servers of this run that a test started again, and so are not our children.

    They are known by their exact command line, which names this run's own directory.
    """
    wanted = {b"".join(os.fsencode(part) + b"\0" for part in argv) for argv in argvs}
    for sent in (signal.SIGTERM, signal.SIGKILL):
        strays = [pid for pid in _other_pids() if _command_line(pid) in wanted]
        for pid in strays:
            try:
                os.kill(pid, sent)
            except (ProcessLookupError, PermissionError):
                pass
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(_command_line(p) in wanted for p in strays):
            time.sleep(0.05)


def _other_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(
    child: Child, ready: Callable[[], bool], *, seconds: float, every: float = 0.05
) -> bool:
    """True once `ready`; False if the child went away over a port that was taken meanwhile.

    Anything else that goes wrong is a StartError with the end of the child's log.
    """
    deadline = time.monotonic() + seconds
    while True:
        if child.exited():
            if "address already in use" in child.last_log_lines(40).lower():
                return False
            raise StartError(
                f"{child.name} ended with status {child.process.returncode}:\n{child.last_log_lines()}"
            )
        if ready():
            return True
        if time.monotonic() > deadline:
            raise StartError(f"{child.name} is not ready after {seconds:.0f} s:\n{child.last_log_lines()}")
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different, and below the range of outgoing connections.

    A port from that range (what binding to port 0 gives) can be taken by any connection
    while a test has the server down; and a client that keeps trying to reach a stopped
    server there may connect to *itself*. A clash is still possible: callers try again.
    """
    low = _lowest_outgoing_port()
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", random.randrange(10_000, low)))
            except OSError:
                candidate.close()
                continue
            held.append(candidate)
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


def _lowest_outgoing_port() -> int:
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768
    return low if low > 12_000 else 32_768


def clean_environment(home: Path) -> dict[str, str]:
    """What a child sees: nothing of the developer's VAULT_*, AWS_* or proxy settings."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
    }
