"""`assistant users ...` and `assistant keys ...`, as people see them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError

MAX_PAGES = 10_000
LIMITS = ("rate_limit_requests", "tokens_per_minute", "max_in_flight", "max_pending")


class Accounts:
    """The commands' calls, as one user of one deployment; each returns the exit code."""

    def __init__(self, home: Path, *, root_password: str | None, as_json: bool = False) -> None:
        """`as_json`: the answer for programs."""
        self._home, self._root_password, self._as_json = home, root_password, as_json

    def list_users(self) -> int:
        """Everybody, by name."""

        def call(client: AssistantClient) -> int:
            items: list[dict[str, Any]] = []
            query = {"limit": "100"}
            for _ in range(MAX_PAGES):
                page = client.get("/users", query)
                items += page["items"]
                if page["next"] is None:
                    break
                query["cursor"] = page["next"]
            return self._show(items, _user_columns)

        return self._with_client(call)

    def add(self, user_id: str, password: str, *, is_admin: bool) -> int:
        """A new user."""
        body = {"user_id": user_id, "password": password, "role": "admin" if is_admin else "user"}
        return self._do("POST", "/auth/register", f"{user_id} can log in now", body)

    def change(self, user_id: str, changes: Mapping[str, Any], told: str) -> int:
        """`changes`: body of `PATCH /users/...`; `told`: what is said once it is done."""
        return self._do("PATCH", f"/users/{quote(user_id, safe='')}", told, changes)

    def delete(self, user_id: str) -> int:
        """For ever."""
        return self._do("DELETE", f"/users/{quote(user_id, safe='')}", f"{user_id} is deleted")

    def list_keys(self, user_id: str | None) -> int:
        """One's own, or somebody's."""
        query = {} if user_id is None else {"user_id": user_id}
        return self._with_client(lambda client: self._show(client.get("/api-keys", query)["items"], _key_columns))

    def add_key(self, name: str, scopes: Sequence[str], expires_at: str | None) -> int:
        """A new key, alone on standard output."""
        body: dict[str, Any] = {"name": name}
        if scopes:
            body["scopes"] = list(scopes)
        if expires_at is not None:
            body["expires_at"] = expires_at

        def call(client: AssistantClient) -> int:
            made = client.send("POST", "/api-keys", body)
            if self._as_json:
                return self._print_json(made)
            print(made["key"])  # noqa: T201 that is the command's result
            told = f"{made['id']} ({', '.join(made['scopes'])}): keep the key now, it is not shown again"
            Console(stderr=True).print(told, markup=False, highlight=False)
            return 0

        return self._with_client(call)

    def delete_key(self, key_id: str) -> int:
        """It is worth nothing any more."""
        return self._do("DELETE", f"/api-keys/{quote(key_id, safe='')}", f"the key {key_id} is deleted")

    def _do(self, method: str, path: str, told: str, body: Mapping[str, Any] | None = None) -> int:
        def call(client: AssistantClient) -> int:
            client.send(method, path, body)
            Console().print(told, markup=False, highlight=False)
            return 0

        return self._with_client(call)

    def _with_client(self, call: Callable[[AssistantClient], int]) -> int:
        try:
            with AssistantClient(self._home, os.environ, root_password=self._root_password) as client:
                return call(client)
        except ClientError as error:
            Console(stderr=True).print(str(error), markup=False, highlight=False)
            return 1

    def _show(self, items: list[dict[str, Any]], columns: Callable[[dict[str, Any]], dict[str, str]]) -> int:
        if self._as_json:
            return self._print_json(items)
        if not items:
            Console(stderr=True).print("there are none")
            return 0
        table = Table()
        for number, name in enumerate(columns(items[0])):
            table.add_column(name, no_wrap=number == 0)  # to be pasted
        for item in items:
            table.add_row(*columns(item).values())
        Console().print(table)
        return 0

    @staticmethod
    def _print_json(value: Any) -> int:
        print(json.dumps(value, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0


def _user_columns(item: dict[str, Any]) -> dict[str, str]:
    limits = [f"{name} {item[name]}" for name in LIMITS if item[name] is not None]
    return {
        "user": item["user_id"], "role": item["role"], "disabled": "yes" if item["disabled"] else "",
        "limits of their own": ", ".join(limits), "since": (item["created_at"] or "")[:10],
    }  # fmt: skip


def _key_columns(item: dict[str, Any]) -> dict[str, str]:
    return {
        "id": item["id"], "name": item["name"], "user": item["user_id"], "scopes": ", ".join(item["scopes"]),
        "expires": (item["expires_at"] or "never")[:19], "last used": (item["last_used_at"] or "never")[:19],
    }  # fmt: skip
