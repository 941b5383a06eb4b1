"""Counting what passed and what failed, for `check.py` and its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Report:
    """Counts, and says what failed without stopping at it."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            result = work()
        except Exception as error:  # one failure must not hide the next
            self.failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
            return None
        self.passed += 1
        print(f"ok    {name}", flush=True)
        return result


def expect(condition: bool, what: Any) -> None:
    if not condition:
        raise AssertionError(what)


def until(ready: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for a condition, within a bound."""
    deadline = time.monotonic() + seconds
    while not ready():
        expect(time.monotonic() < deadline, f"not within {seconds} s")
        time.sleep(0.05)
