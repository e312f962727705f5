"""The scripted engine behaves as a real one does towards its caller."""

from __future__ import annotations

import doctest
import math

import pytest

from medorchestra.errors import ContextTooSmallError, ModelError
from medorchestra.local.engine import scripted
from medorchestra.local.engine.protocol import Conversation, Engine
from medorchestra.local.engine.scripted import Reply, ScriptedEngine, ScriptedQuestion

REPORT = Conversation("You read reports.", "Mass in the head.")


def replying(reply: Reply, **options: object) -> ScriptedEngine:
    return ScriptedEngine(lambda asked: reply, **options)  # type: ignore[arg-type]


def test_it_is_an_engine() -> None:
    engine: Engine = replying("yes")
    assert engine.identity.name == "scripted"


def test_the_example_in_its_docstring_runs() -> None:
    names = {**vars(scripted)}
    assert doctest.testmod(scripted, extraglobs=names).failed == 0
    assert doctest.DocTestFinder().find(scripted.ScriptedEngine)[0].examples


def test_the_script_sees_what_a_model_would_be_asked() -> None:
    seen: list[ScriptedQuestion] = []

    def reply(asked: ScriptedQuestion) -> str:
        seen.append(asked)
        return "yes"

    with ScriptedEngine(reply).open(REPORT) as session:
        session.choose("Mass?", ["yes", "no"])
        session.generate("Where?", max_tokens=5, grammar="root ::= [a-z]+")
    assert seen == [
        ScriptedQuestion(REPORT.report, "Mass?", ("yes", "no"), None),
        ScriptedQuestion(REPORT.report, "Where?", None, "root ::= [a-z]+"),
    ]
    assert "head" not in repr(seen[0])


def test_temperature_and_seed_of_a_sample_are_shown_to_the_script() -> None:
    seen: list[ScriptedQuestion] = []

    def reply(asked: ScriptedQuestion) -> str:
        seen.append(asked)
        return f"sample {asked.seed}"

    with ScriptedEngine(reply).open(REPORT) as session:
        written = session.generate("Where?", max_tokens=5, temperature=0.7, seed=3)
        greedy = session.generate("Where?", max_tokens=5)
    assert (written.text, greedy.text) == ("sample 3", "sample 0")
    assert [(asked.temperature, asked.seed) for asked in seen] == [(0.7, 3), (0.0, 0)]


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 0}, {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"seed": -1}],
)
def test_what_no_engine_can_write_with_is_refused(options: dict[str, float]) -> None:
    with replying("one").open(REPORT) as session, pytest.raises(ValueError, match=f"{next(iter(options))}=.*: "):
        session.generate("Where?", **({"max_tokens": 5} | options))  # type: ignore[arg-type]


def test_weights_become_probabilities_in_the_order_of_the_candidates() -> None:
    with replying({"no": 3.0, "yes": 1.0}).open(REPORT) as session:
        scored = session.choose("Is there a mass?", ["yes", "no", "not stated"])
    assert scored.probabilities == (0.25, 0.75, 0.0)
    assert scored.tokens == 4


def test_an_exception_is_raised_where_the_model_would_fail() -> None:
    with replying(ModelError("out of memory")).open(REPORT) as session, pytest.raises(ModelError, match="out of"):
        session.choose("Mass?", ["yes", "no"])


@pytest.mark.parametrize("reply", ["maybe", {"maybe": 1.0}, {"yes": 0.0}, {"yes": 2.0, "no": -1.0}])
def test_a_script_that_does_not_choose_a_candidate_is_an_error(reply: Reply) -> None:
    with replying(reply).open(REPORT) as session, pytest.raises(ValueError, match="candidates"):
        session.choose("Mass?", ["yes", "no"])


@pytest.mark.parametrize("candidates", [[], [""], ["yes", "yes"]])
def test_candidates_are_checked_as_by_a_real_engine(candidates: list[str]) -> None:
    with replying("yes").open(REPORT) as session, pytest.raises(ValueError, match="candidates"):
        session.choose("Mass?", candidates)


def test_a_long_text_is_cut_off_and_says_so() -> None:
    with replying("one two three").open(REPORT) as session:
        assert session.generate("Write.", max_tokens=3).complete
        cut = session.generate("Write.", max_tokens=2)
    assert (cut.text, cut.complete, cut.tokens) == ("one two", False, 3)


def test_the_head_is_counted_once() -> None:
    engine = replying("yes")
    counts = []
    for report in ("Mass in the head.", "No mass."):
        with engine.open(Conversation("You read reports.", report)) as session:
            counts.append(session.prefix_tokens)
    assert counts == [3 + 4, 2]


def test_prompts_that_do_not_fit_are_refused_with_their_size() -> None:
    engine = replying("yes", context_tokens=10)
    with pytest.raises(ContextTooSmallError) as caught, engine.open(Conversation("a b", "c " * 9)):
        pass
    assert (caught.value.needed, caught.value.available) == (11, 10)
    with engine.open(REPORT) as session:
        assert session.choose("Q", ["yes", "no"]).tokens == 1
        with pytest.raises(ContextTooSmallError) as caught:
            session.choose("Q w", ["yes", "not stated"])
        assert (caught.value.needed, caught.value.available) == (4, 3)
        with pytest.raises(ContextTooSmallError):
            session.generate("Q", max_tokens=3)


def test_one_report_at_a_time_and_none_after_closing() -> None:
    engine = replying("yes")
    with engine.open(REPORT) as session:
        with pytest.raises(ModelError, match="still open"), engine.open(REPORT):
            pass
        assert session.choose("Mass?", ["yes", "no"]).probabilities == (1.0, 0.0)
    with pytest.raises(ModelError, match="closed"):
        session.choose("Mass?", ["yes", "no"])
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"), engine.open(REPORT):
        pass


def test_name_and_script_tell_digests_apart() -> None:
    identities = [replying("yes", name=name, script_digest=script).identity for name in "ab" for script in ("", "1")]
    assert len({identity.digest for identity in identities}) == 4
    assert all(identity.digest.startswith("sha256:") for identity in identities)
