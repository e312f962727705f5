"""Picks the next token: the likeliest, or one drawn by its probability; with a grammar, of those that it allows.

llama.cpp's own sampler ends the process when a grammar allows none of the vocabulary; here that is an error.
Knows tokens and grammars only.
"""

from __future__ import annotations

import ctypes
from types import ModuleType, TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from medorchestra.errors import ModelError
from medorchestra.local.engine.llama_library import standard_error_off
from medorchestra.local.engine.llama_reader import LlamaReader, Logits

_ROOT: Final = b"root"
_TOKEN_DATA: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


class TokenPicker(Protocol):
    """Chooses tokens one after the other."""

    def pick(self, logits: Logits) -> int:
        """The next token. A picker with a grammar remembers it."""
        ...


class GreedyPicker:
    """The likeliest token; of equal ones, the first in the vocabulary."""

    def pick(self, logits: Logits) -> int:
        """The next token."""
        return int(np.argmax(logits))


class SamplingPicker:
    """A token drawn by its probability at a temperature; the same seed draws the same tokens.

    Adds Gumbel noise to the logits and lets another picker take the likeliest: that draws exactly by the softmax of
    the logits (Gumbel-max), and, where the other picker has a grammar, by the softmax of what the grammar allows.
    """

    def __init__(self, likeliest: TokenPicker, *, temperature: float, seed: int) -> None:
        """Take the picker of the likeliest token.

        Args:
            likeliest: `GreedyPicker` or `GrammarPicker`.
            temperature: above 0; below 1 makes the likely tokens likelier.
            seed: 0 or more.
        """
        self._likeliest = likeliest
        self._temperature = temperature
        self._noise = np.random.default_rng(seed)

    def pick(self, logits: Logits) -> int:
        """The next token."""
        # Shifted first: a small temperature may drive the others out of range, but never the likeliest.
        with np.errstate(over="ignore"):
            shifted = (logits.astype(np.float64) - logits.max()) / self._temperature
            drawn = (shifted + self._noise.gumbel(size=logits.size)).astype(np.float32)
        return self._likeliest.pick(drawn)


class GrammarPicker:
    """The likeliest token that the grammar allows. A context manager: the grammar's memory is llama.cpp's."""

    def __init__(self, library: ModuleType, reader: LlamaReader, grammar: str) -> None:
        """Parse a GBNF grammar whose first rule is `root`.

        Raises:
            ModelError: it cannot be parsed. The message does not repeat it: it may hold sentences of a report.
        """
        self._library = library
        self._reader = reader
        self._sampler: Any = None
        encoded = grammar.encode("utf-8", errors="replace")
        if encoded.strip():  # llama.cpp takes an empty grammar for none
            with standard_error_off():
                self._sampler = library.llama_sampler_init_grammar(reader.vocabulary, encoded, _ROOT)
        if not self._sampler:
            raise ModelError(
                f"a GBNF grammar of {len(grammar)} characters cannot be parsed; check its quotes and that every rule, "
                "`root` first, is defined and does not begin with itself"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.llama_sampler_free(self._sampler)
        self._sampler = None

    def pick(self, logits: Logits) -> int:
        """The next token.

        Raises:
            ModelError: the vocabulary has no token that the grammar allows here.
        """
        token = int(np.argmax(logits))
        # One token is tried first: asking the grammar about the whole vocabulary takes longer than a small model.
        likeliest = self._allowed(np.array([token], dtype=np.int32), logits)
        if self._is_markup(token) or not np.isfinite(likeliest[0]):
            token = self._likeliest_allowed(logits)
        if not self._reader.ends_generation(token):
            self._library.llama_sampler_accept(self._sampler, token)
        return token

    def _likeliest_allowed(self, logits: Logits) -> int:
        allowed = self._allowed(np.arange(logits.size, dtype=np.int32), logits)
        while np.isfinite(allowed[token := int(np.argmax(allowed))]):
            if not self._is_markup(token):
                return token
            allowed[token] = -np.inf
        raise ModelError("no token of the model's vocabulary is allowed by the grammar; check the grammar")

    def _is_markup(self, token: int) -> bool:
        """Whether a token only looks like the text that the grammar asks for: `<|im_start|>` in a report is text."""
        return self._reader.is_control(token) and not self._reader.ends_generation(token)

    def _allowed(self, tokens: npt.NDArray[np.int32], logits: Logits) -> Logits:
        """Logits of some tokens, minus infinity for those that the grammar forbids."""
        entries = np.zeros(tokens.size, dtype=_TOKEN_DATA)
        entries["id"] = tokens
        entries["logit"] = logits[tokens]
        pointer = entries.ctypes.data_as(ctypes.POINTER(self._library.llama_token_data))
        array = self._library.llama_token_data_array(pointer, entries.size, -1, False)
        self._library.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return entries["logit"].copy()
