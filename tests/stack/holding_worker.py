"""The worker of examples/stepfunctions with steps that hold their database session open.

A task of the tutorial is done in a moment; what a test wants to see is what becomes of one
that is under way when its execution is stopped, its run ends or its worker is killed.
Runs in the stack's virtual environment, with the worker's own variables and these:

    HOLD_SECONDS      how long a step holds its session (default: 60)
    HEARTBEAT_EVERY   seconds between heartbeats (default: the worker's)

Prints one JSON line when a step begins, and one when it ends: `held`, or `cut` where the
session was ended from outside.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "stepfunctions"))
import worker  # noqa: E402

Json = dict[str, Any]


def holding(step: worker.Step) -> worker.Step:
    def hold(order: Json, database: psycopg.Connection) -> Json:
        result = step(order, database)
        seconds = float(os.environ.get("HOLD_SECONDS", "60"))
        _say({"step": step.__name__, "began": database.info.user})
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                database.execute("SELECT pg_sleep(0.05)")
        except psycopg.OperationalError as error:
            _say({"step": step.__name__, "cut": str(error)})
            raise
        _say({"step": step.__name__, "held": seconds})
        return result

    return hold


def _say(what: Json) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    worker.HEARTBEAT_EVERY = float(os.environ.get("HEARTBEAT_EVERY", worker.HEARTBEAT_EVERY))
    worker.reserve, worker.charge = holding(worker.reserve), holding(worker.charge)
    worker.main()
