"""A Step Functions activity worker whose database credential lives as long as one task.

For each task it registers a run with the broker, reads the state's database credential
under the run's handle, does the task's work in PostgreSQL, ends the run, and reports. It
holds no credential between two tasks, and a task that is stopped, or too late, loses its own.

    RESERVE_ACTIVITY_ARN, CHARGE_ACTIVITY_ARN   which activities to work for
    TENURE_ADDR                                 unix:///run/tenure/tenure.sock, or http://127.0.0.1:8200
    TENURE_TOKEN_FILE                           on TCP: the file of listen.tcp.token_file
    PGHOST, PGPORT, PGDATABASE                  where the database is (no user, no password)
    AWS_REGION and so on                        as every AWS SDK takes them
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import psycopg
from botocore.config import Config
from botocore.exceptions import ClientError
from sidecar import Run, Sidecar, TenureError, named_failures

Json = dict[str, Any]
Step = Callable[[Json, psycopg.Connection], Json]

log = logging.getLogger("worker")

# Well below the HeartbeatSeconds of the states.
HEARTBEAT_EVERY = 5.0
# The database role of each state: the broker gives a run that of its own state, and no other.
DATABASE_ROLES = {"Reserve": "orders-reserve", "Charge": "orders-charge"}
# A token that is not good any more: the task timed out, or its execution was stopped.
TASK_IS_OVER = ("TaskTimedOut", "TaskDoesNotExist", "InvalidToken")


class Refused(Exception):
    """A failure of the work itself, by the name that the state machine knows it by."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


# --- the work: plain functions that know nothing of Vault or Step Functions -------------


def reserve(order: Json, database: psycopg.Connection) -> Json:
    row = database.execute("SELECT item FROM orders WHERE id = %s", [order["id"]]).fetchone()
    if row is None:
        raise Refused("Orders.Unknown", f"there is no order {order['id']}")
    return {"item": str(row[0])}


def charge(order: Json, database: psycopg.Connection) -> Json:
    # Whoever tries again, because a task was cut off, must not charge twice.
    database.execute(
        "INSERT INTO charges VALUES (%s, %s) ON CONFLICT DO NOTHING", [order["id"], order.get("amount", 0)]
    )
    return {"charged": order["id"]}


# --- one task: a run, a credential, the work, the report --------------------------------


def perform(sidecar: Sidecar, task: Json, token: str, step: Step) -> Json:
    """The step's result. The run, its credential and its database sessions end with it."""
    # What the state machine says of the task: which execution, which state, which attempt,
    # until when. With the task's token the broker sees for itself that this is so, and when
    # the task is over. (It sends heartbeats to see it: the README says what that means.)
    run_of_task = task["run"] | {"task_token": token}
    with sidecar.run(run_of_task) as run:
        log.info("run %s until %s", run.id, run.deadline)
        with connect(run, DATABASE_ROLES[task["run"]["state"]]) as database:
            return step(task["order"], database)


@contextmanager
def connect(run: Run, role: str) -> Iterator[psycopg.Connection]:
    with named_failures():
        login = run.vault.secrets.database.generate_credentials(role)["data"]
    with psycopg.connect(
        user=login["username"], password=login["password"], autocommit=True
    ) as database:
        yield database


def handle(stepfunctions: Any, sidecar: Sidecar, given: Json, step: Step) -> None:
    """Does one task and reports how it went, by a name that Retry and Catch can match."""
    token = given["taskToken"]
    with heartbeats(stepfunctions, token) as over:
        try:
            result = perform(sidecar, json.loads(given["input"]), token, step)
        except (TenureError, Refused) as error:
            outcome = failure(error.name, error)
        except psycopg.OperationalError as error:
            # The server is away; or the run is over, and with it the session.
            outcome = failure("Orders.DatabaseUnavailable", error)
        except Exception as error:  # a bug is the task's failure, not the worker's end
            log.exception("the task failed")
            outcome = failure("Orders.Unexpected", error)
        else:
            outcome = {"output": json.dumps(result)}
    if over.is_set():
        return  # nobody waits for the outcome
    send = stepfunctions.send_task_failure if "error" in outcome else stepfunctions.send_task_success
    try:
        send(taskToken=token, **outcome)
    except ClientError as error:
        if error.response["Error"]["Code"] not in TASK_IS_OVER:
            raise


def failure(name: str, error: Exception) -> Json:
    log.warning("%s: %s", name, error)
    return {"error": name, "cause": str(error)[:1000]}


@contextmanager
def heartbeats(stepfunctions: Any, token: str) -> Iterator[threading.Event]:
    """Says that the task is alive until the block is left; the event: the task is over."""
    over, done = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_EVERY):
            try:
                stepfunctions.send_task_heartbeat(taskToken=token)
            except ClientError as error:
                if error.response["Error"]["Code"] in TASK_IS_OVER:
                    log.warning("the task is over: %s", error)
                    over.set()
                    return
                log.warning("no heartbeat: %s", error)
            except Exception as error:  # the network: the next one may go through
                log.warning("no heartbeat: %s", error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield over
    finally:
        done.set()
        thread.join()


# --- the worker: a thread for each activity ---------------------------------------------


def serve(steps: dict[str, Step]) -> None:
    """Polls for the tasks of each activity (its ARN) until SIGTERM, and finishes what it has begun."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    at_work = [threading.Lock() for _ in steps]
    for (activity, step), busy in zip(steps.items(), at_work, strict=True):
        threading.Thread(target=poll, args=(activity, step, busy, stopping), daemon=True).start()
    log.info("polling %d activities", len(steps))
    stopping.wait()
    for busy in at_work:
        busy.acquire()


def poll(activity: str, step: Step, busy: threading.Lock, stopping: threading.Event) -> None:
    # A poll is held for 60 seconds: the SDK's own time-out must be above that.
    stepfunctions = boto3.client("stepfunctions", config=Config(read_timeout=70))
    sidecar = Sidecar(
        os.environ.get("TENURE_ADDR", "unix:///run/tenure/tenure.sock"),
        os.environ.get("TENURE_TOKEN_FILE"),
    )
    name = f"{os.uname().nodename}-{os.getpid()}"
    while not stopping.is_set():
        try:
            given = stepfunctions.get_activity_task(activityArn=activity, workerName=name)
            if given.get("taskToken"):
                with busy:
                    handle(stepfunctions, sidecar, given, step)
        except Exception:  # throttled, the network: wait and ask again
            log.exception("polling %s", activity)
            stopping.wait(5)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    serve({
        os.environ["RESERVE_ACTIVITY_ARN"]: reserve,
        os.environ["CHARGE_ACTIVITY_ARN"]: charge,
    })


if __name__ == "__main__":
    main()
