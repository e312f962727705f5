"""Asks one subtask of a report that has been read, by its answer type, and reads the reply as an answer.

Closed values and measurements are scored among what there is to choose from, never written freely; spans are whole
sentences of the report, held verbatim by a grammar; only `text` is written. Raises what the engine raises: the
executor turns that into a status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.local.engine.protocol import Choice, Scored, Session
from medorchestra.local.evidence import supporting_quotes, term_score
from medorchestra.local.excerpts import Excerpt, FocusedReading
from medorchestra.local.measurements import Measurement, measurements_in
from medorchestra.local.sentences import Sentence
from medorchestra.plan import Finding, Subtask
from medorchestra.rules import NOT_STATED

MOST_MEASUREMENTS = 40
"""Measurements offered to the model in one question; of more, those in the sentences with the best terms."""

MOST_SENTENCES = 80
"""Sentences offered to the model in one question; of more, those with a focus term."""


@dataclass(frozen=True, slots=True, repr=False)
class Inquiry:
    """One subtask, about to be asked.

    Attributes:
        session: the report, read.
        focus: the whole report and its sentences.
        excerpt: the part of it that the session has read.
        subtask: what is asked.
        finding: the finding it reads, if any.
        question: the rendered prompt.
    """

    session: Session
    focus: FocusedReading
    excerpt: Excerpt
    subtask: Subtask
    finding: Finding | None
    question: str

    def ask(self) -> Answer:
        """The answer, without timings and without how much was read."""
        choice = self.choice()
        if choice is not None:
            return self.answer_to(self.session.choose(choice.question, choice.candidates))
        return self._collect_spans() if self.subtask.answer == "spans" else self._write_text()

    def choice(self) -> Choice | None:
        """What is asked where the answer is chosen; None where it is written.

        Raises:
            ValueError: a number is asked for, and no finding says which.
        """
        if self.subtask.answer == "choice":
            return Choice(self.question, tuple(self.subtask.labels[value] for value in self._values()))
        if self.subtask.answer == "number":
            return Choice(self.question, (*self._measurements(), self.subtask.labels[NOT_STATED]))
        return None

    def answer_to(self, scored: Scored) -> Answer:
        """The answer, from the probabilities of what `choice` offers."""
        return self._value_of(scored) if self.subtask.answer == "choice" else self._measurement_of(scored)

    def _answer(self, status: AnswerStatus, **fields: Any) -> Answer:
        return Answer(subtask=self.subtask.id, finding=self.subtask.finding, status=status, **fields)

    def _values(self) -> tuple[str, ...]:
        return tuple(self.finding.all_values) if self.finding else tuple(self.subtask.labels)

    def _value_of(self, scored: Scored) -> Answer:
        labels = self.subtask.labels
        probabilities = dict(zip(self._values(), scored.probabilities, strict=True))
        value = max(probabilities, key=probabilities.__getitem__)
        fields: dict[str, Any] = {"probabilities": probabilities if scored.scored else {}, "tokens": scored.tokens}
        if value == NOT_STATED:
            return self._answer(AnswerStatus.NOT_STATED, **fields)
        quotes = supporting_quotes(self.focus.text, self._sentences_read(), self.subtask.focus_terms, labels[value])
        return self._answer(AnswerStatus.OK, value=value, quotes=quotes, **fields)

    def _sentences_read(self) -> list[Sentence]:
        """Sentences that the model has seen: no other can be what its answer rests on."""
        return [one for one in self.focus.sentences if self.excerpt.holds(one.start, one.end)]

    def _measurements(self) -> Mapping[str, list[Measurement]]:
        if self.finding is None:
            raise ValueError(f"subtask {self.subtask.id}: a number is asked for, but no finding")
        return offered_measurements(self.focus, self.excerpt, self.subtask, self.finding)

    def _measurement_of(self, scored: Scored) -> Answer:
        places = self._measurements()
        probabilities: dict[str, float] = {}
        for found, probability in zip([*places.values(), []], scored.probabilities, strict=True):
            key = _number_key(found[0]) if found else NOT_STATED
            probabilities[key] = probabilities.get(key, 0.0) + probability
        best = max(probabilities, key=probabilities.__getitem__)
        fields: dict[str, Any] = {"probabilities": probabilities if scored.scored else {}, "tokens": scored.tokens}
        if best == NOT_STATED:
            return self._answer(AnswerStatus.NOT_STATED, **fields)
        mentions = [place for found in places.values() for place in found if _number_key(place) == best]
        quotes = sorted((self._quote(mention) for mention in mentions), key=lambda quote: (-quote.score, quote.start))
        return self._answer(AnswerStatus.OK, value=float(best), quotes=tuple(quotes), **fields)

    def _quote(self, place: Measurement) -> Quote:
        around = _sentence_at(self.focus, place)
        words = self.focus.text[around.start : around.end]
        return Quote(around.start, around.end, words, round(_score_at(self.focus, self.subtask, place), 4), "model")

    def _collect_spans(self) -> Answer:
        offered = self._offered_sentences()
        if len(offered) > MOST_SENTENCES:
            return self._answer(AnswerStatus.TOO_LONG)
        silent = self.subtask.labels.get(NOT_STATED, "not stated")
        grammar = sentence_grammar(list(offered), silent)
        written = self.session.generate(self.question, max_tokens=self.subtask.max_tokens, grammar=grammar)
        lines = [line for line in dict.fromkeys(written.text.strip().split("\n")) if line]
        if not written.complete:
            return self._answer(AnswerStatus.TOO_LONG, tokens=written.tokens)
        if lines == [silent]:
            return self._answer(AnswerStatus.NOT_STATED, tokens=written.tokens)
        if not lines or any(line not in offered for line in lines):
            return self._answer(AnswerStatus.UNPARSABLE, tokens=written.tokens)
        text = self.focus.text
        places = [offered[line] for line in lines]
        quotes = tuple(Quote(s.start, s.end, text[s.start : s.end], 1.0, "model") for s in places)
        value = tuple(quote.text for quote in quotes)
        return self._answer(AnswerStatus.OK, value=value, quotes=quotes, tokens=written.tokens)

    def _offered_sentences(self) -> dict[str, Sentence]:
        """Sentences the model may copy, on one line each -> where they stand, in the report's order."""
        text, terms = self.focus.text, self.subtask.focus_terms
        readable = self._sentences_read()
        if len(readable) > MOST_SENTENCES and terms:
            readable = [sentence for sentence in readable if term_score(text, sentence, terms) > 0]
        offered: dict[str, Sentence] = {}
        for sentence in readable:
            offered.setdefault(" ".join(text[sentence.start : sentence.end].split()), sentence)
        return offered

    def _write_text(self) -> Answer:
        written = self.session.generate(self.question, max_tokens=self.subtask.max_tokens)
        text = written.text.strip()
        if not written.complete:
            return self._answer(AnswerStatus.TOO_LONG, tokens=written.tokens)
        if not text:
            return self._answer(AnswerStatus.UNPARSABLE, tokens=written.tokens)
        if text.rstrip(".").casefold() == self.subtask.labels.get(NOT_STATED, "not stated").casefold():
            return self._answer(AnswerStatus.NOT_STATED, tokens=written.tokens)
        quotes = supporting_quotes(self.focus.text, self._sentences_read(), self.subtask.focus_terms, text)
        return self._answer(AnswerStatus.OK, value=text, quotes=quotes, tokens=written.tokens)


