#!/usr/bin/env python3
"""Checks the documents of this folder: the SAM template with cfn-lint, the Terraform example as HCL, and that both
give the function the same. Runs in an environment of its own, which it makes under target/lambda/.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKS = HERE.parents[1] / "target" / "lambda" / "checks"
PINS = HERE / "requirements.txt"


def main() -> int:
    if Path(sys.prefix) != CHECKS:
        return subprocess.run([environment() / "bin" / "python", __file__], check=False).returncode
    template, terraform = HERE / "template.yaml", HERE / "terraform" / "main.tf"
    # In another region than the first, a layer of AWS's or a runtime could be missing.
    lint = [CHECKS / "bin" / "cfn-lint", "--regions", "eu-west-1", "--", template]
    if subprocess.run(lint, check=False).returncode:
        return 1
    problems = [*differences(template, terraform), *programs()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def environment() -> Path:
    stamp = CHECKS / "installed"
    if not stamp.exists() or stamp.read_text() != PINS.read_text():
        shutil.rmtree(CHECKS, ignore_errors=True)
        venv.create(CHECKS, with_pip=True)
        pip = [CHECKS / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", PINS]
        subprocess.run(pip, check=True)
        stamp.write_text(PINS.read_text())
    return CHECKS


def differences(template: Path, terraform: Path) -> list[str]:
    """What one of the two says of the function and the other does not."""
    import hcl2
    from cfnlint.decode import cfn_yaml

    resources = cfn_yaml.load(str(template))["Resources"]
    sam = resources["OrdersFunction"]["Properties"]
    with terraform.open() as file:
        tables = hcl2.load(file)["resource"]
    found = next(
        bare(table["aws_lambda_function"])["orders"]
        for table in map(bare, tables) if "aws_lambda_function" in table
    )
    block = bare(found["environment"][0])
    pairs = [
        ("runtime", sam["Runtime"], word(found["runtime"])),
        ("handler", sam["Handler"], word(found["handler"])),
        ("architecture", sam["Architectures"][0], word(found["architectures"][0])),
        ("time-out", sam["Timeout"], found["timeout"]),
        (
            "variables",
            sorted(sam["Environment"]["Variables"]),
            sorted(key.strip('"') for key in bare(block["variables"])),
        ),
    ]
    return [f"{what}: {a!r} in {template.name}, {b!r} in {terraform.name}" for what, a, b in pairs if a != b]


def bare(table: dict) -> dict:
    """python-hcl2 keeps the quotes of labels, and adds members of its own."""
    return {key.strip('"'): value for key, value in table.items() if not key.startswith("__")}


def word(value: str) -> str:
    return value.strip('"')


def programs() -> list[str]:
    """The function is a program, and the policies are JSON."""
    problems = []
    for path in [*(HERE / "function").glob("*.py"), *HERE.glob("*.json")]:
        try:
            ast.parse(path.read_text()) if path.suffix == ".py" else json.loads(path.read_text())
        except (SyntaxError, ValueError) as error:
            problems.append(f"{path.name}: {error}")
    return problems


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
