#!/usr/bin/env python3
"""Asks the questions of `queries/` with DuckDB, of logs on this machine.

    local.py FOLDER QUERY [WORD]    prints the rows as JSON; the word is the query's `?`
    local.py FOLDER --all           all queries that take no word, by name

The folder is laid out as the bucket is: `tenure/<account>/<region>/<yyyy>/<mm>/<dd>/…` and
`vault/<cluster>/<yyyy>/<mm>/<dd>/…`. Needs `duckdb` (PyPI).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

try:
    import duckdb
except ImportError:
    sys.exit("local: DuckDB is missing: pip install duckdb")

HERE = Path(__file__).resolve().parent


def statements(folder: Path) -> list[str]:
    """The files of a folder: each is one statement, and uses what stands above it by name."""
    return [path.read_text() for path in sorted(folder.glob("*.sql"))]


def views(connection: duckdb.DuckDBPyConnection) -> None:
    for statement in statements(HERE / "prelude" / "duckdb") + statements(HERE / "views"):
        connection.execute(statement)


def asked(connection: duckdb.DuckDBPyConnection, name: str, words: list[str]) -> list[dict[str, object]]:
    result = connection.execute((HERE / "queries" / f"{name}.sql").read_text(), words)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def code(name: str) -> str:
    """A query without its comments."""
    lines = (HERE / "queries" / f"{name}.sql").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    folder, query, *words = sys.argv[1:]
    names = sorted(path.stem for path in (HERE / "queries").glob("*.sql"))
    if query != "--all" and query not in names:
        print(f"local: there is no query {query!r}: it is one of {', '.join(names)}", file=sys.stderr)
        return 2
    wanted = 0 if query == "--all" else code(query).count("?")
    if len(words) != wanted:
        print(f"local: {query} takes {wanted} words, and {len(words)} were given: its first lines say which", file=sys.stderr)
        return 2
    os.chdir(folder)
    with duckdb.connect() as connection:
        views(connection)
        if query == "--all":
            open_ones = [name for name in names if "?" not in code(name)]
            answer: object = {name: asked(connection, name, []) for name in open_ones}
        else:
            answer = asked(connection, query, words)
    # A time is shown as RFC 3339: all of them are in UTC.
    json.dump(answer, sys.stdout, default=lambda time: f"{time.isoformat(timespec='milliseconds')}Z")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
