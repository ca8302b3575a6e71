#!/usr/bin/env python3
"""Secret Manager, Cloud Storage, STS, IAM credentials and a metadata server, on Google's own types.

usage: fake.py FOLDER

FOLDER holds `server.pem` and `server.key`, and gets `key.json`, the key of a service account. Prints
one line `{"https": PORT, "metadata": PORT}`. Everything but the metadata server is on the first port,
with TLS. A test tells what there is by `POST /fake/WHAT` with a JSON object.
"""
import base64
import json
import pathlib
import secrets
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google.auth.jwt
import google_crc32c
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.secretmanager_v1.types import (
    AccessSecretVersionResponse, SecretPayload, SecretVersion)

PROJECT_ID, PROJECT_NUMBER = "lab-project", "123456789"
ACCOUNT = "sortie@lab-project.iam.gserviceaccount.com"
TOKEN_SECONDS = 3600
STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE",
}


class Refused(Exception):
    def __init__(self, code, status=None, message="planted-in-a-message"):
        super().__init__(message)
        self.code, self.status = code, status or STATUS[code]


class World:
    """What there is; changed by the test, read by the handlers."""

    def __init__(self, folder):
        self.lock = threading.Lock()
        self.secrets = {}  # id -> list of [bytes, state]
        self.objects = {}  # (bucket, name) -> (bytes, generation)
        self.tokens = set()
        self.subject_token = None
        self.mode = None
        self.public_key = self.write_key(folder)

    def write_key(self, folder):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption())
        (folder / "key.json").write_text(json.dumps({
            "type": "service_account", "project_id": PROJECT_ID, "private_key_id": "first",
            "private_key": private.decode(), "client_email": ACCOUNT, "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": "https://oauth2.googleapis.com/token"}))
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def mint(self):
        token = "ya29." + secrets.token_urlsafe(64)
        self.tokens.add(token)
        return token

    def admit(self, header, scopes):
        """A token that was minted here, or one that the service account signed itself."""
        kind, _, token = (header or "").partition(" ")
        if kind != "Bearer":
            raise Refused(401)
        if token in self.tokens:
            return
        try:
            claims = google.auth.jwt.decode(token, certs=self.public_key)
        except ValueError as error:
            raise Refused(401) from error
        if claims["iss"] != ACCOUNT or not scopes & set(claims.get("scope", "").split()):
            raise Refused(401)

    def change(self, what, body):
        with self.lock:
            if what == "secret":
                versions = self.secrets.setdefault(body["id"], [])
                versions.append([base64.b64decode(body["data"]), "ENABLED"])
                return {"version": len(versions)}
            if what == "state":
                self.secrets[body["id"]][body["version"] - 1][1] = body["state"]
            elif what == "object":
                generation = str(time.time_ns() // 1000)
                self.objects[body["bucket"], body["name"]] = (
                    base64.b64decode(body["data"]), generation)
                return {"generation": generation}
            elif what == "subject":
                self.subject_token = body["token"]
            elif what == "mode":
                self.mode = body["mode"]
            elif what == "tokens":
                return {"tokens": sorted(self.tokens)}
            else:
                raise Refused(400)
            return {}

    def version(self, project, secret, number):
        if project not in (PROJECT_ID, PROJECT_NUMBER) or secret not in self.secrets:
            raise Refused(404)
        versions = self.secrets[secret]
        number = len(versions) if number == "latest" else int(number)
        if not 1 <= number <= len(versions):
            raise Refused(404)
        name = f"projects/{PROJECT_NUMBER}/secrets/{secret}/versions/{number}"
        return (name, *versions[number - 1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world = None

    def log_message(self, *_arguments):
        pass

    def answer(self, code, body, headers=(), kind="application/json"):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def guarded(self, handle):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        try:
            handle(url.path, query)
        except Refused as refused:
            headers = [("Retry-After", "7")] if refused.code == 429 else []
            told = {"code": refused.code, "message": str(refused)}
            if "/storage/v1/b/" not in url.path:
                told["status"] = refused.status
            elif query.get("alt") == ["media"]:  # Cloud Storage tells why in a plain text
                return self.answer(refused.code, str(refused), headers, "text/html; charset=UTF-8")
            else:
                told["errors"] = [
                    {"message": str(refused), "domain": "global", "reason": refused.status}]
            self.answer(refused.code, json.dumps({"error": told}), headers)


class Services(Handler):
    def do_GET(self):
        self.guarded(self.get)

    def do_POST(self):
        self.guarded(self.post)

    def get(self, path, query):
        if self.world.mode == "html":
            return self.answer(502, "<html>planted-in-a-page</html>", kind="text/html")
        if self.world.mode is not None:
            raise Refused(int(self.world.mode))
        if path.startswith("/v1/projects/"):
            return self.secret(path)
        if path.startswith(("/storage/v1/b/", "/download/storage/v1/b/")):
            return self.object(path, query)
        raise Refused(404)

    def secret(self, path):
        self.world.admit(
            self.headers["Authorization"], {"https://www.googleapis.com/auth/cloud-platform"})
        parts = [unquote(part) for part in path.split("/")]
        if len(parts) != 8 or (parts[4], parts[6]) != ("secrets", "versions"):
            raise Refused(404)
        number, _, access = parts[7].partition(":")
        name, data, state = self.world.version(parts[3], parts[5], number)
        if not access:
            version = SecretVersion(name=name, state=SecretVersion.State[state])
            return self.answer(200, SecretVersion.to_json(version, use_integers_for_enums=False))
        if access != "access":
            raise Refused(404)
        if state != "ENABLED":
            raise Refused(400, "FAILED_PRECONDITION")
        payload = SecretPayload(data=data, data_crc32c=google_crc32c.value(data))
        told = AccessSecretVersionResponse(name=name, payload=payload)
        return self.answer(200, AccessSecretVersionResponse.to_json(told))

    def object(self, path, query):
        self.world.admit(
            self.headers["Authorization"],
            {"https://www.googleapis.com/auth/devstorage.read_only"})
        bucket, _, name = path.split("/v1/b/", 1)[1].partition("/o/")
        found = self.world.objects.get((unquote(bucket), unquote(name)))
        if found is None:
            raise Refused(404)
        data, generation = found
        checksum = google_crc32c.value(data).to_bytes(4, "big")
        checksum = base64.b64encode(checksum).decode()
        if query.get("alt") == ["media"]:
            headers = [("X-Goog-Generation", generation), ("X-Goog-Hash", f"crc32c={checksum}")]
            return self.answer(200, data, headers, "application/octet-stream")
        told = {"kind": "storage#object", "bucket": unquote(bucket), "name": unquote(name),
                "generation": generation, "size": str(len(data)), "crc32c": checksum}
        return self.answer(200, json.dumps(told))

    def post(self, path, _query):
        if path.startswith("/fake/"):
            changed = self.world.change(path.removeprefix("/fake/"), json.loads(self.body()))
            return self.answer(200, json.dumps(changed))
        if path == "/v1/token":
            return self.exchange(parse_qs(self.body().decode()))
        if path == f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken":
            self.world.admit(
                self.headers["Authorization"], {"https://www.googleapis.com/auth/iam"})
            self.body()
            expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + TOKEN_SECONDS))
            told = {"accessToken": self.world.mint(), "expireTime": expires}
            return self.answer(200, json.dumps(told))
        raise Refused(404)

    def exchange(self, form):
        """RFC 8693."""
        grant = "urn:ietf:params:oauth:grant-type:token-exchange"
        if form.get("grant_type") != [grant]:
            return self.answer(400, '{"error": "unsupported_grant_type"}')
        if form.get("subject_token") != [self.world.subject_token]:
            told = {"error": "invalid_grant", "error_description": form["subject_token"][0]}
            return self.answer(400, json.dumps(told))
        return self.answer(200, json.dumps({
            "access_token": self.world.mint(), "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "expires_in": TOKEN_SECONDS}))


class Metadata(Handler):
    def do_GET(self):
        self.guarded(self.get)

    def get(self, path, _query):
        flavor = [("Metadata-Flavor", "Google")]
        if self.headers.get("Metadata-Flavor") != "Google":
            raise Refused(403)
        account = "/computeMetadata/v1/instance/service-accounts/default/"
        if path == "/":
            return self.answer(200, "computeMetadata/\n", flavor, "text/plain")
        if path == "/computeMetadata/v1/universe/universe-domain":
            return self.answer(200, "googleapis.com", flavor, "text/plain")
        if path == "/computeMetadata/v1/project/project-id":
            return self.answer(200, PROJECT_ID, flavor, "text/plain")
        if path == account:
            told = {"aliases": ["default"], "email": ACCOUNT, "scopes": []}
            return self.answer(200, json.dumps(told), flavor)
        if path == account + "token":
            told = {"access_token": self.world.mint(), "expires_in": TOKEN_SECONDS,
                    "token_type": "Bearer"}
            return self.answer(200, json.dumps(told), flavor)
        raise Refused(404)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler, tls=None):
        super().__init__(("127.0.0.1", 0), handler)
        if tls is not None:
            # The handshake is made by the thread of its connection, when it first reads.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_arguments):
        """A client that goes away, or does not trust us, is no news."""


def main():
    folder = pathlib.Path(sys.argv[1])
    Handler.world = World(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    services, metadata = Server(Services, tls), Server(Metadata)
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    ports = {"https": services.server_port, "metadata": metadata.server_port}
    print(json.dumps(ports), flush=True)
    services.serve_forever()


if __name__ == "__main__":
    main()
