"""Training prompts: the right answer among what is offered, and the very tokens that the engine reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plan_by_hand import PLAN_BY_HAND

from medorchestra.errors import PlanError
from medorchestra.finetune.training_prompts import PromptMaker
from medorchestra.local.engine.llama_cpp import LlamaCppEngine, LlamaSession
from medorchestra.local.engine.llama_reader import LlamaReader
from medorchestra.local.executor import Executor
from medorchestra.local.records import Report
from medorchestra.plan import Subtask
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import labelled

TEXT = (
    "CT of the pancreas with contrast in two phases. Solid mass in the head of the pancreas, 3.2 x 2.1 cm. "
    "The tumour abuts the SMA over 90 degrees, the coeliac axis is free. Liver cyst of 8 mm, no liver metastasis. "
    "Port catheter in place."
)
FINDINGS = {
    "tumor_present": "yes",
    "tumor_location": "head",
    "tumor_size_cm": 3.2,
    "exam_adequate": "yes",
    "sma_contact": "<=180",
    "ca_contact": "none",
    "liver_mets": "no",
}
END = 0


def plan_with(**profile):
    """The plan by hand, run in another way."""
    return PLAN_BY_HAND.model_copy(update={"profile": PLAN_BY_HAND.profile.model_copy(update=profile)})


PLAN = plan_with(prompt_form="compact")


def case(text=TEXT, **findings):
    fields = {"id": "case-1", "split": "development", "form": "free_text", "style": "toy", "text": text}
    return labelled(PLAN, FINDINGS | findings, **fields)


class WordTokens:
    """Stands for an engine of which only the tokens are asked: one for each word."""

    context_tokens = 2_000

    def __init__(self):
        self.prompts = self
        self._numbers = {}

    def count_tokens(self, text):
        return len(text.split())

    def head(self, head):
        return [self._numbers.setdefault(word, len(self._numbers) + 1) for word in head.split()]

    report = question = head

    def answer(self, candidate):
        return (*self.head(candidate), END)


def made(one, plan=PLAN):
    """Prompts, branches by subtask, and the maker."""
    maker = PromptMaker(plan, WordTokens())
    prompts = maker.prompts(one)
    return prompts, {branch.subtask: branch for prompt in prompts for branch in prompt.branches}, maker


def right_answer(branch):
    return branch.candidates[branch.right]


# ------------------------------------------------------------------------------ what is learned


def test_every_question_offers_the_plans_labels_and_the_right_one_is_that_of_the_case():
    (prompt,), branches, _ = made(case())
    assert prompt.text == TEXT
    assert set(branches) == {subtask.id for subtask in PLAN.subtasks}
    known = case().known()
    for subtask in PLAN.subtasks:
        if subtask.answer == "choice":
            assert set(branches[subtask.id].candidates) == set(subtask.labels.values())
            assert right_answer(branches[subtask.id]) == subtask.labels[known[subtask.finding]]
    assert right_answer(branches["lung_mets"]) == "not stated"


def test_the_forks_lead_through_the_right_answer_and_to_its_last_choice():
    tokens = WordTokens()
    maker = PromptMaker(PLAN, tokens)
    (prompt,) = maker.prompts(case())
    assert prompt.length == len(prompt.prefix) + sum(len(branch.tokens) for branch in prompt.branches)
    for branch in prompt.branches:
        path = (*tokens.question(branch.question), *tokens.answer(right_answer(branch)))
        assert branch.tokens == path[: len(branch.tokens)]
        for position, possible, taken in branch.forks:
            assert possible[taken] == path[position + 1]
        assert branch.forks[-1][0] == len(branch.tokens) - 1


@pytest.mark.parametrize(
    ("text", "size", "answer"),
    [
        (TEXT, 3.2, "3.2 x 2.1 cm"),
        (TEXT.replace("3.2 x 2.1 cm", "32 mm"), 3.2, "32 mm"),
        (TEXT.replace("3.2 x 2.1 cm", "not measured"), None, "not stated"),
    ],
)
def test_a_number_is_chosen_among_the_measurements_of_the_report(text, size, answer):
    _, branches, maker = made(case(text, tumor_size_cm=size))
    assert right_answer(branches["tumor_size_cm"]) == answer
    assert "8 mm" in branches["tumor_size_cm"].candidates
    assert maker.unanswerable == {}


def test_a_number_is_not_trained_where_the_report_offers_no_measurement():
    _, branches, maker = made(case("Solid mass in the head of the pancreas.", tumor_size_cm=None))
    assert "tumor_size_cm" not in branches
    assert maker.unanswerable == {}


def test_a_labelled_number_that_the_report_does_not_hold_is_left_out_and_counted():
    one = case(tumor_size_cm=4.7)
    _, branches, maker = made(one)
    assert "tumor_size_cm" not in branches
    assert "tumor_location" in branches
    maker.prompts(one)
    assert maker.unanswerable == {"tumor_size_cm": 2}


def test_focused_questions_read_only_their_sentences_and_unmentioned_ones_are_not_asked():
    prompts, branches, _ = made(case(), plan_with(prompt_form="compact", context="focused"))
    of_sma = next(prompt for prompt in prompts if any(branch.subtask == "sma_contact" for branch in prompt.branches))
    assert "abuts the SMA" in of_sma.text
    assert "Port catheter" not in of_sma.text
    assert "restaging" not in branches
    assert len({prompt.text for prompt in prompts}) == len(prompts) > 1


def test_a_stated_fact_of_which_a_focused_plan_would_read_nothing_is_counted():
    """The executor would take it for silence: what no training mends must show."""
    focused = plan_with(prompt_form="compact", context="focused")
    assert made(case(), focused)[2].unanswerable == {}
    assert made(case(restaging="yes"), focused)[2].unanswerable == {"restaging": 1}


def test_answers_that_are_written_freely_cannot_be_trained_and_are_named():
    copied = Subtask.model_validate(
        {"id": "staging_sentence", "answer": "spans", "prompt": {"instructed": "Copy."}, "citation": _citation()}
    )
    plan = PLAN.model_copy(update={"subtasks": (*PLAN.subtasks, copied)})
    with pytest.raises(PlanError, match="answers of staging_sentence are written freely"):
        PromptMaker(plan, WordTokens())


def _citation():
    return PLAN.subtasks[0].citation.model_dump()


def test_no_report_text_is_shown_by_a_prompt_or_a_branch():
    prompts, branches, _ = made(case())
    shown = repr(prompts) + repr(list(branches.values()))
    assert "abuts" not in shown
    assert "3.2" not in shown


# ------------------------------------------------------------------ as the real engine reads it


class Tape:
    """What stands in llama.cpp's memory whenever it is asked for logits, and which questions were asked."""

    def __init__(self, monkeypatch):
        self._there: list[int] = []
        self.at_logits: set[tuple[int, ...]] = set()
        self.asked: dict[str, tuple[str, ...]] = {}
        real_read, real_cut, real_clear = LlamaReader.read, LlamaReader.cut, LlamaReader.clear
        real_logits, real_look, real_choose_all = LlamaReader.logits, LlamaReader.look_along, LlamaSession.choose_all

        def read(reader, tokens):
            self._there.extend(tokens)
            real_read(reader, tokens)

        def cut(reader, length):
            del self._there[length:]
            real_cut(reader, length)

        def clear(reader):
            self._there.clear()
            real_clear(reader)

        def logits(reader):
            assert reader.length == len(self._there)
            self.at_logits.add(tuple(self._there))
            return real_logits(reader)

        def look_along(reader, tree):
            assert reader.length == len(self._there)
            self.at_logits.update((*self._there, *path) for path in tree.looks)
            return real_look(reader, tree)

        def choose_all(session, choices):
            self.asked |= {one.question: one.candidates for one in choices}
            return real_choose_all(session, choices)

        spies = {"read": read, "cut": cut, "clear": clear, "logits": logits, "look_along": look_along}
        for name, spy in spies.items():
            monkeypatch.setattr(LlamaReader, name, spy)
        monkeypatch.setattr(LlamaSession, "choose_all", choose_all)


