"""Questions computed together: the same answers as one by one, no mark left, limits kept, failures told.

On a toy whose arithmetic is exact, to the bit; with the default model (marked `model`), up to what rounding does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_llama import ToyLlama

from medorchestra.errors import ContextTooSmallError, ModelError
from medorchestra.local.engine.chat import PLAIN_FORMAT
from medorchestra.local.engine.llama_cpp import LlamaCppEngine, LlamaSession, PromptTokens
from medorchestra.local.engine.llama_library import load_library
from medorchestra.local.engine.llama_reader import BRANCHES, LlamaReader, ReaderSettings
from medorchestra.local.engine.protocol import Choice, Conversation, Scored
from medorchestra.local.engine.question_tree import TreeLimits

ROUNDING = 0.5
"""Nats. With quantized weights, what is computed together changes a logarithm of a probability by 0.05 to 0.4
(ENGINE.md); values of which one is likelier than another by less than this are a tie, and either may be the answer."""

HEAD = "You read radiology reports of the pancreas and answer with one of the given labels."
REPORT = "CT abdomen with contrast. Hypodense mass in the pancreatic head, 2.4 x 2.1 cm. The portal vein is patent."
CONVERSATION = Conversation(HEAD, REPORT)
SMA = Choice("How far does the mass touch the SMA?", ("no contact", "up to 180°", "more than 180°", "not stated"))
SMV = Choice("How far does the mass touch the SMV?", ("no contact", "up to 180°", "more than 180°", "not stated"))
SIZE = Choice("How large is the mass?", ("2.4 cm", "2.1 cm", "2.4 x 2.1 cm", "not stated"))
LIVER = Choice("Are there liver metastases?", ("yes", "no", "not stated"))
STENT = Choice("Is a stent mentioned?", ("not", "not stated", "not stated here"))
NOTHING_TO_CHOOSE = Choice("How large is the largest node?", ("not stated",))
CHOICES = (SMA, SMV, SIZE, LIVER, STENT)
TOO_LARGE = Choice("Is there " + "more mass " * 300 + "in the head?", ("yes", "no", "not stated"))
"""More tokens than are computed at a time, for the toy and for the default model."""


def one_by_one(session: LlamaSession, choices: Sequence[Choice]) -> list[tuple[float, ...]]:
    return [session.choose(one.question, one.candidates).probabilities for one in choices]


def probabilities(scores: Sequence[Scored]) -> list[tuple[float, ...]]:
    return [scored.probabilities for scored in scores]


def tokens_of(prompts: PromptTokens, one: Choice) -> int:
    """Room that a question and its longest answer take."""
    return len(prompts.question(one.question)) + max(len(prompts.answer(candidate)) for candidate in one.candidates)


def unique_tokens(prompts: PromptTokens, choices: Sequence[Choice]) -> int:
    """Tokens that have to be computed if every beginning is computed once: up to the last place of a choice."""
    found: set[tuple[int, ...]] = set()
    for one in choices:
        answers = [prompts.answer(candidate) for candidate in one.candidates]
        for answer in answers:
            for length in range(len(answer)):
                if len({other[length] for other in answers if other[:length] == answer[:length]}) > 1:
                    path = (*prompts.question(one.question), *answer[:length])
                    found.update(path[:end] for end in range(1, len(path) + 1))
    return len(found)


def only_the_first(count: int, fork: Callable[..., None]) -> Callable[..., None]:
    """A fork that does nothing from the sequence `count` + 1 on."""
    return lambda memory, source, target, *places: fork(memory, source, target, *places) if target <= count else None


# ------------------------------------------------------------------ a toy that computes exactly


@dataclass(frozen=True)
class Toy:
    """A report that the toy has read."""

    library: ToyLlama
    reader: LlamaReader
    prompts: PromptTokens
    session: LlamaSession


def toy(report: str = REPORT, *, context_tokens: int = 4096, limits: TreeLimits | None = None) -> Toy:
    library = ToyLlama()
    module = cast(ModuleType, library)
    reader = LlamaReader(module, Path("toy.gguf"), ReaderSettings(context_tokens, 0, 1))
    if limits is not None:
        reader._tree_limits = limits
    prompts = PromptTokens(reader, PLAIN_FORMAT)
    reader.read([*prompts.head(HEAD), *prompts.report(report)])
    session = LlamaSession(module, reader, prompts, prefix_tokens=reader.length, context_tokens=context_tokens)
    return Toy(library, reader, prompts, session)


labels = st.lists(st.text("abn ", min_size=1, max_size=5), min_size=1, max_size=5, unique=True)
toy_choices = st.lists(st.builds(Choice, st.text("xy", max_size=6), labels.map(tuple)), max_size=7)
toy_limits = (
    st.builds(TreeLimits, tokens=st.integers(0, 60), leaves=st.integers(0, 12), looks=st.integers(0, 12)) | st.none()
)


@settings(max_examples=50)
@given(st.text("mass ", max_size=30), toy_choices, toy_limits)
def test_together_the_answers_are_those_of_one_by_one_for_any_report_questions_and_limits(
    report: str, choices: list[Choice], limits: TreeLimits | None
) -> None:
    there = toy(report, limits=limits)
    alone = one_by_one(there.session, choices)
    before = there.reader.tokens_computed
    together = there.session.choose_all(choices)
    assert probabilities(together) == alone
    assert sum(scored.tokens for scored in together) == there.reader.tokens_computed - before
    assert there.library.sequences() == {0}
    assert there.reader.length == len(there.library.cells)
    assert one_by_one(there.session, choices) == alone


@settings(max_examples=30)
@given(toy_choices, st.integers(0, 60))
def test_a_context_that_is_nearly_full_is_filled_and_never_exceeded(choices: list[Choice], spare: int) -> None:
    with_room = toy()
    needed = max((tokens_of(with_room.prompts, one) for one in choices), default=0)
    tight = toy(context_tokens=with_room.reader.length + needed + spare)
    assert probabilities(tight.session.choose_all(choices)) == one_by_one(with_room.session, choices)


def test_all_questions_of_a_report_are_one_computation_and_what_they_share_is_computed_once() -> None:
    there = toy()
    there.library.batches.clear()
    scores = there.session.choose_all(CHOICES)
    assert there.library.batches == [unique_tokens(there.prompts, CHOICES)]
    assert [scored.tokens for scored in scores] == [
        unique_tokens(there.prompts, CHOICES[: place + 1]) - unique_tokens(there.prompts, CHOICES[:place])
        for place in range(len(CHOICES))
    ]
    assert sum(scored.tokens for scored in scores) < sum(unique_tokens(there.prompts, [one]) for one in CHOICES)


def test_more_branches_than_the_memory_has_sequences_are_computed_in_turns() -> None:
    there = toy()
    many = [Choice(f"{number:02d}?", ("yes", "no")) for number in range(BRANCHES + 4)]
    alone = one_by_one(there.session, many)
    there.library.batches.clear()
    assert probabilities(there.session.choose_all(many)) == alone
    assert len(there.library.batches) > 1
    assert max(there.library.batches) <= there.reader.batch_tokens


def test_the_same_question_twice_is_computed_once() -> None:
    first, again = toy().session.choose_all([LIVER, LIVER])
    assert first.probabilities == again.probabilities
    assert first.tokens > 0 == again.tokens


def test_a_question_with_nothing_to_choose_is_certain_and_costs_nothing() -> None:
    there = toy()
    alone = one_by_one(there.session, CHOICES)
    for choices in ([NOTHING_TO_CHOOSE], [NOTHING_TO_CHOOSE, LIVER], [LIVER, NOTHING_TO_CHOOSE]):
        scores = there.session.choose_all(choices)
        empty = scores[choices.index(NOTHING_TO_CHOOSE)]
        assert (empty.probabilities, empty.tokens) == ((1.0,), 0)
    assert there.session.choose_all([]) == ()
    assert one_by_one(there.session, CHOICES) == alone


def test_a_question_too_large_for_a_tree_is_asked_alone_and_keeps_its_place() -> None:
    there = toy(context_tokens=8192)
    choices = [SMA, TOO_LARGE, LIVER]
    alone = one_by_one(there.session, choices)
    there.library.batches.clear()
    assert probabilities(there.session.choose_all(choices)) == alone
    together = unique_tokens(there.prompts, [SMA, LIVER])
    assert there.library.batches.count(together) == 1
    assert sum(there.library.batches) == together + unique_tokens(there.prompts, [TOO_LARGE])


def test_one_that_does_not_fit_behind_the_report_is_told_before_anything_is_computed() -> None:
    there = toy(context_tokens=1024)
    alone = one_by_one(there.session, CHOICES)
    there.library.batches.clear()
    with pytest.raises(ContextTooSmallError) as caught:
        there.session.choose_all([*CHOICES, TOO_LARGE])
    assert caught.value.needed > caught.value.available == 1024 - there.reader.length
    assert there.library.batches == []
    assert probabilities(there.session.choose_all(CHOICES)) == alone


@pytest.mark.parametrize("candidates", [(), ("yes", ""), ("yes", "yes")])
def test_impossible_candidates_of_one_are_refused_for_all(candidates: tuple[str, ...]) -> None:
    there = toy()
    there.library.batches.clear()
    with pytest.raises(ValueError, match="candidate"):
        there.session.choose_all([LIVER, Choice("Mass?", candidates)])
    assert there.library.batches == []


def test_a_closed_session_answers_no_questions_together() -> None:
    there = toy()
    there.session.close()
    with pytest.raises(ModelError, match="session is closed"):
        there.session.choose_all([LIVER])


@pytest.mark.parametrize("code", [1, 2, -1, -3])
def test_a_failure_to_compute_is_an_error_and_leaves_nothing_in_memory(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = toy()
    with monkeypatch.context() as patch:
        patch.setattr(there.library, "llama_decode", lambda context, batch: code)
        with pytest.raises(ModelError, match=f"code {code}"):
            there.session.choose_all(CHOICES)
    assert there.library.sequences() == set()
    with pytest.raises(ModelError, match="open the report again"):
        there.session.choose_all(CHOICES)


@pytest.mark.parametrize("forked", [0, 1, 3])
def test_a_report_that_was_not_forked_is_an_error_and_the_report_is_still_there(
    forked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some back ends fork nothing and say nothing: read so, a question would be answered without the report."""
    there = toy()
    alone = one_by_one(there.session, CHOICES)
    there.library.batches.clear()
    with monkeypatch.context() as patch:
        patch.setattr(there.library, "llama_memory_seq_cp", only_the_first(forked, there.library.llama_memory_seq_cp))
        with pytest.raises(ModelError, match="did not fork"):
            there.session.choose_all(CHOICES)
    assert there.library.batches == []
    assert there.library.sequences() == {0}
    assert one_by_one(there.session, CHOICES) == alone


