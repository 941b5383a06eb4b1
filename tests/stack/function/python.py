"""Lambda's runtime for Python, as far as a handler sees it: `handler.handler`, from the folder that is named."""

import importlib
import json
import os
import sys
import time
import urllib.request

BASE = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"


class Context:
    def __init__(self, headers):
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline - int(time.time() * 1000))


sys.path.insert(0, sys.argv[1])
handler = importlib.import_module("handler").handler
while True:
    with urllib.request.urlopen(f"{BASE}/next") as response:
        context, event = Context(response.headers), json.load(response)
    try:
        end, answer = "response", handler(event, context)
    except Exception as error:
        end, answer = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
    url = f"{BASE}/{context.aws_request_id}/{end}"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(answer).encode(), method="POST")).close()
