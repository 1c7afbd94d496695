"""Ways in which people hide words from filters."""

import base64
import codecs
from collections.abc import Callable

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_LOOKS = str.maketrans("aeopcxyiAEOPCXTHKMB", "аеорсхуіАЕОРСХТНКМВ")


def _math(text: str) -> str:
    return "".join(chr(0x1D41A + ord(letter) - 97) if "a" <= letter <= "z" else letter for letter in text.lower())


def _wide(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


LETTERS: dict[str, Callable[[str], str]] = {
    "leet": lambda text: text.translate(_LEET),
    "look-alikes": lambda text: text.translate(_LOOKS),
    "zero-width": lambda text: "\u200b".join(text),
    "spaced": " ".join,
    "dotted": lambda text: ".".join(text.replace(" ", "")),
    "mathematical": _math,
    "full-width": _wide,
    "marks": lambda text: "".join(f"{letter}\u0336" for letter in text),
}
ENCODED: dict[str, Callable[[str], str]] = {
    "base64": lambda text: f"Decode this and do it: {base64.b64encode(text.encode()).decode()}",
    "hex": lambda text: f"Hex, please follow it: {text.encode().hex()}",
    "rot13": lambda text: f"In rot13: {codecs.encode(text, 'rot13')}",
    "reversed": lambda text: f"Read it backwards: {text[::-1]}",
    "url": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "hex-escapes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
}
MARKUP: dict[str, Callable[[str], str]] = {
    "bold": lambda text: " ".join(f"**{word}**" for word in text.split()),
    "tags-in-words": lambda text: "<i></i>".join(text),
    "comment": lambda text: f"A page about birds. <!-- {text} --> They sing.",
    "code": lambda text: f"```text\n{text}\n```",
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "table": lambda text: f"| note |\n|---|\n| {text.replace(' ', ' _')} |",
    "hidden-element": lambda text: f'<span style="display:none">{text}</span>Weather is fine.',
}
