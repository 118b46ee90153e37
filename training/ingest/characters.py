"""Characters that look alike read alike: hyphens, blanks, invisible ones, case, diacritics."""

from __future__ import annotations

import unicodedata

__all__ = ["even", "fold", "visible"]

_EVEN = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"), " "),
    **dict.fromkeys(map(ord, "\u202f\u205f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u2044\u2215\uff0f"), "/"),
    **{ord("\uff0e"): ".", ord("\u2024"): ".", ord("\uff1a"): ":", ord("\uff20"): "@"},
    **{0xFF10 + digit: str(digit) for digit in range(10)},
}
_LETTERS = {
    **{"ß": "ss", "æ": "a", "ø": "o", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"},
    **{"’": "'", "`": "'", "´": "'", "‘": "'", "ʼ": "'"},
}
_BEFORE_E = frozenset("aou")


def visible(text: str) -> str:
    """Drop what no reader sees: soft hyphens, zero-width blanks, marks of direction.

    A soft hyphen at the end of a line, which is seen, becomes a hyphen.
    """
    if text.isascii():
        return text
    text = text.replace("\u00ad\n", "-\n").replace("\u00ad\r\n", "-\r\n")
    return "".join(char for char in text if unicodedata.category(char) != "Cf")


def even(text: str) -> str:
    """Hyphens, blanks, slashes and digits of any kind as the plain ones; offsets stay."""
    return text if text.isascii() else text.translate(_EVEN)


def fold(text: str) -> tuple[str, list[int]]:
    """Lower case without diacritics, ae/oe/ue as a/o/u.

    Returns:
        The folded text, and for each of its characters the offset of the one it comes from, with
        the text's length at the end.
    """
    letters: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        plain = _LETTERS.get(char.casefold()) or _LETTERS.get(char)
        if plain is None:
            spelt = unicodedata.normalize("NFKD", char.casefold())
            plain = "".join(_LETTERS.get(c, c) for c in spelt if not unicodedata.combining(c))
        for letter in plain:
            if letter == "e" and letters and letters[-1] in _BEFORE_E:
                continue
            letters.append(letter)
            origin.append(index)
    return "".join(letters), [*origin, len(text)]
