"""The directory of one run, and what is left of runs that did not end well."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from layout import say, stack_dir
from postgres import can_reach

KEEP_FAILED_SECONDS = 24 * 3600


class RunDir:
    """A fresh directory for one run; it is locked, so that another launcher can tell the
    directory of a running stack from one that a killed launcher left behind."""

    def __init__(self) -> None:
        root = stack_dir()
        root.mkdir(parents=True, exist_ok=True)
        root = _reachable(root)
        # One at a time: between being made and being locked, a directory looks abandoned.
        with (root / "runs.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            _sweep(root)
            self.path = Path(tempfile.mkdtemp(prefix="run-", dir=root))
            # PostgreSQL runs as another user, and tests may too.
            self.path.chmod(0o755)
            self._lock = (self.path / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self, *, keep: bool) -> None:
        if keep:
            (self.path / "failed").touch()
            say(f"stack: failed; logs are kept in {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _reachable(root: Path) -> Path:
    if can_reach(root):
        return root
    elsewhere = Path(tempfile.gettempdir()) / f"tenure-stack-{os.getuid()}"
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    say(f"stack: PostgreSQL's user cannot enter {root}; this run is in {elsewhere}")
    return elsewhere


def anything_runs(root: Path) -> bool:
    """Is a stack up that was started from here? (Then its binaries must stay.)"""
    return any(_in_use(path) for path in root.glob("run-*"))


def _sweep(root: Path) -> None:
    """Removes what launchers that were killed left behind, and failed runs of yesterday."""
    for path in root.glob("run-*"):
        failed = path / "failed"
        if failed.exists() and time.time() - failed.stat().st_mtime < KEEP_FAILED_SECONDS:
            continue
        if not _in_use(path):
            shutil.rmtree(path, ignore_errors=True)


def _in_use(path: Path) -> bool:
    try:
        with (path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