def offered_measurements(
    focus: FocusedReading, excerpt: Excerpt, subtask: Subtask, finding: Finding
) -> Mapping[str, list[Measurement]]:
    """What the model may choose from for a number: verbatim measurement -> where it stands.

    Those of the excerpt, in its order; of too many, those in the likeliest sentences.

    Raises:
        ValueError: the finding is not a number.
    """
    if finding.number is None:
        raise ValueError(f"subtask {subtask.id}: its finding is not a number")
    places: dict[str, list[Measurement]] = {}
    for place in measurements_in(focus.text, finding.number):
        if excerpt.holds(place.start, place.end):
            places.setdefault(place.words, []).append(place)
    scores = {words: max(_score_at(focus, subtask, place) for place in found) for words, found in places.items()}
    kept = sorted(places, key=lambda words: -scores[words])[:MOST_MEASUREMENTS]
    return {words: found for words, found in places.items() if words in kept}


def _sentence_at(focus: FocusedReading, place: Measurement) -> Sentence:
    """The sentence that holds a measurement (the measurement itself, where a cut runs through it)."""
    around = (s for s in focus.sentences if s.start <= place.start and place.end <= s.end)
    return next(around, Sentence(place.start, place.end))


def _score_at(focus: FocusedReading, subtask: Subtask, place: Measurement) -> float:
    terms = subtask.focus_terms
    return term_score(focus.text, _sentence_at(focus, place), terms) if terms else 0.0


def _number_key(place: Measurement) -> str:
    return f"{place.value:.10g}"


def sentence_grammar(sentences: Sequence[str], silent: str) -> str:
    """GBNF that lets the model write some of the sentences, each once and in their order, or the label for silence.

    In their order, because a small model that may repeat a sentence does so until it is cut off.
    """
    rules = [f"root ::= {_literal(silent)}" + (" | from0" if sentences else "")]
    last = len(sentences) - 1
    for i, sentence in enumerate(sentences):
        if i == last:
            rules.append(f"from{i} ::= {_literal(sentence)}")
        else:
            rules.append(f'from{i} ::= {_literal(sentence)} ("\\n" from{i + 1})? | from{i + 1}')
    return "\n".join(rules)


def _literal(text: str) -> str:
    """A GBNF string of exactly this text."""
    return '"' + re.sub(r'["\\\x00-\x1f\x7f]', lambda found: f"\\x{ord(found[0]):02x}", text) + '"'