def test_logits_that_are_no_numbers_are_an_error_and_leave_no_sequences_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = toy()
    alone = one_by_one(there.session, CHOICES)
    with monkeypatch.context() as patch:
        patch.setattr(there.library, "llama_get_logits_ith", lambda context, place: None)
        with pytest.raises(ModelError, match="no logits"):
            there.session.choose_all(CHOICES)
    assert there.library.sequences() == {0}
    assert one_by_one(there.session, CHOICES) == alone


# ------------------------------------------------------------------ the default model

SENTENCES = (
    "Hypodense mass in the pancreatic head, 2.4 x 2.1 cm.",
    "Ill-defined lesion of the body measuring 31 mm.",
    "The mass contacts the superior mesenteric artery over less than 180°.",
    "The celiac axis is encased.",
    "The SMA is free.",
    "The portal vein is patent.",
    "Short segment narrowing of the SMV without occlusion.",
    "No liver metastases.",
    "Several hypodense lesions in both lobes of the liver, consistent with metastases.",
    "The bile duct is dilated; a stent is in place.",
    "No ascites. The spleen is normal.",
    "Cannot be assessed: motion artefacts.",
)
VESSELS = ("superior mesenteric artery", "superior mesenteric vein", "celiac axis", "portal vein", "hepatic artery")
CONTACT = ("no contact", "up to 180°", "more than 180°", "occluded", "not stated")
OTHERS = (SIZE, LIVER, STENT, Choice("Is there ascites?", ("yes", "no", "not stated")), NOTHING_TO_CHOOSE)


