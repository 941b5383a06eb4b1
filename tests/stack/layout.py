"""Where the stack's parts live, and which version of each is meant."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
POLICIES = PROJECT / "policies"
EXTRA = HERE / "extra"
INTERPRETER = HERE / "interpreter"

OPENBAO_VERSION = "2.7.2"

GO_FLAGS = ("-mod=readonly", "-buildvcs=false", "-ldflags=-s -w")
# The minimal Vault keeps raft, the file audit device, kv and the database engine, and
# compiles in half the time; what it drops comes back as plugins.
VAULT_TAGS = ("-tags=minimal",)

REGION = "eu-west-1"
# moto puts what it makes without other word into this account.
ACCOUNT = "123456789012"
SERVER_ID = "vault.test"


def stack_dir() -> Path:
    """Everything built or run goes below this directory."""
    return Path(os.environ.get("TENURE_STACK_DIR") or PROJECT / "target" / "stack").resolve()


def say(message: str) -> None:
    """Progress is for people and goes to stderr: stdout carries the answer only."""
    print(message, file=sys.stderr, flush=True)


def content_key(*parts: Path | str) -> str:
    """A short name for the content of pins: a changed pin is a different directory."""
    digest = hashlib.sha256()
    for part in (*parts, platform.machine(), sys.platform):
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


class Artifacts:
    """The finished artefacts. A directory that exists is complete: it was renamed into place."""

    def __init__(self) -> None:
        flags = " ".join((*GO_FLAGS, *VAULT_TAGS))
        root = stack_dir()
        vault, bao_aws = HERE / "vault", HERE / "openbao-aws"
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.vault_dir = root / f"vault-{content_key(vault / 'go.mod', vault / 'go.sum', flags)}"
        self.openbao_dir = root / (
            "openbao-"
            + content_key(bao_aws / "go.mod", bao_aws / "go.sum", flags, OPENBAO_VERSION)
        )
        self.venv_dir = root / f"venv-{content_key(HERE / 'requirements.txt', python)}"
        self.vault = self.vault_dir / "vault"
        self.openbao = self.openbao_dir / "bao"
        self.python = self.venv_dir / "bin" / "python"
        # An environment of its own: what it pins does not go with what the rest needs.
        self.interpreter_dir = root / (
            f"interpreter-{content_key(INTERPRETER / 'requirements.txt', python)}"
        )
        self.interpreter_python = self.interpreter_dir / "bin" / "python"

    def missing(self, *, stepfunctions: bool) -> list[str]:
        wanted = {
            "Vault": self.vault_dir,
            "OpenBao": self.openbao_dir,
            "the Python environment": self.venv_dir / "complete",
        }
        if stepfunctions:
            wanted["the interpreter of state machines"] = self.interpreter_dir / "complete"
        return [name for name, path in wanted.items() if not path.exists()]
