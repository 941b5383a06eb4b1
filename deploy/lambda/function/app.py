"""Reads its database credential as AWS documents it for its own extension. Nothing here knows of Vault."""

import json
import os
import urllib.parse
import urllib.request

PORT = os.environ.get("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "2773")


def secret(name):
    query = urllib.parse.urlencode({"secretId": name})
    request = urllib.request.Request(f"http://localhost:{PORT}/secretsmanager/get?{query}")
    request.add_header("X-Aws-Parameters-Secrets-Token", os.environ["AWS_SESSION_TOKEN"])
    with urllib.request.urlopen(request) as answer:
        return json.loads(json.load(answer)["SecretString"])


def handler(event, context):
    # Ask each time: the extension answers from memory, and with what is good for this invocation.
    credential = secret("prod/orders/db")
    return {"user": credential["username"]}