def random_conversation(chance: random.Random) -> Conversation:
    return Conversation(HEAD, " ".join(chance.sample(SENTENCES, chance.randint(1, len(SENTENCES)))))


def random_choices(chance: random.Random) -> list[Choice]:
    """Some that begin alike, some that do not, with the labels in any order."""
    vessels = chance.sample(VESSELS, chance.randint(1, len(VESSELS)))
    labels = chance.sample(CONTACT, chance.randint(2, len(CONTACT)))
    asked = [Choice(f"How far does the mass touch the {vessel}?", tuple(labels)) for vessel in vessels]
    asked += chance.sample(OTHERS, chance.randint(1, len(OTHERS)))
    chance.shuffle(asked)
    return asked


def forked_sequences(engine: LlamaCppEngine) -> list[int]:
    """Sequences beside that of the report of which anything is in memory."""
    return [sequence for sequence in range(1, BRANCHES + 1) if engine._reader._held(sequence) != (-1, -1)]


@contextmanager
def small_engine(*choices: Choice, prompts: PromptTokens) -> Iterator[LlamaCppEngine]:
    """An engine with room behind the report for the largest of the questions, and for nothing more."""
    needed = max(tokens_of(prompts, one) for one in choices)
    there = len(prompts.head(HEAD)) + len(prompts.report(REPORT))
    with LlamaCppEngine(context_tokens=there + needed) as engine:
        yield engine


