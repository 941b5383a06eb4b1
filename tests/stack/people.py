"""What a person sees after `stack.py up`: addresses, and a configuration to start from."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from layout import EXTRA, REGION

Json = dict[str, Any]


def present(stack: Json, directory: Path) -> None:
    """Writes a ready configuration per server and prints how to use it."""
    sts, postgres = stack["sts"], stack["postgres"]
    print(f"PostgreSQL  127.0.0.1:{postgres['port']}  database {postgres['dbname']}")
    print(f"STS         {sts['url']}  region {sts['region']}  (signatures are checked)")
    if "stepfunctions" in stack:
        print(f"Step Functions  {stack['stepfunctions']['endpoint']}  (they are not)")
    for name in ("vault", "openbao"):
        if name not in stack:
            continue
        server = stack[name]
        config = directory / f"tenure-{name}.toml"
        config.write_text(_config(stack, server))
        print(f"{name:<11} {server['address']}  version {server['version']}")
        print(f"{'':<11} {server['tls_address']}  (TLS, CA {server['ca_file']})")
        print(f"{'':<11} root token {server['root_token']}, audit log {server['audit_log']}")
        print(f"{'':<11} configuration for Tenure: {config}")
    print("\nThe task's AWS identity, for the shell that starts Tenure:\n")
    for variable, value in task_environment(stack).items():
        print(f"  export {variable}='{value}'")
    print("\nand then, for example:\n")
    for name in ("vault", "openbao"):
        if name in stack:
            config, socket = directory / f"tenure-{name}.toml", Path(stack["run_dir"]) / f"{name}.sock"
            print(f"  cargo run --release -- serve --config {config}")
            print(f"  cargo run --release -- get --socket {socket} database/creds/orders")
    print("\nCtrl-C stops everything and removes its data.", flush=True)


def task_environment(stack: Json) -> dict[str, str]:
    """What a shell needs to be the task `orders-task`."""
    sts = stack["sts"]
    workflows = {"AWS_ENDPOINT_URL_SFN": stack["stepfunctions"]["endpoint"]} if "stepfunctions" in stack else {}
    return workflows | {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": sts["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": sts["secret_access_key"],
        "AWS_SESSION_TOKEN": sts["session_token"],
        "AWS_ENDPOINT_URL_STS": sts["url"],
    }


def _config(stack: Json, server: Json) -> str:
    template = Template((EXTRA / "tenure.toml.in").read_text())
    return template.substitute(
        address=server["address"],
        server_id=server["server_id"],
        region=REGION,
        flavor=server["flavor"],
        audit_log=server["audit_log"],
        run_dir=stack["run_dir"],
    )
