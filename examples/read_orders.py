"""Reads a database credential through the broker with hvac, unchanged.

Over TCP: VAULT_ADDR=http://127.0.0.1:8200 and VAULT_TOKEN=$(cat /run/tenure/token).
"""

import os

import hvac

client = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"])
lease = client.secrets.database.generate_credentials("orders")
print(lease["data"]["username"], "for", lease["lease_duration"], "seconds")
