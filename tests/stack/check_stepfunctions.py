"""Proves that state machines run, and that the end of a task is told as AWS documents it."""

from __future__ import annotations

import json
import secrets
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from check_report import Report, expect, until

Json = dict[str, Any]

CLOSED, UNKNOWN = "TaskTimedOut", "InvalidToken"


def check_stepfunctions(report: Report, described: Json) -> None:
    workflows = Workflows(described)
    for name, work in {
        "an activity succeeds, and is in the history": workflows.succeeds,
        "a named failure is retried with a fresh token, then caught": workflows.retried_and_caught,
        "the context object is what AWS's is": workflows.context,
        "a late heartbeat closes the task, the execution goes on": workflows.late_heartbeat,
        "a task ends at TimeoutSeconds, whatever the heartbeats": workflows.task_timeout,
        "a task that nobody polls for times out": workflows.nobody_polls,
        "an execution ends at its own TimeoutSeconds": workflows.execution_timeout,
        "StopExecution closes the task at once": workflows.stopped,
        "a heartbeat needs no HeartbeatSeconds": workflows.no_heartbeat_seconds,
        "a nested execution fails its parent, and is stopped with it": workflows.nested,
        "unknown and unfit names are refused": workflows.unknown,
    }.items():
        report.check(f"stepfunctions: {name}", work)


