"""What a model wants to do next, read from what it wrote: JSON as it was asked for, or what can be made out of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from processors.tools.finish import FINISH
from schemas.generation import LARGEST_INT, MAX_JSON_DEPTH
from schemas.request_fields import without_unstorable

MAX_THOUGHT_CHARS, MAX_NAME_CHARS, MAX_INPUT_BYTES = 4_000, 64, 65_536
# Nothing here may look at a run of blank lines once for each of them: a model can be talked into writing many.
_FENCED = re.compile(r"```(?:json)?(.*?)```", re.DOTALL)
# As models write that were brought up on the paper's own examples (ReAct, arXiv 2210.03629).
_BEGIN = r"^[^\S\n]*"  # of a line
_THOUGHT = re.compile(rf"(?im){_BEGIN}thought\s*:\s*(.+?)(?={_BEGIN}(?:action|final answer)\b|\Z)", re.DOTALL)
_ACTION = re.compile(rf"(?im){_BEGIN}action\s*:\s*`?([A-Za-z_]{{2,64}})`?[ \t]*[\(\[]?")
_INPUT = re.compile(rf"(?im){_BEGIN}action[ _]input\s*:\s*(.+?)(?={_BEGIN}observation\s*:|\Z)", re.DOTALL)
_FINAL = re.compile(rf"(?im){_BEGIN}final answer\s*:\s*(.+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Plan:
    """A thought, a tool's name, and what the tool is given: a dict, or a bare text where the model gave only that."""

    thought: str
    action: str
    action_input: dict[str, Any] | str


def parse_plan(text: str) -> Plan | None:
    """What was written, if it says what to do; None where it does not."""
    text = without_unstorable(text).strip()
    for candidate in _candidates(text):
        try:
            found = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
        if (plan := _of_object(found)) is not None:
            return plan
    return _of_lines(text)


def _candidates(text: str) -> Iterator[str]:
    """What may be the object; each is looked for only where the one before was none, for most models write no more."""
    yield text
    yield from _FENCED.findall(text)
    yield from _objects(text)


def storable(value: Any, depth: int = 0) -> Any:
    """JSON that every database and reader holds: what it cannot hold, as text."""
    if depth > MAX_JSON_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {without_unstorable(str(name)): storable(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [storable(one, depth + 1) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return value if -LARGEST_INT <= value <= LARGEST_INT else str(value)[:100]
    return without_unstorable(value)


def _of_object(found: Any) -> Plan | None:
    if not isinstance(found, dict):
        return None
    names = {str(name).lower().replace(" ", "_"): value for name, value in found.items()}
    action = names.get("action", names.get("tool", names.get("name")))
    given = names.get("action_input", names.get("input", names.get("arguments", {})))
    if isinstance(action, dict):  # {"action": {"name": ..., "arguments": ...}}
        return _of_object(action)
    if not isinstance(action, str) or not action.strip():
        answer = names.get("final_answer", names.get("answer"))
        if not isinstance(answer, str):
            return None
        action, given = FINISH, {"answer": answer}
    return _plan(str(names.get("thought") or ""), action, given)


def _of_lines(text: str) -> Plan | None:
    thought = _THOUGHT.search(text)
    said = thought.group(1) if thought else ""
    if (final := _FINAL.search(text)) is not None:
        return _plan(said, FINISH, {"answer": final.group(1).strip()})
    if (action := _ACTION.search(text)) is None:
        return None
    found = _INPUT.search(text)
    given: Any = found.group(1).strip() if found else {}
    if isinstance(given, str):
        for candidate in (given, *_objects(given)):
            try:
                given = json.loads(candidate, strict=False)
                break
            except (ValueError, RecursionError):
                continue
    return _plan(said, action.group(1), given)


def _plan(thought: str, action: str, given: Any) -> Plan | None:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        given = str(given)
    given = {} if given is None else storable(given)
    if not isinstance(given, (dict, str)):
        return None
    if len(json.dumps(given, ensure_ascii=False).encode()) > MAX_INPUT_BYTES:
        return None
    said, wanted = (without_unstorable(text).strip() for text in (thought, action))  # escapes in JSON bring it back
    return Plan(said[:MAX_THOUGHT_CHARS], wanted[:MAX_NAME_CHARS], given)


def _objects(text: str) -> list[str]:
    """What stands between braces that belong together, at most three of them, braces in strings passed over."""
    found: list[str] = []
    depth, start, in_string, escaped = 0, 0, False, False
    for at, char in enumerate(text):
        if depth and in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif depth and char == '"':
            in_string, escaped = True, False
        elif char == "{":
            start = at if depth == 0 else start
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if depth == 0:
                found.append(text[start : at + 1])
                if len(found) == 3:
                    break
    return found
