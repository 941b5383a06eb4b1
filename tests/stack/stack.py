#!/usr/bin/env python3
"""The real test stack: Vault, OpenBao, PostgreSQL, an STS that checks signatures, and an
interpreter of Step Functions' state machines.

    stack.py setup          build and install everything (cached)
    stack.py up             start, print addresses, stay until Ctrl-C
    stack.py up --json      the same for a test: one JSON line, stay until stdin ends
    stack.py check          start it and prove that it works
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from build import SetupError, setup
from child import StartError
from layout import HERE, Artifacts, say
from up import up


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="build and install everything (cached)")
    run = commands.add_parser("up", help="start the stack and keep it until told to stop")
    run.add_argument("--json", action="store_true", help="one JSON line; stop when stdin ends")
    run.add_argument("--only", choices=("vault", "openbao"), help="start one of the two servers")
    run.add_argument("--with", action="append", default=[], choices=("stepfunctions",), dest="extras",
                     help="start this too (without --json, all is started)")
    commands.add_parser("check", help="start the stack and prove that it works")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "setup":
                setup()
                return 0
            case "up":
                return up(
                    as_json=arguments.json, only=arguments.only,
                    with_stepfunctions="stepfunctions" in arguments.extras or not arguments.json,
                )
            case _:
                return check()
    except (SetupError, StartError) as error:
        say(f"stack: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def check() -> int:
    """The check signs AWS requests, so it runs where botocore is: in the environment."""
    artifacts = Artifacts()
    if missing := artifacts.missing(stepfunctions=True):
        raise SetupError(f"not set up: {', '.join(missing)}; run `stack.py setup`")
    return subprocess.run(
        [str(artifacts.python), str(HERE / "check.py"), sys.executable], env=dict(os.environ), check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
