"""What AWS documents of Step Functions and LocalStack's interpreter does otherwise.

Nearly all are about the end of a task or an execution, when credentials must end. The API
reference says of `TaskTimedOut`: "The task token has either expired or the task associated
with the token has already been closed", and of `InvalidToken`: "The provided token is not
valid."

| | AWS | the interpreter, as it comes |
|---|---|---|
| any call with the token of a closed task | `TaskTimedOut` | success while the execution goes on, then `InvalidToken`, and success again for a failure |
| a heartbeat for a state without `HeartbeatSeconds` | success | `InvalidToken` |
| `StopExecution` while a task is under way | `ABORTED` | goes on until the heartbeat is late, then `FAILED` |
| `StopExecution` of a parent | the nested execution is stopped too, at best effort | it goes on |
| `StopExecution` right after the start | `ABORTED` | an internal error, or nothing |
| a task that nobody polled for in time | `States.Timeout` | `States.Runtime` |
| polling for a task that is closed already | waits for the next | gives the closed one |
| any of these calls while another execution starts | as ever | now and then an internal error |
| `$$.State.EnteredTime` | milliseconds and `Z` | microseconds and `+00:00` |
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from localstack.aws.api.stepfunctions import (
    ExecutionStatus,
    HistoryEventType,
    InvalidToken,
    SendTaskFailureOutput,
    SendTaskHeartbeatOutput,
    SendTaskSuccessOutput,
    TaskTimedOut,
)
from localstack.services.stepfunctions.asl.component.state import state
from localstack.services.stepfunctions.asl.component.state.state_execution.execute_state import (
    ExecutionState,
)
from localstack.services.stepfunctions.asl.component.state.state_execution.state_task.service import (
    state_task_service_sfn,
)
from localstack.services.stepfunctions.asl.eval.callback.callback import (
    ActivityCallbackEndpoint,
    ActivityTaskStartEndpoint,
    CallbackConsumerTimeout,
    CallbackEndpoint,
    CallbackOutcomeFailure,
    CallbackOutcomeSuccess,
)
from localstack.services.stepfunctions.asl.eval.environment import Environment
from localstack.services.stepfunctions.asl.eval.event.event_manager import EventManager
from localstack.services.stepfunctions.asl.eval.program_state import ProgramStopped
from localstack.services.stepfunctions.asl.eval.states import StateData
from localstack.services.stepfunctions.backend.activity import ActivityTask
from localstack.services.stepfunctions.backend.execution import Execution
from localstack.services.stepfunctions.provider import StepFunctionsProvider

# The longest that a poll is held (AWS: 60 s), and how often it looks: the interpreter's own
# second would be most of a test's time.
POLL_SECONDS, POLL_EVERY = 20.0, 0.05

Method = Callable[..., Any]


def behave_as_aws() -> None:
    _closed_tokens()
    _polling()
    _stopping()
    _nested()
    _context_object()
    # For EventBridge, which does not run here: each would be an error in the log.
    Execution.publish_execution_status_change_event = lambda _self: None


def _around(owner: type, name: str, make: Callable[[Method], Method]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


def _closed_tokens() -> None:
    def closing(original: Method) -> Method:
        def close_frame(self: Environment, frame: Environment) -> None:
            original(self, frame)
            # A frame is one attempt at a state; with it, its task is over.
            token = frame.states.context_object.context_object_data.get("Task", {}).get("Token")
            endpoint = frame.callback_pool_manager.get(token)
            if endpoint is not None:
                endpoint.report(CallbackConsumerTimeout())
                _take_back(frame, token)
        return close_frame

    def success(_original: Method) -> Method:
        def send_task_success(
            self: StepFunctionsProvider, context: Any, task_token: str, output: str, **_more: Any
        ) -> SendTaskSuccessOutput:
            outcome = CallbackOutcomeSuccess(callback_id=task_token, output=output)
            _open_task(self, context, task_token).notify(outcome)
            return SendTaskSuccessOutput()
        return send_task_success

    def failure(_original: Method) -> Method:
        def send_task_failure(
            self: StepFunctionsProvider, context: Any, task_token: str,
            error: str | None = None, cause: str | None = None, **_more: Any,
        ) -> SendTaskFailureOutput:
            outcome = CallbackOutcomeFailure(callback_id=task_token, error=error, cause=cause)
            _open_task(self, context, task_token).notify(outcome)
            return SendTaskFailureOutput()
        return send_task_failure

    def heartbeat(_original: Method) -> Method:
        def send_task_heartbeat(
            self: StepFunctionsProvider, context: Any, task_token: str, **_more: Any
        ) -> SendTaskHeartbeatOutput:
            _open_task(self, context, task_token).notify_heartbeat()
            return SendTaskHeartbeatOutput()
        return send_task_heartbeat

    _around(Environment, "close_frame", closing)
    _around(StepFunctionsProvider, "send_task_success", success)
    _around(StepFunctionsProvider, "send_task_failure", failure)
    _around(StepFunctionsProvider, "send_task_heartbeat", heartbeat)


def _open_task(provider: StepFunctionsProvider, context: Any, token: str) -> CallbackEndpoint:
    """The task that waits for `token`'s outcome; TaskTimedOut if it does not any more."""
    found = _find_task(provider, context, token)
    if found is None:
        raise InvalidToken("Invalid Token: 'Invalid token'")
    env, endpoint = found
    if not env.is_running() or endpoint.consumer_error or endpoint.get_outcome():
        raise TaskTimedOut("Task Timed Out: 'Provided task does not exist anymore'")
    return endpoint


