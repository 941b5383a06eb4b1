"""A function whose database credential lives as long as its work.

PGHOST, PGPORT and PGDATABASE say where the database is; there is no user and no password.
"""

import os

import broker
import psycopg

PATH = os.environ.get("SECRET_PATH", "database/creds/orders")


def handler(event, context):
    login = broker.read(PATH, event, context)
    with psycopg.connect(user=login["username"], password=login["password"]) as database:
        (one,) = database.execute("SELECT 1").fetchone()
    return {"one": one, "user": login["username"]}
