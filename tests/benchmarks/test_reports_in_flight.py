"""`benchmarks/speed/reports_in_flight.py`: several reports in one batch are laid out as they are one by one."""

from __future__ import annotations

from typing import Any

import in_flight
import in_flight_table as tables
import pytest
import reports_in_flight

from medorchestra.local.engine.model_files import find_model
from medorchestra.local.engine.question_tree import QuestionTree, TokenQuestion

END = 2
QUESTIONS = (
    TokenQuestion((50, 60), ((70, END), (71, END))),
    TokenQuestion((50, 61), ((70, END), (72, 73, END), (72, 74, END))),
)


def tree() -> QuestionTree:
    """Two questions that begin alike; the second has two answers that begin alike."""
    found = QuestionTree()
    for number, question in enumerate(QUESTIONS):
        found.add(number, question)
    return found


def material(*reports: list[int], model: str = "", cell_bytes: int = 1) -> Any:
    """What is read: reports and the two questions, as tokens."""
    return reports_in_flight.Material(model, None, 2, 32, [1, 5, 6], QUESTIONS, reports, cell_bytes)


def row(**given: Any) -> dict[str, Any]:
    """What was measured with two reports."""
    rounds = [{"alone_text": 4.0, "alone_questions": 2.0, "together_text": 2.0, "together_questions": 2.0}]
    found = {"length": 150, "together": 2, "tokens": 300, "memory_mb": 20.0, "peak_mb": 200.0}
    return found | {"unified": rounds, "divided": rounds, "moved": {"answers": 4, "changed": 0, "largest": 0.1}} | given


def test_a_report_stands_behind_the_head_and_only_its_last_token_is_looked_behind() -> None:
    places = in_flight.report_places(3, 10, [7, 8, 9])

    assert [(place.token, place.position, place.sequences) for place in places] == [
        (7, 10, (3,)),
        (8, 11, (3,)),
        (9, 12, (3,)),
    ]
    assert [place.wanted for place in places] == [None, None, 3]


def test_every_branch_is_a_way_through_the_tree_in_a_sequence_of_its_own() -> None:
    branches = in_flight.branches_of(tree(), report=2, length=20, first=5)

    assert len(branches.sequences) == len(tree().leaves())
    ways = {
        tuple(place.token for place in branches.places if sequence in place.sequences)
        for sequence in branches.sequences
    }
    assert ways == {(50, 60), (50, 61, 72)}
    first = branches.places[0]
    assert (first.token, first.position, first.sequences) == (50, 20, tuple(branches.sequences))
    assert {place.wanted for place in branches.places} == {None, (2, (50, 60)), (2, (50, 61)), (2, (50, 61, 72))}


def test_things_go_together_as_long_as_there_is_room() -> None:
    assert list(in_flight.groups([3, 3, 3, 3], 7)) == [range(2), range(2, 4)]
    assert list(in_flight.groups([7, 1], 7)) == [range(1), range(1, 2)]
    assert list(in_flight.groups([], 7)) == []
    with pytest.raises(ValueError, match="number 1 needs 8 of 7"):
        list(in_flight.groups([3, 8], 7))


def test_gains_are_seconds_one_by_one_over_seconds_together() -> None:
    rounds = row()["unified"]

    assert tables.gain(rounds, "text") == [2.0]
    assert tables.gain(rounds, "questions") == [1.0]
    assert tables.gain(rounds, "both") == [1.5]


def test_a_report_whose_bits_change_with_its_neighbours_is_told_of() -> None:
    trials = [
        {"first": True, "beside": "the same again", "same": True, "largest": 0.0},
        {"first": True, "beside": "other text, same lengths", "same": True, "largest": 0.0},
        {"first": False, "beside": "shorter neighbours", "same": False, "largest": 0.3},
        {"first": False, "beside": "nothing", "same": False, "largest": 0.3},
    ]

    told = tables.conclusions([row(neighbours=trials)])

    assert "150 tokens: at best 1.50 times as fast for text and questions, with 2 of them together" in told
    assert "with other neighbours, the logits behind a report had the same bits in 1 of 2 trials" in told[-1]
    assert "would not repeat itself" in told[-1]


@pytest.mark.model
def test_reports_read_together_get_the_answers_they_get_one_by_one() -> None:
    given = material([*range(100, 112)], [*range(300, 320)], model=str(find_model("default")))
    flight = reports_in_flight.flight_for(given, given.reports, unified=True)
    reading = reports_in_flight.Reading(flight, given, given.reports)

    timed, alone = reading.one_by_one()
    before = flight.tokens_computed
    _, together = reading.together()
    computed = flight.tokens_computed - before
    _, again = reading.together()
    flight.close()

    assert timed.text > 0
    assert timed.questions > 0
    assert computed == 12 + 20 + 2 * len(tree().tokens)
    assert alone.keys() == together.keys()
    moved = reports_in_flight.answers_moved(given, alone, together)
    assert moved["answers"] == 4
    assert moved["largest"] < 0.25
    assert all((again[key] == together[key]).all() for key in together)


@pytest.mark.model
def test_memory_may_be_divided_among_the_reports() -> None:
    given = material([*range(100, 112)], [*range(300, 320)], model=str(find_model("default")))
    flight = reports_in_flight.flight_for(given, given.reports, unified=False)
    reading = reports_in_flight.Reading(flight, given, given.reports)

    _, alone = reading.one_by_one(questions=False)
    _, together = reading.together(questions=False)
    flight.close()

    assert set(alone) == set(together) == {1, 2}
    for number in alone:
        assert abs(alone[number] - together[number]).max() < 1.5
        assert alone[number].argmax() in together[number].argsort()[-3:]