@pytest.mark.model
@pytest.mark.parametrize("seed", range(6))
def test_the_model_answers_together_as_one_by_one_but_for_ties(default_engine: LlamaCppEngine, seed: int) -> None:
    chance = random.Random(f"choose all {seed}")
    conversation, choices = random_conversation(chance), random_choices(chance)
    with default_engine.open(conversation) as session:
        together = probabilities(session.choose_all(choices))
        alone = one_by_one(session, choices)
    for one, ours, theirs in zip(choices, together, alone, strict=True):
        assert len(ours) == len(one.candidates)
        assert math.fsum(ours) == pytest.approx(1.0, abs=1e-12)
        assert np.log(ours) == pytest.approx(np.log(theirs), abs=ROUNDING)
        chosen, wanted = int(np.argmax(ours)), int(np.argmax(theirs))
        if chosen != wanted:
            assert math.log(theirs[wanted] / theirs[chosen]) < ROUNDING, "more than a tie"


@pytest.mark.model
def test_without_the_report_the_model_answers_otherwise_than_rounding_could(default_engine: LlamaCppEngine) -> None:
    """Else a report that was lost would not show in the test above."""
    with default_engine.open(CONVERSATION) as session:
        together = probabilities(session.choose_all(CHOICES))
    with default_engine.open(Conversation("", "")) as session:
        blind = one_by_one(session, CHOICES)
    farthest = max(np.abs(np.log(seen) - np.log(unseen)).max() for seen, unseen in zip(together, blind, strict=True))
    assert farthest > 2 * ROUNDING


@pytest.mark.model
def test_the_models_answers_are_the_same_bits_before_and_after_questions_together(
    default_engine: LlamaCppEngine,
) -> None:
    with default_engine.open(CONVERSATION) as session:
        alone = one_by_one(session, CHOICES)
        written = session.generate("Describe the mass.", max_tokens=10)
        together = session.choose_all(CHOICES)
        assert forked_sequences(default_engine) == []
        assert one_by_one(session, CHOICES) == alone
        assert session.generate("Describe the mass.", max_tokens=10) == written
        assert session.choose_all(CHOICES) == together
    with default_engine.open(Conversation(HEAD, REPORT * 3)) as session:
        session.choose_all(CHOICES)
    with default_engine.open(CONVERSATION) as session:
        assert session.choose_all(CHOICES) == together


