"""All tools of a worker: what a model is told of them, and whether what it wants is one of them."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from processors.tools.finish import Finish
from processors.tools.summary import Summary
from processors.tools.tool import Tool, ToolArguments

MAX_TOLD_ERRORS = 4


class Tools:
    """By name. `summary` and `finish` are always there; the others where there is what they need."""

    def __init__(self, more: Iterable[Tool[Any]] = ()) -> None:
        self._tools: dict[str, Tool[Any]] = {tool.name: tool for tool in (*more, Summary(), Finish())}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all."""
        return tuple(self._tools)

    @cached_property
    def described(self) -> list[dict[str, Any]]:
        """As `GET /agents/tools` has them; made once, for every step tells a model of all of them."""
        return [tool.described() for tool in self._tools.values()]

    def called(self, name: str, given: dict[str, Any]) -> tuple[Tool[Any], ToolArguments] | str:
        """The tool and its arguments; or what is wrong, in a sentence with which a model can mend it."""
        tool = self._tools.get(name)
        if tool is None:
            wanted = f"There is no tool {name!r}" if name else "You have chosen no tool"
            return f"{wanted}. The tools are: {', '.join(self._tools)}."
        try:
            return tool, tool.arguments.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_input=False, include_context=False, include_url=False)
            told = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'action_input'}: {one['msg']}" for one in found[:MAX_TOLD_ERRORS]
            )
            wanted = ", ".join(tool.arguments.model_fields)
            return f"The input of {name} does not fit ({told}). It takes: {wanted}."

    def only_text_of(self, name: str) -> str | None:
        """The one argument that a tool needs, where that is a text: small models give it without its name."""
        told = next((tool for tool in self.described if tool["name"] == name), None)
        required: list[str] = told["input_schema"]["required"] if told else []
        return required[0] if len(required) == 1 else None
