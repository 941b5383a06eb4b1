"""The identities of the stack's AWS account, made in moto's IAM before it asks for signatures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from layout import ACCOUNT, REGION
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends


@dataclass(frozen=True)
class Session:
    """Credentials of an assumed role."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Identities:
    """Who exists: role ARNs, and the keys of Vault's own user."""

    task_role: str
    other_role: str
    chained_role: str
    external_id: str
    vault_server: dict[str, str]


def make_identities(policies: Path, region: str) -> Identities:
    """Roles and users, with the shipped IAM documents where there is one."""

    def shipped(name: str) -> str:
        text = (policies / "iam" / name).read_text()
        return text.replace("${AWS_ACCOUNT_ID}", ACCOUNT).replace("${AWS_REGION}", region)

    # An identity policy is not needed to be identified (GetCallerIdentity is always
    # allowed); this one is for role chaining only.
    chained_role = f"arn:aws:iam::{ACCOUNT}:role/orders-broker"
    external_id = "stack-external-id"
    may_chain = _document({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": chained_role})
    task_role = _role("orders-task", shipped("task-role-trust.json"), may_chain)
    iam_backends[ACCOUNT]["aws"].put_role_policy(
        "orders-task", "stepfunctions", shipped("task-role-stepfunctions.json")
    )
    other_role = _role("other-task", shipped("task-role-trust.json"), None)
    _role(
        "orders-broker",
        _document({
            "Effect": "Allow",
            # In AWS this names the task role. moto compares the session's ARN, whose last
            # part is not known here; who may is left to the caller's own policy.
            "Principal": {"AWS": "*"},
            "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
        }),
        None,
    )
    vault_server = _user("vault-server", shipped("vault-server.json"))
    return Identities(task_role, other_role, chained_role, external_id, vault_server)


def assume(role_arn: str, session_name: str, seconds: int = 3600) -> Session:
    """What the ECS agent does for a task: a session of its role, in AWS's own name."""
    role = sts_backends[ACCOUNT]["aws"].assume_role(
        region_name=REGION, role_session_name=session_name, role_arn=role_arn,
        policy=None, duration=seconds, external_id=None,  # type: ignore[arg-type]
    )
    end = role.expiration.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Session(role.access_key_id, role.secret_access_key, role.session_token, end)


def _role(name: str, trust: str, policy: str | None) -> str:
    iam = iam_backends[ACCOUNT]["aws"]
    role = iam.create_role(
        role_name=name, assume_role_policy_document=trust, path="/", permissions_boundary=None,
        description="", tags=[], max_session_duration="43200",
    )
    if policy is not None:
        iam.put_role_policy(name, "stack", policy)
    return str(role.arn)


def _user(name: str, policy: str) -> dict[str, str]:
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user(region_name=REGION, user_name=name)
    iam.put_user_policy(name, "stack", policy)
    key = iam.create_access_key(name)
    return {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