@pytest.mark.model
def test_the_model_computes_every_token_of_questions_together_once(default_engine: LlamaCppEngine) -> None:
    prompts = default_engine.prompts
    with default_engine.open(CONVERSATION) as session:
        before = default_engine.tokens_computed
        scores = session.choose_all(CHOICES)
        computed = default_engine.tokens_computed - before
    assert [scored.tokens for scored in scores] == [
        unique_tokens(prompts, CHOICES[: place + 1]) - unique_tokens(prompts, CHOICES[:place])
        for place in range(len(CHOICES))
    ]
    assert sum(scored.tokens for scored in scores) == computed == unique_tokens(prompts, CHOICES)
    assert computed < sum(unique_tokens(prompts, [one]) for one in CHOICES), "SMA and SMV begin alike"


@pytest.mark.model
def test_the_model_is_asked_alone_what_is_too_large_for_a_tree(default_engine: LlamaCppEngine) -> None:
    with default_engine.open(CONVERSATION) as session:
        assert len(default_engine.prompts.question(TOO_LARGE.question)) > default_engine._reader.batch_tokens
        alone = session.choose(TOO_LARGE.question, TOO_LARGE.candidates)
        small = session.choose_all([LIVER, SIZE])
        assert session.choose_all([LIVER, TOO_LARGE, SIZE]) == (small[0], alone, small[1])
        empty = session.choose_all([NOTHING_TO_CHOOSE])[0]
        assert (empty.probabilities, empty.tokens) == ((1.0,), 0)
        assert session.choose(TOO_LARGE.question, TOO_LARGE.candidates) == alone


@pytest.mark.model
def test_a_full_context_takes_the_models_questions_in_turns_or_refuses_them_unasked(
    default_engine: LlamaCppEngine,
) -> None:
    with (
        small_engine(*CHOICES, prompts=default_engine.prompts) as engine,
        engine.open(CONVERSATION) as session,
    ):
        alone = one_by_one(session, CHOICES)
        together = probabilities(session.choose_all(CHOICES))
        for ours, theirs in zip(together, alone, strict=True):
            assert np.log(ours) == pytest.approx(np.log(theirs), abs=ROUNDING)
        before = engine.tokens_computed
        with pytest.raises(ContextTooSmallError) as caught:
            session.choose_all([*CHOICES, TOO_LARGE])
        assert caught.value.needed > caught.value.available
        assert engine.tokens_computed == before
        assert one_by_one(session, CHOICES) == alone


@pytest.mark.model
def test_a_failure_of_llama_cpp_on_a_tree_is_an_error_and_the_next_report_is_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LlamaCppEngine(context_tokens=1024) as engine:
        with engine.open(CONVERSATION) as session:
            before = session.choose_all(CHOICES)
            with monkeypatch.context() as patch:
                patch.setattr(load_library(), "llama_decode", lambda context, batch: -3)
                with pytest.raises(ModelError, match="code -3"):
                    session.choose_all(CHOICES)
            assert forked_sequences(engine) == []
            with pytest.raises(ModelError, match="open the report again"):
                session.choose_all(CHOICES)
        with engine.open(CONVERSATION) as session:
            assert session.choose_all(CHOICES) == before


@pytest.mark.model
@pytest.mark.parametrize("forked", [0, 2])
def test_a_report_that_llama_cpp_did_not_fork_is_an_error_and_can_still_be_asked_about(
    default_engine: LlamaCppEngine, forked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = load_library()
    with default_engine.open(CONVERSATION) as session:
        alone, together = one_by_one(session, CHOICES), session.choose_all(CHOICES)
        with monkeypatch.context() as patch:
            patch.setattr(library, "llama_memory_seq_cp", only_the_first(forked, library.llama_memory_seq_cp))
            with pytest.raises(ModelError, match="did not fork"):
                session.choose_all(CHOICES)
        assert forked_sequences(default_engine) == []
        assert one_by_one(session, CHOICES) == alone
        assert session.choose_all(CHOICES) == together
