"""Texts as the letters of one alphabet, at the speed of C: a letter is a byte on the way, so there are at most 256.

`str.translate` looks every letter up in a dictionary, which takes a millisecond for 20,000 that are not ASCII. A
charmap of `codecs` is a table of numbers, and needs a tenth of that.
"""

import codecs
from collections.abc import Mapping

_BYTES = 256
_ASCII = 128
_NOT_THERE = "\ufffe"  # what charmaps take for no letter
OTHER = "?"  # what any other letter is read as


class Alphabet:
    """Made once."""

    def __init__(self, read_as: Mapping[int, str], *, words_only: bool = False) -> None:
        """What there is beside ASCII, and how it is read.

        Args:
            read_as: Of a code point, in the Basic Multilingual Plane, the letter that it stands for: itself, or one
                of ASCII.
            words_only: Whatever is no letter, digit or letter of `read_as` becomes a space.

        Raises:
            ValueError: There are more than 128, or one stands for a letter that is not there.
        """
        if len(read_as) > _BYTES - _ASCII:
            raise ValueError(f"an alphabet has at most {_BYTES - _ASCII} letters beside ASCII")
        letters = [*map(chr, range(_ASCII)), *map(chr, read_as)]
        letters += [_NOT_THERE] * (_BYTES - len(letters))
        self._letters = "".join(letters)
        self._to_byte = codecs.charmap_build(self._letters)
        read = [*range(_ASCII), *(letters.index(letter) for letter in read_as.values())]
        if words_only:
            read = [
                place if code >= _ASCII or chr(code).isalnum() else ord(" ")
                for code, place in zip([*range(_ASCII), *read_as], read, strict=True)
            ]
        self._read = bytes(read).ljust(_BYTES, OTHER.encode())
        self._is_ascii = max(read) < _ASCII

    def read(self, text: str) -> str:
        """The text, as long as it was, each letter as the alphabet reads it, or `?` (a space where words are read)."""
        read = codecs.charmap_encode(text, "replace", self._to_byte)[0].translate(self._read)
        return read.decode("ascii") if self._is_ascii else codecs.charmap_decode(read, "strict", self._letters)[0]