def _find_task(
    provider: StepFunctionsProvider, context: Any, token: str
) -> tuple[Environment, CallbackEndpoint] | None:
    for execution in provider._get_executions(context):
        # An execution that is being started at this moment has none yet.
        env = getattr(execution.exec_worker, "env", None)
        endpoint = None if env is None else env.callback_pool_manager.get(token)
        if endpoint is not None:
            return env, endpoint
    return None


def _take_back(env: Environment, token: str) -> None:
    """Nobody polls for a closed task any more."""
    # Copies: other executions add to both meanwhile, and what fails here fails the state.
    for activity in list(env.activity_store.values()):
        for task in [task for task in list(activity._tasks) if task.task_token == token]:
            try:
                activity._tasks.remove(task)
            except ValueError:  # polled for at this moment
                pass


def _polling() -> None:
    def pull(activity: Any) -> ActivityTask | None:
        end = time.monotonic() + POLL_SECONDS
        while time.monotonic() < end:
            try:
                task: ActivityTask = activity.get_task()
                return task
            except IndexError:
                time.sleep(POLL_EVERY)
        return None

    def started(_original: Method) -> Method:
        def send_started(
            self: StepFunctionsProvider, context: Any, task_token: str, worker_name: str | None
        ) -> None:
            # A task can be polled for a moment before it is registered.
            end = time.monotonic() + 1
            while (found := _find_task(self, context, task_token)) is None:
                if time.monotonic() > end:
                    raise InvalidToken("Invalid Token: 'Invalid token'")
                time.sleep(0.01)
            found[1].notify_activity_task_start(worker_name=worker_name)
        return send_started

    StepFunctionsProvider._pull_activity_task = staticmethod(pull)
    _around(StepFunctionsProvider, "_send_activity_task_started", started)
    # Declared there, and read without having been set where nobody polled in time.
    ActivityTaskStartEndpoint._outcome = None


def _stopped(env: Environment) -> bool:
    return isinstance(env._program_state, ProgramStopped)


def _stopping() -> None:
    def stop(original: Method) -> Method:
        def set_stop(self: Environment, *arguments: Any, **named: Any) -> None:
            original(self, *arguments, **named)
            if self.is_frame() or not _stopped(self):
                return
            for endpoint in list(self.callback_pool_manager._pool.values()):
                endpoint.interrupt_all()
                if isinstance(endpoint, ActivityCallbackEndpoint):
                    endpoint.get_activity_task_start_endpoint()._next_activity_task_start_event.set()
        return set_stop

    def stays_stopped(original: Method) -> Method:
        def set_error(self: Environment, *arguments: Any, **named: Any) -> None:
            # What the interruption looks like to the task is no failure of the execution.
            if not _stopped(self):
                original(self, *arguments, **named)
        return set_error

    def without_retry(original: Method) -> Method:
        def evaluate(self: ExecutionState, env: Environment) -> None:
            try:
                original(self, env)
            except Exception:
                if not _stopped(env):
                    raise
                # As if it had a result: neither retried nor caught, and nothing follows.
                env.event_manager._stopped = True
                env.stack.append(None)
        return evaluate

    def sealed(original: Method) -> Method:
        def add_event(self: EventManager, context: Any, event_type: Any, *rest: Any, **more: Any) -> int:
            if getattr(self, "_stopped", False) and event_type != HistoryEventType.ExecutionAborted:
                return int(context.last_published_event_id)
            return int(original(self, context, event_type, *rest, **more))
        return add_event

    _around(Environment, "set_stop", stop)
    _around(Environment, "set_error", stays_stopped)
    _around(ExecutionState, "_evaluate_with_timeout", without_retry)
    _around(EventManager, "add_event", sealed)


def _nested() -> None:
    children: defaultdict[str, list[str]] = defaultdict(list)

    def remembered(original: Method) -> Method:
        def resolver(self: Any, env: Environment, *rest: Any, **more: Any) -> Any:
            parent = env.states.context_object.context_object_data["Execution"]["Id"]
            children[parent].append(env.stack[-1]["ExecutionArn"])
            return original(self, env, *rest, **more)
        return resolver

    def with_children(original: Method) -> Method:
        def stop_execution(
            self: StepFunctionsProvider, context: Any, execution_arn: str, *rest: Any, **more: Any
        ) -> Any:
            _until_it_can_be_stopped(self, context, execution_arn)
            answer = original(self, context, execution_arn, *rest, **more)
            for child in children.get(execution_arn, []):
                stop_execution(self, context, child)
            return answer
        return stop_execution

    service = state_task_service_sfn.StateTaskServiceSfn
    _around(service, "_build_sync_resolver", remembered)
    _around(service, "_build_sync2_resolver", remembered)
    _around(StepFunctionsProvider, "stop_execution", with_children)


def _context_object() -> None:
    def entered(EnteredTime: str, Name: str) -> StateData:  # noqa: N803, the names of the fields
        return StateData(EnteredTime=f"{EnteredTime[:23]}Z", Name=Name)

    state.StateData = entered


def _until_it_can_be_stopped(provider: StepFunctionsProvider, context: Any, arn: str) -> None:
    """An execution that was started a moment ago has nothing yet that could be stopped."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        execution = provider.get_store(context).executions.get(arn)
        if execution is None or execution.exec_status != ExecutionStatus.RUNNING:
            return
        env = getattr(execution.exec_worker, "env", None)
        if env is not None and env.is_running():
            return
        time.sleep(0.01)
