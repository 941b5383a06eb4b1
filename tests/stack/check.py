"""Proves that the stack and the shipped policies work, on both servers, without Tenure.

Started by `stack.py check`, in the stack's virtual environment (it signs with botocore).
Prints one line per check and, last, `N passed, N failed`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from check_readme import check_readme
from check_report import Report, expect
from check_server import Checks
from check_states import StateChecks
from check_stepfunctions import check_stepfunctions
from check_sts import check_sts
from layout import HERE

Json = dict[str, Any]


def main() -> int:
    python = sys.argv[1]
    os.environ["no_proxy"] = "127.0.0.1,localhost"  # whatever proxy is set, not to ourselves
    report = Report()
    stack = Stack(python)
    try:
        check_sts(report, stack.info["sts"])
        check_stepfunctions(report, stack.info["stepfunctions"])
        for name in ("vault", "openbao"):
            if shutil.which("envsubst"):
                report.check(f"{name}: the commands of policies/README.md work",
                             lambda: check_readme(stack.info, name))
            else:
                print("skip  policies/README.md: envsubst (gettext) is not installed")
            StateChecks(report, stack.info, name).run()
            Checks(report, stack.info, name).run()
    finally:
        report.check("launcher: end of stdin leaves no process", lambda: check_stop(stack, "EOF"))
    for how in ("SIGTERM", "SIGINT", "SIGKILL"):
        report.check(f"launcher: {how} leaves no process", lambda: check_stop(Stack(python), how))
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


class Stack:
    """`stack.py up --json`, as a test would use it."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "stack.py"), "up", "--json", "--with", "stepfunctions"],
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


if __name__ == "__main__":
    sys.exit(main())
