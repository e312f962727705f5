"""Nothing passes the gate that does not come from where it says, or that could identify a person."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.cloud.egress.gate import Allowed, EgressGate, Instruction, _slot_characters
from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.cloud.outgoing import Piece, PieceKind, case_piece, guideline_piece
from medorchestra.cloud.prompt_texts import PROMPTS as PROMPTS_OF_THE_PLANNER
from medorchestra.cloud.prompt_texts import instruction, prompt_template
from medorchestra.errors import EgressError, SettingsError
from medorchestra.local.records import Report
from medorchestra.synthetic import SyntheticCase

SECTION = Section("3.1", "Superior mesenteric artery", "Contact of more than 180 degrees is locally advanced.\nAlways.")
GUIDELINE = Guideline("T", "E", "S", "L", {"3.1": SECTION}, "sha256:0")
PROMPTS = {
    "decompose": Instruction("List the findings of section $number.\nAt most ${most}.\n"),
    "plain": Instruction("Answer in JSON."),
    "slots": Instruction("Costs $$5; write {{ labels }} once."),
}
REPORT = "Mr John Smith, MRN 1234567: mass of the pancreatic head, SMA contact of 200 degrees."


def a_case(case_id="dev-f01", text="Mass in the pancreatic head, SMA free."):
    return SyntheticCase(
        id=case_id,
        split="development",
        form="free_text",
        style="terse",
        text=text,
        findings={},
        outcome=None,
        possible_outcomes=(),
        rule=None,
    )


@pytest.fixture
def gate():
    return EgressGate(GUIDELINE, PROMPTS, cases=[a_case()])


def refusal(gate, *pieces):
    with pytest.raises(EgressError) as caught:
        gate.check(pieces)
    return str(caught.value)


def test_what_comes_from_where_it_says_passes(gate):
    clearance = gate.check(
        [
            Piece(PieceKind.INSTRUCTION, "decompose", "List the findings of section 3.1.\nAt most 20."),
            Piece(PieceKind.INSTRUCTION, "plain", "Answer in JSON."),
            guideline_piece(SECTION),
            case_piece(a_case()),
            Piece(PieceKind.PLAN, "subtasks", "sma_contact: none, <=180, >180, not_stated"),
            Piece(PieceKind.PROBLEM, "proof", "rules 3 and 7 both hold for sma_contact=<=180"),
            Piece(PieceKind.REPLY, "decompose", '{"findings": []}'),
        ]
    )
    assert (clearance.pieces, clearance.allowed) == (7, ())


def test_an_excerpt_of_a_section_passes_and_a_changed_word_does_not(gate):
    gate.check([Piece(PieceKind.GUIDELINE, "3.1", "Contact of more than  180 degrees is locally advanced. Always.")])
    changed = Piece(PieceKind.GUIDELINE, "3.1", "Contact of more than 90 degrees is locally advanced.")
    assert "guideline '3.1': does not stand word for word" in refusal(gate, changed)
    assert "does not stand word for word" in refusal(gate, Piece(PieceKind.GUIDELINE, "9.9", SECTION.text))
    assert "does not stand word for word" in refusal(gate, Piece(PieceKind.GUIDELINE, "3.1", " "))


def test_a_case_that_was_not_registered_does_not_pass(gate):
    assert "case 'dev-f02': no synthetic case with this id" in refusal(gate, case_piece(a_case("dev-f02")))
    changed = case_piece(a_case(text="Mass in the pancreatic tail, SMA free."))
    assert "case 'dev-f01': is not the text of the registered case" in refusal(gate, changed)


def test_a_real_report_cannot_be_registered(gate):
    with pytest.raises(TypeError, match="not a Report"):
        gate.register(Report("R1", REPORT))
    with pytest.raises(TypeError, match="not a str"):
        EgressGate(GUIDELINE, PROMPTS, cases=[REPORT])


def test_two_texts_under_one_case_id_are_refused(gate):
    gate.register(a_case())
    with pytest.raises(EgressError, match="dev-f01: another case"):
        gate.register(a_case(text="Another text."))


@pytest.mark.parametrize("kind", [PieceKind.PLAN, PieceKind.PROBLEM, PieceKind.REPLY])
def test_a_pasted_report_is_refused_with_kinds_and_counts_and_none_of_its_text(gate, kind):
    says = refusal(gate, Piece(kind, "subtasks", REPORT))
    assert f"{kind.value} 'subtasks': holds what looks like 1 x name, 1 x record_number" in says
    assert not any(word in says for word in ("Smith", "1234567", "pancreatic", "200"))


def test_a_pasted_report_registered_as_a_case_is_refused_by_its_id(gate):
    gate.register(a_case("dev-f03", REPORT))
    assert "case 'dev-f03': holds what looks like 1 x name" in refusal(gate, case_piece(a_case("dev-f03", REPORT)))


@pytest.mark.parametrize("kind", [PieceKind.PLAN, PieceKind.REPLY])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"text": "Mass in the head.\nMRN: 4711-0815"}),
        json.dumps({"text": "Mass in the head.\nMRN: 4711-0815"})[:-4],  # cut off, no JSON any more
        json.dumps({"text": json.dumps({"text": "Mass in the head.\nMRN: 4711-0815"})}),
        r'{"text": "Mass.\u000aMRN\u003a 4711-0815"}',
    ],
    ids=["json", "cut off", "json in json", "code points"],
)
def test_an_identifier_behind_a_line_break_of_json_is_found_once(gate, kind, text):
    assert "MRN" in text
    says = refusal(gate, Piece(kind, "write cases", text))
    assert says.endswith("holds what looks like 1 x record_number")


def test_an_identifier_that_json_leaves_as_it_is_counts_once_and_an_allowed_string_of_json_too():
    gate = EgressGate(GUIDELINE, PROMPTS, allowed=[Allowed("Dr. Jane Doe", "author of the guideline")])
    text = json.dumps({"text": "Findings:\nDr. Jane Doe wrote it."})
    assert gate.check([Piece(PieceKind.REPLY, "merge", text)]).allowed == (1,)
    both = json.dumps({"text": "Findings:\nnone", "more": "MRN: 4711-0815"})
    assert refusal(gate, Piece(PieceKind.REPLY, "merge", both)).endswith("like 1 x record_number")


def test_backslashes_that_are_no_escapes_of_json_pass_and_stay(gate):
    harmless = r'{"text": "Size 2.0\\2.1 cm; \d+ \u12 \\\\ \"free\" \/ \ud83d"}'
    assert gate.check([Piece(PieceKind.REPLY, "merge", harmless)]).characters == len(harmless)


def test_an_identifier_in_a_heading_is_found_too(gate):
    assert "1 x record_number" in refusal(gate, Piece(PieceKind.PLAN, "MRN 1234567", "sma_contact"))


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("unknown", "Answer in JSON.", "no packaged prompt has this name"),
        ("plain", "Answer in JSON. And this.", "is not the packaged prompt"),
        ("decompose", "List the findings of section 3.1.\nAt least 20.", "is not the packaged prompt"),
        ("decompose", f"List the findings of section {'x' * 5000}.\nAt most 20.", "its slots hold 5002 characters"),
        ("decompose", "List the findings of section Mr Smith.\nAt most 20.", "1 x name"),
    ],
)
def test_an_instruction_must_be_its_packaged_prompt_with_small_slots(gate, name, text, problem):
    assert problem in refusal(gate, Piece(PieceKind.INSTRUCTION, name, text))


def test_braces_and_doubled_dollars_of_a_prompt_are_text(gate):
    gate.check([Piece(PieceKind.INSTRUCTION, "slots", "Costs $5; write {{ labels }} once.")])
    assert "is not the packaged" in refusal(gate, Piece(PieceKind.INSTRUCTION, "slots", "Costs $5; write none once."))


def test_a_dollar_that_begins_no_slot_is_refused_when_the_gate_is_made():
    with pytest.raises(SettingsError, match="at character 6 begins no slot"):
        EgressGate(GUIDELINE, {"p": Instruction("Costs $5")})


def test_the_packaged_prompts_pass_as_the_planner_renders_them():
    packaged = PROMPTS_OF_THE_PLANNER
    gate = EgressGate(GUIDELINE, {name: Instruction(prompt_template(name).template) for name in packaged})
    slots = {name: dict.fromkeys(prompt_template(name).get_identifiers(), "sma_contact, 3") for name in packaged}
    assert gate.check([instruction(name, **slots[name]) for name in packaged]).pieces == len(packaged)


def test_an_allowed_string_passes_with_its_uses_counted_and_no_other():
    allowed = [Allowed("Dr. Jane Doe", "author of the guideline")]
    gate = EgressGate(GUIDELINE, PROMPTS, allowed=allowed)
    piece = Piece(PieceKind.PLAN, "source", "By Dr. Jane Doe; thanks to Dr. Jane Doe.")
    assert gate.check([piece]).allowed == (2,)
    assert "1 x name" in refusal(gate, Piece(PieceKind.PLAN, "source", "By Dr. Jane Doering."))
    assert gate.described()["allowed"] == [{"text": "Dr. Jane Doe", "reason": "author of the guideline"}]
    with pytest.raises(SettingsError, match="reason"):
        EgressGate(GUIDELINE, PROMPTS, allowed=[Allowed("Dr. Jane Doe", " ")])


def test_a_request_is_bounded_and_one_bad_piece_stops_them_all(gate):
    small = EgressGate(GUIDELINE, PROMPTS, most_characters=10)
    assert "has 15 characters; at most 10" in refusal(small, Piece(PieceKind.INSTRUCTION, "plain", "Answer in JSON."))
    assert "plan 'b'" in refusal(gate, Piece(PieceKind.PLAN, "a", "fine"), Piece(PieceKind.PLAN, "b", "MRN 1234567"))


def test_many_problems_are_counted_and_not_all_told(gate):
    says = refusal(gate, *[Piece(PieceKind.CASE, f"c{number}", "x") for number in range(14)])
    assert says.endswith("and 4 more")


@given(st.lists(st.text("ab{} \n", min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_every_filling_of_a_template_is_recognised(literals, data):
    slots = [data.draw(st.text("ab{} \n", max_size=5)) for _ in literals[1:]]
    text = literals[0] + "".join(slot + literal for slot, literal in zip(slots, literals[1:], strict=True))
    assert _slot_characters(literals, text) == sum(map(len, slots))
