"""Thirty goals, each with a checker of its answer and what a perfect model does, and the world that they are about."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# By name; each is one passage. Most goals need one of them, and all are there for each goal.
DOCUMENTS = {
    "handbook": "The notice period of employees is 42 days. It begins on the first day of a month.",
    "canteen": "The canteen opens at 11:40 and closes at 13:55. On Fridays there is fish.",
    "warranty": "The warranty of the pump Aquila lasts 27 months, that of the pump Corvus 15 months.",
    "travel": "For travel by train, first class is refunded from 320 kilometres on. Hotels: at most 115 euros a night.",
    "security": "Visitors sign in at gate Nord. Badges are orange for visitors and green for employees.",
    "founding": "The company was founded in 1974 in Tampere by Aino Lehtonen.",
    "backup": "Backups are made at 03:20 and kept for 90 days. The machine for it is called Otso.",
    "colours": "The paint of model Salmia is sold as Arctic Blue. The order number of the paint is 8812.",
    "contract": "The supplier of bearings is Moravec. Orders of Moravec are filed under /suppliers/moravec.",
    "lead": "The project Lumen is led by Ines Duarte. Her calendar is at /people/duarte.",
}
# Of the host that may be called, by path.
API: Mapping[str, Any] = {
    "/orders/4712": {"state": "shipped", "carrier": "Posti", "weight_kg": 18},
    "/orders/4713": {"state": "waiting for payment", "carrier": None, "weight_kg": 7},
    "/orders/4714": {"state": "returned", "carrier": "Matkahuolto", "weight_kg": 31},
    "/stock/8812": {"article": 8812, "pieces": 64, "shelf": "C-17"},
    "/stock/8813": {"article": 8813, "pieces": 0, "shelf": "D-02"},
    "/weather/oulu": {"temperature": -12, "wind": "northeast"},
    "/rates/sek": {"currency": "SEK", "per_euro": 11.25},
    "/suppliers/moravec": {"city": "Brno", "open_orders": 5},
    "/people/duarte": {"next_meeting": "Thursday at 14:10", "room": "Saimaa"},
    "/meters/1": {"kwh": 412},
    "/meters/2": {"kwh": 388},
    "/meters/3": {"kwh": 150},
}
Move = Callable[[str], str]
"""What a perfect model says to a prompt."""


@dataclass(frozen=True, slots=True)
class Task:
    """`goal`: with `{host}` where the address of the API is; `wanted`: what the answer has to hold, all of it."""

    kind: str
    goal: str
    wanted: Sequence[str]
    moves: Sequence[Move] = field(repr=False)

    def is_reached(self, answer: str) -> bool:
        """True where the answer says what is wanted, as words of their own."""
        said = " ".join(answer.lower().replace(",", "").split())
        return all(re.search(rf"(?<![\w.-]){re.escape(one.lower())}(?![\w-])", said) for one in self.wanted)


def call(tool: str, **given: Any) -> str:
    """A step as models write one."""
    return json.dumps({"thought": "next", "action": tool, "action_input": given})


def search(query: str) -> Move:
    """Look into the documents."""
    return lambda _: call("search", query=query)


def get(path: str) -> Move:
    """Ask the API."""
    return lambda prompt: call("external_api", url=_host(prompt) + path)


def get_found(pattern: str, *, under: str = "") -> Move:
    """Ask the API for what was read."""
    return lambda prompt: call("external_api", url=_host(prompt) + under + _read(prompt, pattern)[-1])


def say(pattern: str) -> Move:
    """Answer with what was read, and with nothing that was not."""
    return lambda prompt: call("finish", answer=f"It is {_read(prompt, pattern)[-1]}.")


def total(pattern: str, of: Callable[[Sequence[float]], float] = sum) -> Move:
    """Answer with what comes of the numbers that were read."""
    return lambda prompt: call("finish", answer=f"{of([float(one) for one in _read(prompt, pattern)]):g}")


def _host(prompt: str) -> str:
    return str(re.findall(r"https?://[\w.:-]*\w", prompt)[0])


def _read(prompt: str, pattern: str) -> list[str]:
    """All that a pattern finds in what was observed; where nothing is, there is nothing to be said."""
    observed = "\n".join(re.findall(r"<<data \w+>>\n(.*?)\n<<end", prompt, re.DOTALL))
    return re.findall(pattern, observed) or ["not to be found"]


def _lookup(goal: str, query: str, pattern: str, *wanted: str) -> Task:
    return Task("lookup", f"{goal} Look it up in my documents.", wanted, (search(query), say(pattern)))


def _api(goal: str, path: str, pattern: str, *wanted: str) -> Task:
    return Task("api", f"{goal} GET {{host}}{path} says it.", wanted, (get(path), say(pattern)))


def _sum(goal: str, pattern: str, *wanted: str, paths: Sequence[str], of: Callable[[Any], float] = sum) -> Task:
    told = " and ".join(f"{{host}}{path}" for path in paths)
    return Task("arithmetic", f"{goal} GET {told}.", wanted, (*map(get, paths), total(pattern, of)))


TASKS = (
    _lookup("How long is the notice period of employees?", "notice period", r"is (\d+ days)", "42 days"),
    _lookup("When does the canteen close?", "canteen", r"closes at ([\d:]+)", "13:55"),
    _lookup("How long is the warranty of the pump Corvus?", "warranty Corvus", r"Corvus (\d+ months)", "15 months"),
    _lookup("What may a hotel cost a night?", "hotels", r"at most (\d+ euros)", "115"),
    _lookup("Which colour are the badges of visitors?", "badges", r"are (\w+) for visitors", "orange"),
    _lookup("Who founded the company?", "founded", r"by ([A-Z]\w+ \w+)", "Aino Lehtonen"),
    _lookup("At what time are backups made?", "backups", r"made at ([\d:]+)", "03:20"),
    _lookup("How is the paint of model Salmia sold?", "Salmia", r"sold as ([A-Z]\w+ \w+)", "Arctic Blue"),
    _api("What is the state of order 4712?", "/orders/4712", r'"state": "([^"]+)', "shipped"),
    _api("What is the state of order 4713?", "/orders/4713", r'"state": "([^"]+)', "waiting for payment"),
    _api("Who carries order 4714?", "/orders/4714", r'"carrier": "([^"]+)', "Matkahuolto"),
    _api("How many pieces of article 8812 are in stock?", "/stock/8812", r'"pieces": (\d+)', "64"),
    _api("On which shelf is article 8813?", "/stock/8813", r'"shelf": "([^"]+)', "D-02"),
    _api("What is the temperature in Oulu?", "/weather/oulu", r'"temperature": (-?\d+)', "-12"),
    _api("From where does the wind blow in Oulu?", "/weather/oulu", r'"wind": "([^"]+)', "northeast"),
    _api("How many SEK is a euro?", "/rates/sek", r'"per_euro": ([\d.]+)', "11.25"),
    _sum("How many kWh have meters 1 and 2 in all?", r'"kwh": (\d+)', "800", paths=("/meters/1", "/meters/2")),
    _sum("How many kWh have meters 2 and 3 in all?", r'"kwh": (\d+)', "538", paths=("/meters/2", "/meters/3")),
    _sum(
        "How many kWh have meters 1, 2 and 3 in all?", r'"kwh": (\d+)', "950",
        paths=("/meters/1", "/meters/2", "/meters/3"),
    ),
    _sum(
        "What do orders 4712 and 4714 weigh together, in kg?", r'"weight_kg": (\d+)', "49",
        paths=("/orders/4712", "/orders/4714"),
    ),
    _sum(
        "How much more has meter 1 than meter 2, in kWh?", r'"kwh": (\d+)', "24", paths=("/meters/1", "/meters/2"),
        of=lambda read: read[0] - read[1],
    ),
    _sum(
        "How many SEK are 40 euros?", r'"per_euro": ([\d.]+)', "450", paths=("/rates/sek",),
        of=lambda read: 40 * read[0],
    ),
    Task(
        "steps", "On which shelf is the paint of model Salmia? My documents have its order number, which is that of an "
        "article; {host}/stock/NUMBER tells of one.", ("C-17",),
        (
            search("paint Salmia"),
            get_found(r"order number of the paint is (\d+)", under="/stock/"),
            say(r'"shelf": "([^"]+)'),
        ),
    ),
    Task(
        "steps", "In which city is the supplier of bearings? My documents say where its orders are filed, at {host}.",
        ("Brno",), (search("supplier bearings"), get_found(r"filed under (/[\w/]+)"), say(r'"city": "([^"]+)')),
    ),
    Task(
        "steps", "How many open orders has the supplier of bearings? My documents say where they are filed, at {host}.",
        ("5",), (search("supplier bearings"), get_found(r"filed under (/[\w/]+)"), say(r'"open_orders": (\d+)')),
    ),
    Task(
        "steps", "When is the next meeting of whoever leads the project Lumen? My documents say where the calendar is, "
        "at {host}.", ("Thursday", "14:10"),
        (search("Lumen"), get_found(r"calendar is at (/[\w/]+)"), say(r'"next_meeting": "([^"]+)')),
    ),
    Task(
        "steps", "In which room is the next meeting of whoever leads the project Lumen? My documents say where the "
        "calendar is, at {host}.", ("Saimaa",),
        (search("Lumen"), get_found(r"calendar is at (/[\w/]+)"), say(r'"room": "([^"]+)')),
    ),
    Task(
        "steps", "Which machine makes the backups, and for how many days are they kept? Look it up in my documents.",
        ("Otso", "90"), (search("machine backups"), say(r"(90 days. The machine for it is called Otso)")),
    ),
    Task(
        "steps", "How many days longer are backups kept than the notice period lasts? Look both up in my documents.",
        ("48",),
        (
            search("backups kept"), search("notice period"),
            total(r"(?:kept for|employees is) (\d+) days", lambda read: max(read) - min(read)),
        ),
    ),
    Task(
        "steps", "Has article 8813 to be ordered again? It has where {host}/stock/8813 tells of no piece. Answer yes "
        "or no.", ("yes",),
        (
            get("/stock/8813"),
            lambda prompt: call("finish", answer="yes" if _read(prompt, r'"pieces": (\d+)') == ["0"] else "no"),
        ),
    ),
)  # fmt: skip
