"""An answer from passages: citations that point nowhere are taken out and counted, and so are links that lead outside.

It is read once, as it comes: what is told of it piece by piece is what its whole is. Held back is only what may be the
beginning of a citation, a link or an address. Code and maths have brackets of their own, which stay.
"""

import re
from dataclasses import dataclass

from processors.retrieval.answer_links import BARE, BEGINNINGS, LinkRules

MAX_HELD, MAX_CODE, MAX_MATHS = 600, 300, 120  # characters that are waited for; what is longer is no such thing
TAIL = 60
_SPECIAL = re.compile(r"[\[\]【!`~$\\<\n]| +|(?<![A-Za-z0-9])[hHfFwW]")
_TARGET = re.compile(
    r"\(\s*(<[^<>\n]*>|[^\s()<]*(?:\([^\s()]*\)[^\s()]*)*)(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?\s*\)"
)
_NUMBERS = re.compile(
    r"\s*\^?(?:(?:sources?|passages?|documents?|docs?|источник\w?|фрагмент\w?|документ\w?)\s*)?"
    r"(\d{1,3}(?:\s*(?:[,;&–—-]|\band\b|\bи\b)\s*\d{1,3})*)\s*(?:†.*)?",
    re.IGNORECASE,
)
_RANGE = re.compile(r"(\d+)(?:\s*[–—-]\s*(\d+))?")
_JUST_NUMBERS = re.compile(r"[\d\s,;–—-]+")
_WORD_BEFORE = re.compile(r"[\w.)]+$")
# What an index stands behind: a short name, one with digits, underscores or capitals within, a call, or a known one.
_IS_CODE = re.compile(
    r"(?:.*[_\d)].*|[A-Za-z]{1,2}|.*[a-z][A-Z].*|.*\w\.\w+|(?:list|array|arr|argv|args|items|data|values|vec|matrix|"
    r"rows?|cols?|dict|map|buf|buffer|bytes|index)s?)"
)
_IS_MATHS = re.compile(
    r"(?:[=∈≤<>]|\b(?:range|interval|list|array|vector|matrix|slice|index|between|диапазон\w*|интервал\w*|отрез\w*|"
    r"спис\w*|массив\w*|вектор\w*))\s*$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"\s?(?:=|\+=|\()")
_FENCE = re.compile(r"(`{3,}|~{3,})")
_BEGINS_LINE = re.compile(r"(?:^|\n)[\s>*+\-.)\d]*$")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


@dataclass(slots=True)
class Counts:
    """Citations that point somewhere, those that were taken out, and links that were."""

    valid: int = 0
    removed: int = 0
    links: int = 0


class CitedText:
    """One answer; see `told` and `end`."""

    def __init__(
        self, passages: int, links: LinkRules, *, counts: Counts | None = None, cites: bool = True, before: str = ""
    ) -> None:
        """`passages`: those that can be cited, from 1; `cites`: False of code, whose brackets are its own."""
        self._passages, self._links, self._cites = passages, links, cites
        self.counts = counts or Counts()
        self._held, self._tail, self._last = "", before, ""
        self._fence: str | None = None

    def told(self, piece: str) -> str:
        """What can be told now, of what was held and this piece."""
        self._held += piece
        return self._read(is_end=False)

    def end(self) -> str:
        """The rest of it."""
        return self._read(is_end=True)

    def _read(self, *, is_end: bool) -> str:
        text, at = self._held, 0
        told: list[str] = []
        while at < len(text):
            found = _SPECIAL.search(text, at)
            stop = found.start() if found is not None else len(text)
            if stop > at:
                taken: tuple[int, str] | None = (stop - at, text[at:stop])
            else:
                taken = self._special(text, at, is_end)
            if taken is None:
                break
            length, said = taken
            if said and self._tail.endswith("]") and (said[0] == "(" or (said[0] in ":[" and self._last != "]")):
                said = " " + said  # what was taken out between them may have kept them from being a link
            told.append(said)
            self._tail = (self._tail + said)[-TAIL:]
            at += length
            self._last = text[at - 1]
        self._held = text[at:]
        return "".join(told)

    # --- each returns how much of the text it took and what is told of it; None: more has to come first ---

    def _special(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        letter = text[at]
        if letter == " ":
            return self._spaces(text, at, is_end)
        if letter in "`~" or (letter == "\n"):
            return self._code(text, at, is_end)
        if letter in "[【":
            return self._bracket(text, at, is_end)
        if letter == "]":
            return 1, "]"
        if letter == "!":
            return self._image(text, at, is_end)
        if letter == "<":
            return self._tag(text, at, is_end)
        if letter in "$\\":
            return self._maths(text, at, is_end)
        return self._address(text, at, is_end)

    def _spaces(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        """Those before a citation go with it."""
        stop = at
        while stop < len(text) and text[stop] == " ":
            stop += 1
        if stop == len(text):
            return (stop - at, text[at:stop]) if is_end else None
        if text[stop] not in "[【":
            return stop - at, text[at:stop]
        taken = self._bracket(text, stop, is_end, spaces=text[at:stop])
        if taken is None:
            return None
        length, said = taken
        return stop - at + length, text[at:stop] + said if said else ""

    def _code(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        """Backticks and tildes; or the end of a line, after which a fence may stand."""
        start = at
        if text[at] == "\n":
            start = at + 1
            while start < len(text) and start - at <= 4 and text[start] in " \t":
                start += 1
            if (len(text) - start < 3 and set(text[start:]) <= {"`"} | {"~"}) and not is_end:
                return None
        is_first = text[at] == "\n" or not self._tail.strip(" ") or self._tail.endswith("\n")
        fence = _FENCE.match(text, start) if is_first else None
        if fence is not None:
            if fence.end() == len(text) and not is_end:
                return None
            mark = fence.group()
            if self._fence is None:
                self._fence = mark
            elif mark[0] == self._fence[0] and len(mark) >= len(self._fence):
                self._fence = None
            return fence.end() - at, text[at : fence.end()]
        if text[at] == "`":
            return self._inline(text, at, is_end)
        may_become = is_first and not is_end and text[at] == "~" and text[at:] in ("~", "~~")
        return None if may_become else (1, text[at])

    def _inline(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        start = at
        while start < len(text) and text[start] == "`":
            start += 1
        if start == len(text) and not is_end:
            return None
        mark = text[at:start]
        if self._fence is None:
            stop = _closed(text, start, mark, most=MAX_CODE)
            if stop is None and not is_end and len(text) - start < MAX_CODE and not _BLANK_LINE.search(text, start):
                return None
            if stop is not None:
                if stop + len(mark) == len(text) and not is_end:
                    return None  # the run that closes it may go on, and then it closes nothing
                return stop + len(mark) - at, mark + self._within(text[start:stop], cites=False) + mark
        return start - at, mark

    def _maths(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        if at + 1 == len(text):
            return (1, text[at]) if is_end else None
        mark, closing = text[at : at + 2], {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}.get(text[at : at + 2])
        if closing is None and text[at] == "\\":
            return 2, mark
        if closing is None:
            mark = closing = "$"
            if text[at + 1].isspace():
                return 1, mark
        start = at + len(mark)
        stop = text.find(closing, start, start + MAX_MATHS)
        line_end = text.find("\n", start, start + MAX_MATHS) if mark == "$" else -1
        if stop < 0 or 0 <= line_end < stop:
            if stop < 0 and line_end < 0 and len(text) - start < MAX_MATHS and not is_end:
                return None
            return len(mark), mark
        after = stop + len(closing)
        if mark == "$":
            if after == len(text) and not is_end:
                return None
            if text[stop - 1].isspace() or text[after : after + 1].isdigit():  # two prices
                return 1, mark
        return after - at, mark + self._within(text[start:stop], cites=False) + closing

    def _bracket(self, text: str, at: int, is_end: bool, spaces: str = "") -> tuple[int, str] | None:
        """A citation, a link, or just a bracket."""
        stop = _bracket_end(text, at)
        if stop is None:
            can_wait = not is_end and len(text) - at < MAX_HELD and not _BLANK_LINE.search(text, at)
            return None if can_wait else (1, text[at])
        if stop == len(text) and not is_end:
            return None
        inner, after = text[at + 1 : stop - 1], text[stop : stop + 1]
        if text[at] == "[" and after == "(":
            target = _TARGET.match(text, stop, stop + MAX_HELD)
            if target is None:
                if not is_end and len(text) - stop < MAX_HELD:
                    return None
                return stop - at, f"[{self._within(inner)}]"
            said = self._within(inner)
            if self._links.leads_to_allowed(target.group(1)):
                return target.end() - at, f"[{said}]{target.group()}"
            self.counts.links += 1
            return target.end() - at, said
        if text[at] == "[" and after == ":" and _BEGINS_LINE.search(self._tail + spaces):
            return self._definition(text, at, stop, is_end)
        numbers = _NUMBERS.fullmatch(inner) if self._cites and self._fence is None else None
        if numbers is None:
            return 1, text[at]
        if len(text) - stop < 3 and not is_end:
            return None
        return stop - at, self._citation(text[at:stop], numbers.group(1), spaces, text[stop : stop + 3])

    def _citation(self, raw: str, numbers: str, spaces: str, after: str) -> str:
        wanted: list[int] = []
        for first, last in _RANGE.findall(numbers):
            ends = int(first), int(last or first)
            wanted += range(ends[0], ends[1] + 1) if ends[0] <= ends[1] else ends
        there = [number for number in wanted if 1 <= number <= self._passages]
        if len(there) < len(wanted) and raw[0] == "[" and (0 in wanted or self._is_no_citation(spaces, after)):
            return raw
        self.counts.valid += len(there)
        self.counts.removed += len(wanted) - len(there)
        if not there:
            return ""
        is_as_it_should_be = raw[0] == "[" and _JUST_NUMBERS.fullmatch(raw[1:-1]) is not None
        return raw if is_as_it_should_be and len(there) == len(wanted) else f"[{', '.join(map(str, there))}]"

    def _is_no_citation(self, spaces: str, after: str) -> bool:
        """True of an index or an interval."""
        if _IS_MATHS.search(self._tail):
            return True
        word = _WORD_BEFORE.search(self._tail) if not spaces else None
        if word is None or word.group().endswith("."):
            return False
        return _ASSIGNED.match(after) is not None or _IS_CODE.fullmatch(word.group()) is not None

    def _definition(self, text: str, at: int, stop: int, is_end: bool) -> tuple[int, str] | None:
        """`[name]: address`, which an image or a link elsewhere may go by."""
        rest = re.compile(r":\s*(\S*)[^\n]*").match(text, stop)
        if rest is None or (rest.end() == len(text) and not is_end and rest.end() - at < MAX_HELD):
            return None
        if not rest.group(1) or self._links.leads_to_allowed(rest.group(1)):
            return stop - at, text[at:stop]
        if re.match(r"<|/|[A-Za-z][\w+.-]*:|www\.", rest.group(1)) is None and "." not in rest.group(1):
            return stop - at, text[at:stop]
        self.counts.links += 1
        return rest.end() - at, ""

    def _image(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        if at + 1 == len(text):
            return (1, "!") if is_end else None
        if text[at + 1] != "[":
            return 1, "!"
        stop = _bracket_end(text, at + 1)
        if stop is None or stop == len(text):
            can_wait = not is_end and len(text) - at < MAX_HELD and not _BLANK_LINE.search(text, at)
            return None if can_wait else (1, "!")
        if text[stop] != "(":
            return 1, "!"
        target = _TARGET.match(text, stop, stop + MAX_HELD)
        if target is None:
            return None if not is_end and len(text) - stop < MAX_HELD else (1, "!")
        if self._links.leads_to_allowed(target.group(1)):
            return target.end() - at, text[at : target.end()]
        self.counts.links += 1
        return target.end() - at, ""

    def _tag(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        if at + 1 == len(text):
            return (1, "<") if is_end else None
        if not (text[at + 1].isalpha() or text[at + 1] in "/!?"):
            return 1, "<"
        stop = text.find(">", at, at + MAX_HELD)
        if stop < 0:
            if not is_end and len(text) - at < MAX_HELD:
                return None
            return 1, "" if "=" in text[at : at + MAX_HELD] else "<"
        said = self._links.tag(text[at : stop + 1])
        self.counts.links += not said
        return stop + 1 - at, said or " "

    def _address(self, text: str, at: int, is_end: bool) -> tuple[int, str] | None:
        if (
            at == 0 and (self._last or self._tail[-1:]).isalnum()
        ):  # as it was read, like what is not the first of a piece
            return 1, text[at]
        head = text[at : at + 8].casefold()
        if not any(head.startswith(begins) for begins in BEGINNINGS):
            may_become = at + len(head) == len(text) and any(begins.startswith(head) for begins in BEGINNINGS)
            return None if may_become and not is_end else (1, text[at])
        found = BARE.match(text, at)
        if found is None:
            return 1, text[at]
        if found.end() == len(text) and not is_end and found.end() - at < MAX_HELD:
            return None
        address, behind = self._links.bare(found.group())
        if self._links.may_stand(address):
            return found.end() - at, found.group()
        self.counts.links += 1
        return found.end() - at, "(link removed)" + behind

    def _within(self, text: str, *, cites: bool = True) -> str:
        """The same of what stands between marks."""
        inner = CitedText(
            self._passages, self._links, counts=self.counts, cites=cites and self._cites and self._fence is None,
            before=self._tail[-1:] or "\n",
        )  # fmt: skip
        return inner.told(text) + inner.end()


def _closed(text: str, start: int, mark: str, *, most: int) -> int | None:
    """Where the run of backticks stands that closes one."""
    for run in re.compile("`+").finditer(text, start, min(len(text), start + most)):
        if run.group() == mark:
            return None if _BLANK_LINE.search(text, start, run.start()) else run.start()
    return None


def _bracket_end(text: str, at: int) -> int | None:
    """Behind the bracket that closes the one at `at`; a blank line between them ends what could be one."""
    opening, closing = text[at], "】" if text[at] == "【" else "]"
    depth = 0
    for place in range(at, min(len(text), at + MAX_HELD)):
        if text[place] == opening:
            depth += 1
        elif text[place] == closing:
            depth -= 1
            if depth == 0:
                return None if _BLANK_LINE.search(text, at, place) else place + 1
    return None