class Workflows:
    """One activity, and a state machine for each check."""

    def __init__(self, described: Json) -> None:
        self.role = described["role_arn"]
        self.account, self.region = described["account_id"], described["region"]
        self.client = boto3.client(
            "stepfunctions",
            endpoint_url=described["endpoint"],
            region_name=described["region"],
            # Any key will do, as the broker's own must.
            aws_access_key_id="ASIAQAAAAAAAGMKEM7X5",
            aws_secret_access_key=described["secret_access_key"],
            config=Config(read_timeout=70, retries={"total_max_attempts": 1}),
        )
        self.activity = self.client.create_activity(name="check")["activityArn"]

    def machine(self, definition: Json, kind: str = "STANDARD") -> str:
        made = self.client.create_state_machine(
            name=f"check-{secrets.token_hex(4)}", definition=json.dumps(definition),
            roleArn=self.role, type=kind,
        )
        return str(made["stateMachineArn"])

    def start(self, definition: Json) -> str:
        started = self.client.start_execution(stateMachineArn=self.machine(definition), input="{}")
        return str(started["executionArn"])

    def task(self, **more: Any) -> Json:
        return {"Type": "Task", "Resource": self.activity, "End": True} | more

    def only(self, **more: Any) -> Json:
        return {"StartAt": "Task", "States": {"Task": self.task(**more)}}

    def poll(self) -> Json:
        got: Json = self.client.get_activity_task(activityArn=self.activity, workerName="check")
        return got

    def heartbeat(self, token: str) -> str:
        """The name of the error, or nothing."""
        try:
            self.client.send_task_heartbeat(taskToken=token)
            return ""
        except ClientError as error:
            expect(error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error)
            return str(error.response["Error"]["Code"])

    def status(self, execution: str) -> str:
        return str(self.client.describe_execution(executionArn=execution)["status"])

    def ends(self, execution: str, status: str) -> Json:
        until(lambda: self.status(execution) != "RUNNING")
        expect(self.status(execution) == status, self.status(execution))
        described: Json = self.client.describe_execution(executionArn=execution)
        return described

    def history(self, execution: str) -> list[str]:
        events = self.client.get_execution_history(executionArn=execution)["events"]
        return [event["type"] for event in events]

    def succeeds(self) -> None:
        execution = self.start(self.only(HeartbeatSeconds=5, TimeoutSeconds=30))
        token = self.poll()["taskToken"]
        expect(self.heartbeat(token) == "", "a heartbeat of a running task")
        self.client.send_task_success(taskToken=token, output='{"ok":true}')
        expect(self.ends(execution, "SUCCEEDED")["output"] == '{"ok":true}', "the output")
        expect(self.heartbeat(token) == CLOSED, self.heartbeat(token))
        expect(self.history(execution) == [
            "ExecutionStarted", "TaskStateEntered", "ActivityScheduled", "ActivityStarted",
            "ActivitySucceeded", "TaskStateExited", "ExecutionSucceeded",
        ], self.history(execution))

    def retried_and_caught(self) -> None:
        definition = self.only(
            Parameters={"attempt.$": "$$.State.RetryCount"},
            Retry=[{"ErrorEquals": ["Tenure.Unavailable"], "IntervalSeconds": 1, "MaxAttempts": 1}],
            Catch=[{"ErrorEquals": ["Tenure.Denied"], "ResultPath": "$.error", "Next": "Caught"}],
        )
        definition["States"]["Caught"] = {"Type": "Pass", "End": True}
        execution = self.start(definition)
        first = self.poll()
        self.client.send_task_failure(taskToken=first["taskToken"], error="Tenure.Unavailable")
        second = self.poll()
        expect(first["taskToken"] != second["taskToken"], "the same token")
        attempts = [json.loads(task["input"])["attempt"] for task in (first, second)]
        expect(attempts == [0, 1], attempts)
        expect(self.heartbeat(first["taskToken"]) == CLOSED, "the first attempt's token")
        self.client.send_task_failure(taskToken=second["taskToken"], error="Tenure.Denied", cause="no")
        output = json.loads(self.ends(execution, "SUCCEEDED")["output"])
        expect(output["error"] == {"Error": "Tenure.Denied", "Cause": "no"}, output)

    def context(self) -> None:
        execution = self.start(self.only(Parameters={
            "execution.$": "$$.Execution.Id", "state.$": "$$.State.Name",
            "attempt.$": "$$.State.RetryCount", "entered.$": "$$.State.EnteredTime",
        }))
        task = self.poll()
        given = json.loads(task["input"])
        entered = given.pop("entered")
        expect(given == {"execution": execution, "state": "Task", "attempt": 0}, given)
        expect(entered.endswith("Z") and "T" in entered, entered)
        self.client.send_task_success(taskToken=task["taskToken"], output="{}")

    def late_heartbeat(self) -> None:
        definition = self.only(
            HeartbeatSeconds=1, TimeoutSeconds=30,
            Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}],
        )
        definition["States"]["Caught"] = self.task()
        execution = self.start(definition)
        late, next_one = self.poll()["taskToken"], self.poll()["taskToken"]
        expect(self.status(execution) == "RUNNING", self.status(execution))
        expect(self.heartbeat(late) == CLOSED, self.heartbeat(late))
        self.client.send_task_success(taskToken=next_one, output="{}")
        self.ends(execution, "SUCCEEDED")

    def task_timeout(self) -> None:
        execution = self.start(self.only(TimeoutSeconds=2, HeartbeatSeconds=1))
        token = self.poll()["taskToken"]
        until(lambda: self.heartbeat(token) == CLOSED)
        expect(self.ends(execution, "FAILED")["error"] == "States.Timeout", execution)
        expect("ActivityTimedOut" in self.history(execution), self.history(execution))

    def nobody_polls(self) -> None:
        execution = self.start(self.only(TimeoutSeconds=1))
        expect(self.ends(execution, "FAILED")["error"] == "States.Timeout", execution)

    def execution_timeout(self) -> None:
        execution = self.start(self.only() | {"TimeoutSeconds": 1})
        token = self.poll()["taskToken"]
        described = self.ends(execution, "TIMED_OUT")
        expect("error" not in described, described)
        expect(self.heartbeat(token) == CLOSED, self.heartbeat(token))

    def stopped(self) -> None:
        execution = self.start(self.only(HeartbeatSeconds=20, TimeoutSeconds=30))
        token = self.poll()["taskToken"]
        self.client.stop_execution(executionArn=execution, error="Orders.Cancelled")
        expect(self.heartbeat(token) == CLOSED, self.heartbeat(token))
        self.ends(execution, "ABORTED")
        expect(self.history(execution)[-2:] == ["ActivityStarted", "ExecutionAborted"], execution)
        # Right after its start, when nobody has polled yet: nobody will be given the task.
        execution = self.start(self.only())
        self.client.stop_execution(executionArn=execution)
        self.ends(execution, "ABORTED")
        self.succeeds()

    def no_heartbeat_seconds(self) -> None:
        self.start(self.only(TimeoutSeconds=30))
        token = self.poll()["taskToken"]
        expect(self.heartbeat(token) == "", self.heartbeat(token))
        self.client.send_task_success(taskToken=token, output="{}")

    def nested(self) -> None:
        child = self.machine(self.only())
        parent: Json = {"StartAt": "Nest", "States": {"Nest": {
            "Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "End": True,
            "Parameters": {"StateMachineArn": child, "Input": {"parent.$": "$$.Execution.Id"}},
            "Catch": [{"ErrorEquals": ["States.TaskFailed"], "Next": "Read"}],
        }, "Read": {
            "Type": "Pass", "End": True,
            "Parameters": {"cause.$": "States.StringToJson($.Cause)"},
        }}}
        execution = self.start(parent)
        task = self.poll()
        self.client.send_task_failure(taskToken=task["taskToken"], error="Tenure.Denied")
        cause = json.loads(self.ends(execution, "SUCCEEDED")["output"])["cause"]
        expect(cause["Error"] == "Tenure.Denied" and cause["Status"] == "FAILED", cause)
        expect(cause["Input"] == {"parent": execution}, cause)

        execution = self.start(parent)
        token = self.poll()["taskToken"]
        self.client.stop_execution(executionArn=execution)
        expect(self.heartbeat(token) == CLOSED, self.heartbeat(token))
        self.ends(execution, "ABORTED")
        nested = [one["executionArn"] for one in
                  self.client.list_executions(stateMachineArn=child)["executions"]]
        until(lambda: sorted(map(self.status, nested)) == ["ABORTED", "FAILED"])

    def unknown(self) -> None:
        expect(self.heartbeat("garbage") == UNKNOWN, self.heartbeat("garbage"))
        nowhere = f"arn:aws:states:{self.region}:{self.account}:execution:check:nowhere"
        wait = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 1, "End": True}}}
        machine = self.machine(wait, "EXPRESS")
        express = self.client.start_execution(stateMachineArn=machine)["executionArn"]
        for arn, code in ((nowhere, "ExecutionDoesNotExist"), (express, "InvalidArn"), ("garbage", "InvalidArn")):
            for ask in (
                self.client.describe_execution, self.client.get_execution_history, self.client.stop_execution,
            ):
                try:
                    ask(executionArn=arn)
                except ClientError as error:
                    expect(error.response["Error"]["Code"] == code, error)
                else:
                    expect(False, f"{arn} was answered")
