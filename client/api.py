"""The REST API from the command line: logs in, asks, waits."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import UUID

import httpx

FIRST_POLL_S, MAX_POLL_S = 0.05, 1.0
MAX_RATE_LIMIT_WAITS = 10
UNTOLD_WAIT_S = 5  # where a 429 does not say it


class ClientError(Exception):
    """What went wrong, in a sentence for people."""


class RateLimitedError(ClientError):
    """Too many requests. `wait_s`: until the next one may pass."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = max(1, ceil(wait_s))


class CutError(ClientError):
    """An answer broke off, or there was none; what came until then is good."""


class AssistantClient:
    """One user's calls to one ingress."""

    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        *,
        root_password: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Finds the ingress and the credentials.

        The ingress: `ASSISTANT_URL`, else the one that runs in `home`. The user: whose `ASSISTANT_API_KEY` is, where
        there is one; else `ASSISTANT_USER` (root) with
        `ASSISTANT_PASSWORD`; for root else `root_password` (ROOT_USR_PASS as the settings have it), else the one that
        `home` keeps.

        Raises:
            ClientError: Nothing runs here, or there is no password.
        """
        self._home = home
        url = environ.get("ASSISTANT_URL") or _running_ingress(home)
        if not url:
            raise ClientError("nothing is running here: start it with `make up`, or set ASSISTANT_URL")
        self._key = environ.get("ASSISTANT_API_KEY")
        self._user = environ.get("ASSISTANT_USER", "root")
        self._password = environ.get("ASSISTANT_PASSWORD")
        if self._password is None and self._user == "root":
            self._password = root_password or _kept_password(home)
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(30), trust_env=False, transport=transport)
        self._token_file = home / "secrets" / "token.json"

    def __enter__(self) -> "AssistantClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self,
        body: dict[str, Any],
        *,
        on_stage: Callable[[str], None],
        on_wait: Callable[[int, int], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, Any]:
        """Ask and follow the job to its end; a rate limit is waited out, and the question asked again.

        Args:
            body: Of `POST /chat/async`.
            on_stage: Told where the job is.
            on_wait: Told each second of a rate limit: how many are left, of how many.
            sleep: Between looks.

        Returns:
            What `POST /chat/` would have answered.

        Raises:
            ClientError: There is no answer.
        """
        waits = 0
        while True:
            try:
                return self._ask_once(body, on_stage=on_stage, sleep=sleep)
            except RateLimitedError as limited:
                if waits == MAX_RATE_LIMIT_WAITS:
                    raise
                waits += 1
                for left in range(limited.wait_s, 0, -1):
                    on_wait(left, limited.wait_s)
                    sleep(1)

    def _ask_once(
        self, body: dict[str, Any], *, on_stage: Callable[[str], None], sleep: Callable[[float], None]
    ) -> dict[str, Any]:
        reply = self._call("POST", "/chat/async", json=body)
        if reply.status_code == 429:
            wait = reply.headers.get("retry-after", "")
            raise RateLimitedError(_told(reply), int(wait) if wait.isdigit() else UNTOLD_WAIT_S)
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
                error = view["error"]
                told = f"{error['code']}: {error['message']}"
                if error["code"] == "rate-limited":  # the verdict came later than the POST waits for it
                    raise RateLimitedError(told, error.get("retry_after_s", UNTOLD_WAIT_S))
                raise ClientError(told)
            on_stage(view.get("stage", "accepted"))
            sleep(poll)
            poll = min(MAX_POLL_S, poll * 1.5)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The user's own newest ones, also where the user is an admin, who could see everybody's."""
        params: dict[str, Any] = {"limit": limit} if self._key else {"limit": limit, "user_id": self._user}
        items: list[dict[str, Any]] = _body(self._call("GET", "/jobs", params=params))["items"]
        return items

    def workers(self) -> list[dict[str, Any]]:
        """Those heard of within the hour; for admins."""
        items: list[dict[str, Any]] = _body(self._call("GET", "/workers"))["items"]
        return items

    def dead_letters(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The newest ones that fit; `filters`: query parameters of `GET /admin/dlq`."""
        items: list[dict[str, Any]] = _body(self._call("GET", "/admin/dlq", params=dict(filters)))["items"]
        return items

    def dead_letter(self, partition: int, offset: int) -> dict[str, Any]:
        """One, with its record."""
        return _body(self._call("GET", f"/admin/dlq/{partition}/{offset}"))

    def redrive(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Redrive those that fit; `body`: of `POST /admin/dlq/redrive`."""
        return _body(self._call("POST", "/admin/dlq/redrive", json=dict(body)))

    def incidents(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The newest ones that fit; `filters`: query parameters of `GET /admin/incidents`."""
        items: list[dict[str, Any]] = _body(self._call("GET", "/admin/incidents", params=dict(filters)))["items"]
        return items

    def lift_quarantine(self, user_id: str) -> None:
        """Take a user's requests again."""
        _body(self._call("POST", f"/users/{quote(user_id, safe='')}/lift-quarantine"))

    def cancel(self, job_id: UUID) -> str:
        """`cancelling`, `cancelled` or `already-finished`; may be asked for again."""
        status: str = _body(self._call("POST", f"/jobs/{job_id}/cancel"))["status"]
        return status

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One call; raises CutError where it may work later, ClientError else."""
        return self._now_or_later("GET", path, params=dict(query))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> dict[str, Any]:
        """One call, safe to repeat with the same `key`; raises as `get`."""
        return self._now_or_later("POST", path, json=body, key=key)

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One call that may not be safe to repeat; {} where the answer has no body.

        Raises:
            ClientError: It was refused, or there was no answer.
        """
        reply = self._call(method, path, json=body)
        return {} if reply.status_code == 204 else _body(reply)

    def upload(
        self, path: Path, url: str, query: Mapping[str, str], *, on_sent: Callable[[int], None]
    ) -> dict[str, Any]:
        """Send a file as a form's field `file`; `on_sent`: told of how much of it is.

        Raises:
            RateLimitedError: Too many requests.
            ClientError: It was refused, or there was no answer.
            OSError: The file cannot be read.
        """
        for token in (self._token, self._log_in):
            with path.open("rb") as file:
                reply = self._send(
                    "POST", url, params=dict(query), headers={"authorization": f"Bearer {token()}"},
                    files={"file": (path.name, _Counted(file, on_sent))},
                )  # fmt: skip
            if reply.status_code != 401:
                break
        if reply.status_code == 429:
            wait = reply.headers.get("retry-after", "")
            raise RateLimitedError(_told(reply), int(wait) if wait.isdigit() else UNTOLD_WAIT_S)
        return _body(reply)

    def _now_or_later(self, method: str, path: str, *, key: str | None = None, **options: Any) -> dict[str, Any]:
        for token in (self._token, self._log_in):
            headers = {"authorization": f"Bearer {token()}"} | ({"idempotency-key": key} if key else {})
            try:
                reply = self._http.request(method, path, headers=headers, **options)
            except httpx.HTTPError as error:
                raise CutError(f"{self._http.base_url} does not answer ({type(error).__name__})") from None
            if reply.status_code != 401:
                break
        if reply.status_code in (502, 503, 504):
            raise CutError(_told(reply))
        return _body(reply)

    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """An answer of any size, in chunks.

        Raises:
            CutError: It broke off, or may come if it is asked for again.
            ClientError: There is none.
        """
        for token in (self._token, self._log_in):
            headers = {"authorization": f"Bearer {token()}"}
            try:
                with self._http.stream("GET", path, params=dict(query), headers=headers) as reply:
                    if reply.status_code == 401 and token == self._token:
                        continue
                    if reply.status_code >= 400:
                        reply.read()
                        raise (CutError if reply.status_code in (429, 503) else ClientError)(_told(reply))
                    yield from reply.iter_bytes()
                    return
            except httpx.HTTPError as error:
                raise CutError(f"{self._http.base_url} broke off ({type(error).__name__})") from None

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
        if self._key:
            return self._key
        try:
            kept = json.loads(self._token_file.read_text())
            if kept["url"] == str(self._http.base_url) and kept["user"] == self._user:
                token: str = kept["token"]
                return token
        except (OSError, ValueError, KeyError):
            pass
        return self._log_in()

    def _log_in(self) -> str:
        if self._key:
            raise ClientError("the key in ASSISTANT_API_KEY is refused: it was deleted, has expired, or is none")
        if self._password is None:
            raise ClientError("set ASSISTANT_PASSWORD (and ASSISTANT_USER, where it is not root)")
        credentials = {"user_id": self._user, "password": self._password}
        token: str = _body(self._send("POST", "/auth/login", json=credentials))["access_token"]
        self._token_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": str(self._http.base_url), "user": self._user, "token": token}, file)
        return token


class _Counted:
    """A file whose reader's progress is told."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._file, self._on_read = file, on_read

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._on_read(self._file.tell())
        return content

    def fileno(self) -> int:  # its length is asked of the system
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _body(reply: httpx.Response) -> dict[str, Any]:
    body = _json(reply)
    if reply.status_code >= 400:
        raise ClientError(_told(reply))
    return body


def _told(reply: httpx.Response) -> str:
    body = _json(reply)
    return f"{body.get('code', reply.status_code)}: {body.get('detail', 'no reason was given')}"


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = reply.json()
    except ValueError:
        raise ClientError(f"the ingress answered {reply.status_code} with something that is not JSON") from None
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
