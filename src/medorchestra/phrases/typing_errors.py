"""Typing errors by chance, of the kinds that dictation and hurry leave in reports. Pure and seeded.

An error must never change what a report says: numbers, negations, short words, abbreviations, first letters and
protected words stay as they are, and no word becomes another word that occurs. Knows letters, and no findings.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

NEGATIONS = frozenset(
    (
        *("absence", "absent", "after", "before", "cannot", "clear", "cleared", "denied", "denies", "except"),
        *("exception", "excluded", "excluding", "former", "formerly", "indeterminate", "lacking", "lacks"),
        *("negative", "neither", "never", "nonspecific", "nothing", "nowhere", "previous", "previously", "prior"),
        *("resolved", "spared", "spares", "unable", "uninvolved", "unlikely", "unremarkable", "without"),
        *("elsewhere", "other", "otherwise", "others", "remainder", "remaining"),
    )
)
"""Words on which the meaning of a sentence turns, blankets among them; shorter ones are too short for an error."""
SHORTEST = 5
"""Letters: shorter words are too close to others."""
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "ol", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+")
_RUN = re.compile(r"\S+")


class TypingErrors:
    """Puts errors into words.

    Args:
        protected: words (or wordings) that stay as they are, besides the negations.
        vocabulary: words that occur; no error makes one of them out of another.
    """

    def __init__(self, protected: Collection[str] = (), vocabulary: Collection[str] = ()) -> None:
        words = (word.lower() for wording in protected for word in _WORD.findall(wording))
        self.protected = NEGATIONS | frozenset(words)
        self.vocabulary = frozenset(word.lower() for word in vocabulary) | self.protected

    def put_into(self, text: str, rng: random.Random, rate: float) -> str:
        """The text with about this share of its words mistyped."""
        return _RUN.sub(lambda run: self._run(run[0], rng) if rng.random() < rate else run[0], text)

    def _run(self, run: str, rng: random.Random) -> str:
        """A run of characters between blanks: its longest word gets the error, if it may have one."""
        if any(character.isdigit() for character in run):
            return run
        word = max(_WORD.finditer(run), key=lambda found: len(found[0]), default=None)
        if word is None or not self.may_have_one(word[0]):
            return run
        mistyped = self._mistyped(word[0], rng)
        if mistyped.lower() in self.vocabulary:
            return run
        return run[: word.start()] + mistyped + run[word.end() :]

    def may_have_one(self, word: str) -> bool:
        """Whether an error in this word leaves the meaning as it is."""
        written_small = word[1:].islower()  # abbreviations are not
        return len(word) >= SHORTEST and written_small and word.lower() not in self.protected

    @staticmethod
    def _mistyped(word: str, rng: random.Random) -> str:
        at = rng.randrange(1, len(word) - 1)
        kind = rng.choice(("swap", "swap", "leave out", "double", "neighbour"))
        if kind == "swap":
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if kind == "leave out":
            return word[:at] + word[at + 1 :]
        if kind == "double":
            return word[:at] + word[at] + word[at:]
        return word[:at] + rng.choice(_NEIGHBOURS.get(word[at].lower(), word[at])) + word[at + 1 :]


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return {word.lower() for word in _WORD.findall(text)}
