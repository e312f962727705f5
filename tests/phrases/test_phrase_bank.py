"""The contract of a phrase bank, and its file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_phrase_bank import PROVENANCE, parts_bank, small_bank

from medorchestra.errors import CaseError, StorageError
from medorchestra.phrases.phrase_bank import (
    Closing,
    Phrase,
    PhraseBank,
    Place,
    RangeSlot,
    Skeleton,
    UnitSlot,
    phrase_bank_path,
    read_phrase_bank,
    slots_of,
    write_phrase_bank,
)

BANK = small_bank()
SECRET = "Hepatic flexure"


def phrase(text="The SMA is free.", **more):
    fields = {"id": "p1", "split": "development", "text": text, "section": "arteries"} | more
    return Phrase.model_validate(fields)


@pytest.mark.parametrize("bank", [BANK, parts_bank()], ids=["pancreas", "toy"])
def test_a_written_bank_is_read_back_equal(tmp_path, bank):
    write_phrase_bank(bank, tmp_path / "phrase_bank.json")
    back = read_phrase_bank(tmp_path / "phrase_bank.json")
    assert back == bank
    assert back.digest == bank.digest


def test_the_file_has_one_piece_to_a_line(tmp_path):
    write_phrase_bank(BANK, tmp_path / "bank.json")
    lines = (tmp_path / "bank.json").read_text(encoding="utf-8").splitlines()
    pieces = [json.loads(line.rstrip(",")) for line in lines if line.startswith("  {")]
    assert len([one for one in pieces if "split" in one]) == len(BANK.phrases) + len(BANK.distractors) + len(
        BANK.skeletons
    )


def test_the_digest_tells_one_phrase_from_another():
    changed = BANK.phrases[0].model_copy(update={"text": "The SMA is quite free."})
    assert BANK.model_copy(update={"phrases": (changed, *BANK.phrases[1:])}).digest != BANK.digest


def test_slots_are_read():
    assert slots_of("{cm} x {cm2} cm, before {prior_mm}, {10-180}° and {0.4-0.95}, {count}") == (
        UnitSlot("cm"),
        UnitSlot("cm", 2),
        UnitSlot("mm", prior=True),
        RangeSlot(10, 180, 0),
        RangeSlot(0.4, 0.95, 2),
        UnitSlot("count"),
    )


@pytest.mark.parametrize("text", ["{", "a } b", "{{cm}}", "{inch}", "{180-20}", "{5-5}", "{prior_cm2}", "{cm4}", "{}"])
def test_a_text_with_an_unknown_slot_is_refused(text):
    with pytest.raises(ValidationError, match="slot"):
        phrase(text=f"Mass of {text}")


@given(st.text(max_size=40))
def test_any_text_is_either_refused_or_has_only_known_slots(text):
    try:
        slots = slots_of(text)
    except ValueError:
        return
    assert len(slots) == text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        (lambda: phrase(rest=True, states={"sma_contact": "none"}), "two findings or more"),
        (lambda: Place(sections=("a",), findings=("b",)), "not several of them"),
        (lambda: Place(sections=("a",), values={"none": "no"}), "exactly one finding"),
        (lambda: Place(findings=("a", "b"), values={"none": "no"}), "exactly one finding"),
        (lambda: Place(sections=("a",), silent="-"), "only in a field"),
        (lambda: Place(sections=("a",), needs={"b": ("yes",)}), "would be lost"),
        (lambda: Place(findings=("a",), values={"none": "{cm}"}), "belongs to `number`"),
        (lambda: Place(findings=("a",), values={"number": "large"}), "belongs to `number`"),
        (lambda: Place(heading="{cm}"), "slots stand in phrases"),
        (lambda: Place(sections=("a",), join="{m}"), "the only slot is"),
        (lambda: Closing(sections=("a",), finding="b"), "go together"),
        (lambda: Closing(sections=("a",), finding="b", agrees="no", conflicts="yes"), "needs `about`"),
    ],
)
def test_a_piece_that_makes_no_sense_is_refused(piece, says):
    with pytest.raises(ValidationError, match=says):
        piece()


def test_two_fields_for_one_finding_are_refused():
    places = (Place(heading="A: ", findings=("a",)), Place(heading="B: ", findings=("a",)))
    with pytest.raises(ValidationError, match="two fields for the same finding: a"):
        Skeleton(id="s1", split="held_out", form="structured", style="x", places=places)


def with_pieces(**pieces):
    fields = {"topic": "toy", "provenance": PROVENANCE, "findings": ("a", "b"), "sections": ("arteries",)}
    return PhraseBank.model_validate(fields | pieces)


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ({"phrases": [phrase(states={"a": "none"})] * 2}, "1 ids are there twice, first: p1"),
        ({"phrases": [phrase()]}, "phrase p1: states nothing"),
        ({"distractors": [phrase(states={"a": "none"})]}, "distractor p1: states something"),
        ({"phrases": [phrase(states={"c": "none"})]}, "phrase p1: unknown finding c"),
        ({"phrases": [phrase(states={"a": "none"}, section="veins")]}, "phrase p1: unknown section veins"),
        ({"phrases": [phrase(states={"a": "none"}, needs={"d": ("yes",)})]}, "unknown finding d"),
        ({"closing": {"sections": ["end"]}}, "closing: unknown section end"),
        ({"dependencies": [{"finding": "a", "on": "z", "among": ["yes"]}]}, "dependencies: unknown finding z"),
        ({"numbers": [{"finding": "a", "low": 2, "high": 1}]}, "low must be below high"),
    ],
)
def test_a_bank_that_does_not_hang_together_is_refused(pieces, says):
    with pytest.raises(ValidationError, match=says):
        with_pieces(**pieces)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{not json", "not JSON"),
        (b"\xff\xfe{}", "not a text file in UTF-8"),
        (b"[]", "valid dictionary"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({"phrases": [{"id": "p1", "text": SECRET + " {inch}"}]}).encode(), "phrases.0"),
    ],
)
def test_a_faulty_file_is_refused_without_a_word_of_it(tmp_path, content, says):
    path = tmp_path / "bank.json"
    path.write_bytes(content)
    with pytest.raises(CaseError) as caught:
        read_phrase_bank(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_bank_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(CaseError, match="no phrase bank 'kidney'"):
        read_phrase_bank("kidney")
    with pytest.raises(CaseError, match="cannot be read: No such file"):
        read_phrase_bank(tmp_path / "none.json")
    assert phrase_bank_path("kidney").name == "phrase_bank.json"


def test_a_bank_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"bank\.json: cannot be written"):
        write_phrase_bank(parts_bank(), tmp_path / "file" / "bank.json")