@pytest.fixture
def spied(monkeypatch) -> Iterator[tuple[LlamaCppEngine, Tape]]:
    """An engine of the test's own, since nothing may have been read before the spy listens."""
    tape = Tape(monkeypatch)
    with LlamaCppEngine() as engine:
        yield engine, tape


@pytest.mark.model
@pytest.mark.parametrize("prompt_form", ["compact", "instructed"])
@pytest.mark.parametrize("context", ["full", "focused"])
def test_the_tokens_that_are_trained_are_those_that_the_engine_reads(spied, context, prompt_form):
    engine, tape = spied
    plan = plan_with(prompt_form=prompt_form, context=context)
    reading = Executor(plan, engine).read(Report("report-1", TEXT))
    prompts = PromptMaker(plan, engine).prompts(case())
    trained = {branch.subtask: branch for prompt in prompts for branch in prompt.branches}
    assert "tumor_size_cm" in trained
    assert set(trained) == {answer.subtask for answer in reading.answers if answer.tokens}

    begun = set()
    for prompt in prompts:
        for branch in prompt.branches:
            assert tape.asked[branch.question] == branch.candidates
            paths = [(*prompt.prefix, *branch.tokens[: position + 1]) for position, _, _ in branch.forks]
            assert set(paths) <= tape.at_logits
            begun.add(paths[0])
    # And nothing else is read: whatever the engine looked at begins as one of the trained questions does.
    assert all(any(path[: len(first)] == first for first in begun) for path in tape.at_logits)


@pytest.mark.model
def test_the_right_measurement_is_trained_towards_as_the_engine_scores_it(spied):
    engine, tape = spied
    (prompt,) = PromptMaker(PLAN, engine).prompts(case())
    branch = next(one for one in prompt.branches if one.subtask == "tumor_size_cm")
    subtask = next(one for one in PLAN.subtasks if one.id == "tumor_size_cm")
    Executor(PLAN, engine).read(Report("report-1", TEXT), [subtask])
    assert tape.asked == {branch.question: branch.candidates}
    assert right_answer(branch) == "3.2 x 2.1 cm"
    assert subtask.labels[NOT_STATED] in branch.candidates
    assert {(*prompt.prefix, *branch.tokens[: position + 1]) for position, _, _ in branch.forks} <= tape.at_logits
