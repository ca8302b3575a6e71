#!/usr/bin/env python3
"""Asks the fake with Google's own clients, and prints what they got as one JSON object.

usage: official.py ENDPOINT CA-FILE PROJECT SECRET BUCKET OBJECT

The metadata server is named by GCE_METADATA_HOST; `key.json` and `federation.json` lie beside
CA-FILE.
"""
import base64
import json
import os
import pathlib
import sys

from google.api_core.client_options import ClientOptions
from google.auth import compute_engine, identity_pool
from google.cloud import secretmanager_v1, storage
from google.oauth2 import service_account

CLOUD = "https://www.googleapis.com/auth/cloud-platform"
READ = "https://www.googleapis.com/auth/devstorage.read_only"


def main():
    endpoint, ca_file, project, secret, bucket, name = sys.argv[1:7]
    os.environ["REQUESTS_CA_BUNDLE"] = ca_file  # of every session that the clients make
    folder = pathlib.Path(ca_file).parent
    by_key = service_account.Credentials.from_service_account_file(folder / "key.json")
    by_key = by_key.with_always_use_jwt_access(True)
    federation = json.loads((folder / "federation.json").read_text())
    logins = {
        "metadata": lambda _scope: compute_engine.Credentials(),
        "key-file": lambda scope: by_key.with_scopes([scope]),
        "federation": lambda scope: identity_pool.Credentials.from_info(
            federation, scopes=[scope]),
    }
    options = ClientOptions(api_endpoint=endpoint)
    told = {}
    for login, credentials in logins.items():
        told[login] = {
            "secret": read_secret(options, credentials(CLOUD), project, secret),
            "object": read_object(options, credentials(READ), bucket, name),
        }
    print(json.dumps(told))


def read_secret(options, credentials, project, secret):
    client = secretmanager_v1.SecretManagerServiceClient(
        credentials=credentials, transport="rest", client_options=options)
    name = f"projects/{project}/secrets/{secret}/versions/latest"
    got = client.access_secret_version(name=name)
    state = client.get_secret_version(name=name).state.name
    return {"name": got.name, "state": state, "crc32c": got.payload.data_crc32c,
            "data": base64.b64encode(got.payload.data).decode()}


def read_object(options, credentials, bucket, name):
    client = storage.Client(
        project="lab-project", credentials=credentials, client_options=options)
    blob = client.bucket(bucket).blob(name)
    data = blob.download_as_bytes(checksum="crc32c")
    blob.reload()
    return {"generation": str(blob.generation), "data": base64.b64encode(data).decode()}


if __name__ == "__main__":
    main()
