"""The REST API from the command line: logs in, asks, waits."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

FIRST_POLL_S, MAX_POLL_S = 0.05, 1.0
MAX_RATE_LIMIT_WAITS = 10


class ClientError(Exception):
    """What went wrong, in a sentence for people."""


class AssistantClient:
    """One user's calls to one ingress."""

    def __init__(self, home: Path, environ: Mapping[str, str], *, transport: httpx.BaseTransport | None = None) -> None:
        """Finds the ingress and the credentials.

        The ingress: `ASSISTANT_URL`, else the one that runs in `home`. The user: `ASSISTANT_USER` (root) with
        `ASSISTANT_PASSWORD`, else the first admin's password as `home` keeps it.

        Raises:
            ClientError: Nothing runs here, or there is no password.
        """
        self._home = home
        url = environ.get("ASSISTANT_URL") or _running_ingress(home)
        if not url:
            raise ClientError("nothing is running here: start it with `make up`, or set ASSISTANT_URL")
        self._user = environ.get("ASSISTANT_USER", "root")
        self._password = environ.get("ASSISTANT_PASSWORD") or environ.get("ROOT_USR_PASS") or _kept_password(home)
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(30), trust_env=False, transport=transport)
        self._token_file = home / "secrets" / "token.json"

    def __enter__(self) -> "AssistantClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self, body: dict[str, Any], *, on_stage: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
    ) -> dict[str, Any]:
        """Ask and follow the job to its end; a rate limit is waited out.

        Args:
            body: Of `POST /chat/async`.
            on_stage: Told where the job is, or what is waited for.
            sleep: Between looks.

        Returns:
            What `POST /chat/` would have answered.

        Raises:
            ClientError: There is no answer.
        """
        for _ in range(MAX_RATE_LIMIT_WAITS):
            reply = self._call("POST", "/chat/async", json=body)
            if reply.status_code != 429:
                break
            wait = int(reply.headers.get("retry-after", "5"))
            for left in range(wait, 0, -1):
                on_stage(f"rate limit: {left} s")
                sleep(1)
        answer = _body(reply)
        if reply.status_code == 200:
            return answer
        poll = FIRST_POLL_S
        while True:
            view = _body(self._call("GET", f"/jobs/{answer['job_id']}"))
            if view["status"] == "completed":
                result: dict[str, Any] = view["result"]
                return result
            if view["status"] == "error":
                raise ClientError(f"{view['error']['code']}: {view['error']['message']}")
            on_stage(view.get("stage", "accepted"))
            sleep(poll)
            poll = min(MAX_POLL_S, poll * 1.5)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The newest ones."""
        items: list[dict[str, Any]] = _body(self._call("GET", "/jobs", params={"limit": limit}))["items"]
        return items

    def cancel(self, job_id: UUID) -> str:
        """`cancelling`, `cancelled` or `already-finished`; may be asked for again."""
        status: str = _body(self._call("POST", f"/jobs/{job_id}/cancel"))["status"]
        return status

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        reply = self._send(method, path, headers={"authorization": f"Bearer {self._token()}"}, **options)
        if reply.status_code == 401:  # expired, or of another deployment
            reply = self._send(method, path, headers={"authorization": f"Bearer {self._log_in()}"}, **options)
        return reply

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ClientError(f"{self._http.base_url} does not answer ({type(error).__name__})") from None

    def _token(self) -> str:
        try:
            kept = json.loads(self._token_file.read_text())
            if kept["url"] == str(self._http.base_url) and kept["user"] == self._user:
                token: str = kept["token"]
                return token
        except (OSError, ValueError, KeyError):
            pass
        return self._log_in()

    def _log_in(self) -> str:
        if self._password is None:
            raise ClientError("set ASSISTANT_PASSWORD (and ASSISTANT_USER, where it is not root)")
        credentials = {"user_id": self._user, "password": self._password}
        token: str = _body(self._send("POST", "/auth/login", json=credentials))["access_token"]
        self._token_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": str(self._http.base_url), "user": self._user, "token": token}, file)
        return token


def _body(reply: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = reply.json()
    except ValueError:
        raise ClientError(f"the ingress answered {reply.status_code} with something that is not JSON") from None
    if reply.status_code >= 400:
        raise ClientError(f"{body.get('code', reply.status_code)}: {body.get('detail', 'no reason was given')}")
    return body


def _running_ingress(home: Path) -> str | None:
    try:
        url: str | None = json.loads((home / "run" / "status.json").read_text())["ingress"]
    except (OSError, ValueError, KeyError):
        return None
    return url


def _kept_password(home: Path) -> str | None:
    try:
        return (home / "secrets" / "root_usr_pass").read_text().strip()
    except OSError:
        return None
