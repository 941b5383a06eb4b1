#!/usr/bin/env python3
"""Builds the Lambda layers: a static binary as an extension, for each architecture.

    layer.py [x86_64] [arm64]     default: both

Zips are written to target/lambda/. What a layer holds is `extensions/tenure`, executable for
everybody: the extension without the commands that people give. Above 8 MB unpacked the build
fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
OUT = PROJECT / "target" / "lambda"
TOOLS = OUT / "tools"

# A C compiler and a linker for both targets, and how cargo uses them: from PyPI, pinned.
PACKAGES = ("ziglang==0.17.1", "cargo-zigbuild==0.24.0")

TARGETS = {"x86_64": "x86_64-unknown-linux-musl", "arm64": "aarch64-unknown-linux-musl"}

# Every cold start loads it, and a function's code and layers together may have 250 MB.
LARGEST = 8 * 1000 * 1000


def main(wanted: list[str]) -> int:
    for name in wanted:
        if name not in TARGETS:
            print(f"layer: {name!r} is no architecture of Lambda's: {', '.join(TARGETS)}", file=sys.stderr)
            return 2
    chosen = {name: target for name, target in TARGETS.items() if not wanted or name in wanted}
    try:
        tools()
        if shutil.which("rustup"):
            run(["rustup", "target", "add", *chosen.values()])
        fits = [build(name, target) for name, target in chosen.items()]
    except subprocess.CalledProcessError as error:
        print(f"layer: {' '.join(map(str, error.cmd))} failed", file=sys.stderr)
        return 1
    return 0 if all(fits) else 1


def tools() -> None:
    """Installed once for each set of pins."""
    stamp = TOOLS / "installed"
    pins = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == pins:
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    venv.create(TOOLS, with_pip=True)
    run([TOOLS / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES])
    stamp.write_text(pins)


def build(name: str, target: str) -> bool:
    """The layer of one architecture; whether it is as small as it must be."""
    path = f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run(
        ["cargo", "zigbuild", "--locked", "--profile", "lambda", "--features", "layer", "--bin", "extension",
         "--target", target],
        env=os.environ | {"PATH": path},
    )
    binary = PROJECT / "target" / target / "lambda" / "extension"
    layer = OUT / f"tenure-{name}.zip"
    pack(binary, layer)
    unpacked, packed = binary.stat().st_size, layer.stat().st_size
    print(f"{layer.relative_to(PROJECT)}: {megabytes(unpacked)} unpacked, {megabytes(packed)} packed")
    if unpacked > LARGEST:
        print(f"layer: {name} is larger than {megabytes(LARGEST)} unpacked", file=sys.stderr)
        return False
    return True


def pack(binary: Path, layer: Path) -> None:
    """The same binary makes the same zip: it bears no date, and Unix' permissions."""
    entry = zipfile.ZipInfo("extensions/tenure", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o100755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    layer.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr(entry, binary.read_bytes(), compresslevel=9)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def run(command: list[str | Path], env: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=PROJECT, env=env, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
