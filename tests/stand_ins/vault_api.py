"""Stands in for HashiCorp Vault's HTTP API, as far as one KV v2 secret goes; hvac's own client talks to it.

No real server: neither Vault nor OpenBao comes in a package of a registry that this project may use. What is answered
follows Vault's API documentation: tokens, AppRole and Kubernetes logins, renew-self, versions, namespaces, 403 for a
token that has ended, 503 when sealed.
"""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

ROLE_ID, SECRET_ID, ROLE, JWT = "the-role-id", "the-secret-id", "assistant", "the-pods-token"
LEASE_S = 600


class VaultStandIn:
    """`put` writes a new version; `end_tokens` ends all that were given; `calls`: what was asked, in order."""

    def __init__(self, *, namespace: str | None = None, mount: str = "secret", path: str = "ai-assistant-api") -> None:
        self.namespace, self._place = namespace, f"{mount}/data/{path}"
        self._versions: list[dict[str, Any]] = []
        self.root = "root-" + uuid.uuid4().hex
        self.tokens: dict[str, bool] = {self.root: False}  # whether it can be renewed
        self.sealed = False
        self.can_renew = True
        self.calls: list[str] = []

    def put(self, **values: Any) -> None:
        self._versions.append(values)

    def end_tokens(self) -> None:
        self.tokens.clear()

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                status, reply = stand_in._reply(self.command, self.path.partition("?")[0], body, dict(self.headers))
                content = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 as the library calls them

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reply(self, method: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        path = path.removeprefix("/v1/")
        self.calls.append(f"{method} {path}")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        given = {name.lower(): value for name, value in headers.items()}
        if given.get("x-vault-namespace") != self.namespace:
            return 403, {"errors": ["permission denied"]}
        if path == "auth/approle/login":
            fits = (body.get("role_id"), body.get("secret_id")) == (ROLE_ID, SECRET_ID)
            return self._login() if fits else (400, {"errors": ["invalid role or secret ID"]})
        if path == "auth/kubernetes/login":
            fits = (body.get("role"), body.get("jwt")) == (ROLE, JWT)
            return self._login() if fits else (403, {"errors": ["permission denied"]})
        token = given.get("x-vault-token", "")
        if token not in self.tokens:
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/lookup-self":
            renewable = self.tokens[token]
            return 200, {"data": {"ttl": LEASE_S if renewable else 0, "renewable": renewable}}
        if path == "auth/token/renew-self":
            if not (self.tokens[token] and self.can_renew):
                return 400, {"errors": ["lease is not renewable"]}
            return 200, _auth(token)
        if path == self._place and self._versions:
            metadata = {"version": len(self._versions), "deletion_time": "", "destroyed": False}
            return 200, {"data": {"data": self._versions[-1], "metadata": metadata}}
        return 404, {"errors": []}

    def _login(self) -> tuple[int, Any]:
        token = "s." + uuid.uuid4().hex
        self.tokens[token] = True
        return 200, _auth(token)


def _auth(token: str) -> dict[str, Any]:
    return {"auth": {"client_token": token, "lease_duration": LEASE_S, "renewable": True, "policies": ["assistant"]}}
