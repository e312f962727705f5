"""Labelled sets: what is read, what is left out and told, what is refused, and that no cell is ever shown."""

from __future__ import annotations

import hashlib
import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local.small_batch import PLAN, small_reports

from medorchestra.errors import SettingsError, SourceError
from medorchestra.local.calibrating import OPEN
from medorchestra.local.evaluation.labelled_set import LabelColumns, read_labelled_set
from medorchestra.plan_files import read_plan
from medorchestra.synthetic import labelled as labelled_case
from medorchestra.synthetic import read_cases, write_cases

CANARY = "Quillfeather"
"""Stands for what a report says; no message may hold it."""
OTHER_HANDS = Path(__file__).parents[3] / "benchmarks" / "accuracy" / "other_hands" / "reports.jsonl"


@pytest.fixture
def write(tmp_path):
    """Writes a file: lines of text, or objects as JSON lines."""

    def write(*lines, name="cases.csv"):
        path = tmp_path / (name if isinstance(lines[0], str) else "cases.jsonl")
        path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines), "utf-8")
        return path

    return write


def outcomes_of(labelled):
    return {case.case_id: case.labels.outcome for case in labelled.cases}


def refusal(source, columns=None, labels=None, *, plan=PLAN):
    """The message, without the path in front of it."""
    with pytest.raises(SourceError) as caught:
        read_labelled_set(plan, source, columns, labels=labels)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    said = str(caught.value)
    for path in (labels, source):
        said = said.removeprefix(f"{path}: ")
    return said


# ------------------------------------------------------------------------------ labels beside the reports


def test_outcomes_alone_are_enough(write):
    path = write("id,text,outcome", "A1,Mass.,resectable", "A2,Mass of the head., metastatic ", "A3,Mass,open")
    labelled = read_labelled_set(PLAN, path)
    assert outcomes_of(labelled) == {"A1": "resectable", "A2": "metastatic", "A3": OPEN}
    assert [case.truth for case in labelled.cases] == ["resectable", "metastatic", None]
    assert labelled.cases[1].report.text == "Mass of the head."
    assert labelled.name == "cases.csv"
    assert labelled.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert (labelled.findings, labelled.readers, labelled.groups, labelled.unlabelled) == ((), (), (), 0)
    assert labelled.notes == ()


def test_findings_are_read_from_columns_with_their_names_and_an_empty_cell_is_no_silence(write):
    path = write(
        "id,text,outcome,size_cm,liver_mets,ward",
        "A1,Mass.,resectable,2.50,,W1",
        "A2,Mass.,metastatic,not_stated,yes,W2",
    )
    labelled = read_labelled_set(PLAN, path)
    assert [dict(case.labels.findings) for case in labelled.cases] == [
        {"size_cm": 2.5},
        {"size_cm": "not_stated", "liver_mets": "yes"},
    ]
    assert labelled.findings == ("liver_mets", "size_cm")  # in the plan's order
    assert labelled.notes == ("2 of 3 findings are labelled",)


def test_rows_without_an_outcome_are_left_out_and_counted(write):
    path = write("id,text,outcome,liver_mets", "A1,M.,resectable,no", "A2,M.,,yes", "A3,M.,  ,")
    labelled = read_labelled_set(PLAN, path)
    assert outcomes_of(labelled) == {"A1": "resectable"}
    assert labelled.unlabelled == 2
    assert "2 of 3 rows have no outcome and are left out" in labelled.notes


def test_where_all_findings_are_labelled_the_rules_give_the_outcome_unless_it_is_labelled(write):
    path = write(
        "id,text,outcome,sma_contact,liver_mets,size_cm",
        "A1,M.,,none,no,2",
        "A2,M.,,not_stated,no,2",
        "A3,M.,locally_advanced,none,no,2",
        "A4,M.,,none,,2",
    )
    labelled = read_labelled_set(PLAN, path)
    assert outcomes_of(labelled) == {"A1": "resectable", "A2": OPEN, "A3": "locally_advanced"}
    assert labelled.unlabelled == 1
    assert "the outcome of 2 cases is what the plan's rules make of their labelled findings" in labelled.notes


def test_the_outcome_column_may_be_absent_where_every_finding_has_its_column(write):
    path = write("id,text,sma_contact,liver_mets,size_cm", "A1,M.,>180,no,2", "A2,M.,none,no,")
    labelled = read_labelled_set(PLAN, path)
    assert outcomes_of(labelled) == {"A1": "locally_advanced"}
    assert labelled.unlabelled == 1


def test_labels_and_columns_with_other_names_are_mapped(write):
    path = write(
        "Accession Number;Dictation;Board;Arteries;Liver mets",
        "0017;M.;Operable;none;no",
        "0018;M.;not sure;;yes",
        "0019;M.;metastatic;;",
    )
    columns = LabelColumns(
        outcome="board",
        text="Dictation",
        outcome_names={"Operable": "resectable", " not sure": OPEN, "palliative": "metastatic"},
        finding_columns={"sma_contact": "Arteries"},
    )
    labelled = read_labelled_set(PLAN, path, columns)
    assert outcomes_of(labelled) == {"0017": "resectable", "0018": OPEN, "0019": "metastatic"}
    assert labelled.findings == ("sma_contact",)
    assert labelled.notes == (
        "1 of 3 findings are labelled",
        "1 labels that are mapped to outcomes do not occur",
        "columns that look like findings but are not read: 'Liver mets'; name them with --finding",
    )


def test_a_column_that_is_named_for_one_finding_is_not_read_for_another(write):
    path = write("id,text,outcome,liver_mets", "A1,M.,resectable,none")
    columns = LabelColumns(finding_columns={"sma_contact": "liver_mets"})
    assert read_labelled_set(PLAN, path, columns).cases[0].labels.findings == {"sma_contact": "none"}


def test_coded_labels_are_read_from_parquet_whatever_type_the_column_has(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "cases.parquet"
    table = {"id": ["A1", "A2", "A3"], "text": ["M."] * 3, "outcome": [0.0, 1.0, None], "size_cm": [2.0, None, 3.5]}
    pq.write_table(pa.table(table), path)
    labelled = read_labelled_set(PLAN, path, LabelColumns(outcome_names={"0": "resectable", "1": "metastatic"}))
    assert outcomes_of(labelled) == {"A1": "resectable", "A2": "metastatic"}
    assert [dict(case.labels.findings) for case in labelled.cases] == [{"size_cm": 2.0}, {}]


def test_null_in_an_object_of_a_parquet_file_is_no_silence(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "cases.parquet"
    findings = [{"size_cm": None, "liver_mets": "yes"}, {"size_cm": 2.0, "liver_mets": None}]
    table = {"id": ["A1", "A2"], "text": ["M.", "M."], "outcome": ["resectable", "resectable"], "findings": findings}
    pq.write_table(pa.table(table), path)
    assert [dict(case.labels.findings) for case in read_labelled_set(PLAN, path).cases] == [
        {"liver_mets": "yes"},
        {"size_cm": 2.0},
    ]


def test_files_in_another_encoding_are_read_when_it_is_named(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes("id,text,outcome\nA1,Läsion.,überschritten\n".encode("latin-1"))
    columns = LabelColumns(encoding="latin-1", outcome_names={"überschritten": "metastatic"})
    assert outcomes_of(read_labelled_set(PLAN, path, columns)) == {"A1": "metastatic"}
    assert "not utf-8" in refusal(path).lower()
    with pytest.raises(SettingsError):
        read_labelled_set(PLAN, path, LabelColumns(encoding="no-such-encoding"))


@given(st.lists(st.sampled_from([*(o.name for o in PLAN.outcomes), OPEN, ""]), min_size=6, max_size=6))
def test_whatever_was_labelled_comes_back(tmp_path_factory, outcomes):
    path = tmp_path_factory.mktemp("labelled") / "cases.jsonl"
    rows = [
        {"id": report.report_id, "text": report.text, "outcome": outcome or None}
        for report, outcome in zip(small_reports(6), outcomes, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    if not any(outcomes):
        assert "none of 6 rows has an outcome in column 'outcome'" in refusal(path)
        return
    labelled = read_labelled_set(PLAN, path)
    assert [case.labels.outcome for case in labelled.cases] == [outcome for outcome in outcomes if outcome]
    assert labelled.unlabelled == outcomes.count("")


# ------------------------------------------------------------------------------ files of synthetic cases


def test_synthetic_cases_are_read_as_they_are_written(tmp_path):
    findings = [
        {"sma_contact": "none", "liver_mets": "no", "size_cm": 2.0},
        {"sma_contact": "not_stated", "liver_mets": "not_stated", "size_cm": None},
    ]
    cases = [
        labelled_case(PLAN, f, id=f"c{i}", split="held_out", form="free_text", style=f"hand {i}", text="Mass.")
        for i, f in enumerate(findings)
    ]
    (path,) = write_cases(cases, tmp_path)
    labelled = read_labelled_set(PLAN, path, LabelColumns(groups=("style", "form")))
    assert outcomes_of(labelled) == {"c0": "resectable", "c1": OPEN}
    assert [dict(case.labels.findings) for case in labelled.cases] == [case.known() for case in cases]
    assert [dict(case.groups) for case in labelled.cases] == [
        {"style": "hand 0", "form": "free_text"},
        {"style": "hand 1", "form": "free_text"},
    ]
    assert labelled.findings == tuple(finding.name for finding in PLAN.findings)


@pytest.mark.parametrize("topic", ["pancreatic_cancer", "pancreatic_cancer_tnm"])
def test_the_held_out_cases_of_the_library_are_read_with_all_their_labels(topic, tmp_path):
    plan, cases = read_plan(topic), read_cases(topic, "held_out")
    (path,) = write_cases(cases, tmp_path)
    labelled = read_labelled_set(plan, path)
    assert outcomes_of(labelled) == {case.id: case.outcome or OPEN for case in cases}
    assert {one.case_id: dict(one.labels.findings) for one in labelled.cases} == {one.id: one.known() for one in cases}
    assert labelled.unlabelled == 0


def test_reports_of_other_hands_have_outcomes_and_some_findings():
    labelled = read_labelled_set(read_plan("pancreatic_cancer"), OTHER_HANDS)
    lines = [json.loads(line) for line in OTHER_HANDS.read_text(encoding="utf-8").splitlines()]
    assert outcomes_of(labelled) == {line["id"]: line["outcome"] or OPEN for line in lines}
    assert [dict(case.labels.findings) for case in labelled.cases] == [line["findings"] for line in lines]


def test_a_part_of_the_report_that_is_called_findings_is_no_label(write):
    path = write({"id": "A1", "text": "M.", "findings": f"{CANARY} has a mass.", "outcome": "resectable"})
    assert read_labelled_set(PLAN, path).cases[0].labels.findings == {}


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"findings": CANARY}, "column 'findings': 1 rows hold no object: row 2 ('A2')"),
        (
            {"findings": {"liver_metz": "yes", "n": 1}},
            "column 'findings': 1 rows with names that are no findings of plan demo: 'liver_metz', 'n' (row 2 ('A2'))",
        ),
        (
            {"findings": {f"{CANARY} has a mass in the head of the pancreas with.": 1}},
            "names that are no findings of plan demo: 1 (names withheld, they look like data",
        ),
        (
            {"findings": {"liver_mets": None}},
            "column 'findings.liver_mets': 1 cell with 1 label, neither values of liver_mets nor `not_stated` "
            "(row 2 ('A2')); there are: yes, no",
        ),
        ({"findings": {"size_cm": CANARY}}, "a number is wanted, from 0 to 30 (cm)"),
        ({"findings": {"size_cm": True}}, "a number is wanted, from 0 to 30 (cm)"),
        ({"findings": {"size_cm": ""}}, "a number is wanted, from 0 to 30 (cm)"),
        ({"findings": {"size_cm": [2]}}, "a number is wanted, from 0 to 30 (cm)"),
        (
            {"findings": {"liver_mets": "yes"}, "liver_mets": "no"},
            "neither values of liver_mets nor `not_stated`, or other than in column 'liver_mets' (row 2 ('A2'))",
        ),
    ],
)
def test_an_object_of_findings_that_does_not_fit_the_plan_is_refused(write, second, says):
    row = {"text": "M.", "outcome": "resectable"}
    path = write({"id": "A1", **row, "findings": {"size_cm": 2}}, {"id": "A2", **row, **second})
    assert says in refusal(path)


# ------------------------------------------------------------------------------ readers and groups


def test_readers_are_read_like_the_outcome_and_groups_as_they_stand(write):
    path = write(
        "id,text,outcome,Dr A,resident,scanner,age",
        "A1,M.,resectable,resectable,op,3T ,61",
        "A2,M.,open,,open,,62",
    )
    columns = LabelColumns(readers=("Dr A", "resident"), groups=("scanner", "Age"), outcome_names={"op": "resectable"})
    labelled = read_labelled_set(PLAN, path, columns)
    assert [dict(case.readers) for case in labelled.cases] == [
        {"Dr A": "resectable", "resident": "resectable"},
        {"Dr A": None, "resident": OPEN},
    ]
    assert [dict(case.groups) for case in labelled.cases] == [
        {"scanner": "3T", "Age": "61"},
        {"scanner": "missing", "Age": "62"},
    ]
    assert (labelled.readers, labelled.groups) == (("Dr A", "resident"), ("scanner", "Age"))


def test_a_reader_cannot_be_the_truth(write):
    path = write("id,text,outcome", "A1,M.,resectable")
    said = refusal(path, LabelColumns(readers=("outcome",)))
    assert said == "column 'outcome' cannot be both the true outcome and a reader's"


@pytest.mark.parametrize("columns", [LabelColumns(readers=("radiologist",)), LabelColumns(groups=("radiologist",))])
def test_a_reader_or_group_that_is_no_column_is_refused_with_the_columns_there_are(write, columns):
    path = write("id,text,outcome,ward", f"A1,{CANARY},resectable,{CANARY}")
    option = "--reader" if columns.readers else "--group"
    assert refusal(path, columns) == (
        f"no column 'radiologist', which {option} names; the columns are: 'outcome', 'ward'"
    )


def test_text_is_no_group(write):
    path = write(
        "id,text,outcome,history", f"A1,M.,resectable,{CANARY * 10}", 'A2,M.,resectable,"a\nb"', "A3,M.,open,x"
    )
    assert refusal(path, LabelColumns(groups=("history",))) == (
        "column 'history': 2 cells are no groups: lists, several lines or more than 100 characters "
        "(row 1 ('A1'), row 2 ('A2')); name another column with --group"
    )


def test_a_column_with_a_group_for_nearly_every_case_is_read_and_told(write):
    path = write("id,text,outcome,day", *(f"A{i},M.,resectable,{i}" for i in range(60)))
    labelled = read_labelled_set(PLAN, path, LabelColumns(groups=("day",)))
    assert labelled.notes == ("column 'day' makes 60 groups of 60 cases: most are too small to say much",)


# ------------------------------------------------------------------------------ labels in a file of their own


@pytest.fixture
def reports(tmp_path):
    """Three reports in a folder, as a file each."""
    folder = tmp_path / "reports"
    folder.mkdir()
    for name in ("A1", "A2", "A3"):
        (folder / f"{name}.txt").write_text(f"Mass. {CANARY}.", encoding="utf-8")
    return folder


def test_labels_of_another_file_are_joined_by_id_in_the_order_of_the_reports(reports, write):
    labels = write("id,outcome,size_cm,resident,site", "A3,open,2.5,open,N", "A1 ,resectable,,metastatic,S")
    labelled = read_labelled_set(PLAN, reports, LabelColumns(readers=("resident",), groups=("site",)), labels=labels)
    assert outcomes_of(labelled) == {"A1": "resectable", "A3": OPEN}
    assert labelled.cases[0].report.text == f"Mass. {CANARY}."
    assert labelled.cases[0].readers == {"resident": "metastatic"}
    assert labelled.cases[1].groups == {"site": "N"}
    assert labelled.name == "reports with cases.csv"
    assert labelled.unlabelled == 1
    assert f"1 of 3 reports have no row in {labels}" in labelled.notes


def test_the_digest_changes_with_the_labels_and_with_the_reports(reports, write):
    def digest():
        return read_labelled_set(PLAN, reports, labels=labels).digest

    labels = write("id,outcome", "A1,resectable")
    first = digest()
    assert first == digest()
    write("id,outcome", "A1,metastatic")
    second = digest()
    (reports / "A2.txt").write_text("No mass.", encoding="utf-8")
    assert len({first, second, digest()}) == 3


def test_outcomes_and_findings_come_from_the_labels_alone_and_groups_from_the_reports_too(write):
    source = write(
        "id,text,outcome,liver_mets,ward,site", "A1,M.,metastatic,yes,W1,X", "A2,M.,open,no,W2,Y", name="reports.csv"
    )
    labels = write("id,outcome,site", "A1,resectable,N", "A2,,S", name="labels.csv")
    labelled = read_labelled_set(PLAN, source, LabelColumns(groups=("ward", "site")), labels=labels)
    assert outcomes_of(labelled) == {"A1": "resectable"}
    assert labelled.cases[0].labels.findings == {}
    assert labelled.cases[0].groups == {"ward": "W1", "site": "N"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            ["A1,resectable", "A9,resectable", f"{CANARY},open"],
            "2 of 3 rows have an id that no report of {reports} has (column 'id'): row 2 (line 3), row 3 (line 4)",
        ),
        (
            ["A1,resectable", "A2,open", " A1,open"],
            "1 of 3 rows have an id that an earlier row has (column 'id'): row 3 (line 4)",
        ),
        (["A1,resectable", " ,open"], "1 of 2 rows have no id (column 'id'): row 2 (line 3)"),
        (
            [f"A1,{CANARY}"],
            "column 'outcome': 1 cell with 1 label, neither outcomes of plan demo nor `open` (row 1 (line 2)); "
            "there are: resectable, locally_advanced, metastatic. Map labels with --map LABEL=OUTCOME "
            "(LabelColumns.outcome_names in Python)",
        ),
        (["A1,"], "none of 1 rows has an outcome in column 'outcome', nor all findings of plan demo"),
        ([f"A1,resectable,{CANARY}"], "row 1 (line 2): 3 fields, but 2 columns"),
    ],
)
def test_labels_that_cannot_be_joined_or_read_are_counted_and_placed(reports, write, rows, says):
    labels = write("id,outcome", *rows)
    assert refusal(reports, labels=labels).startswith(says.format(reports=reports))


def test_a_labels_file_that_is_empty_missing_or_of_another_kind_is_refused(reports, tmp_path):
    (tmp_path / "labels.csv").write_bytes(b" \n")
    assert refusal(reports, labels=tmp_path / "labels.csv") == "the file is empty"
    assert refusal(reports, labels=tmp_path / "missing.csv") == "cannot be read: No such file or directory"
    assert refusal(reports, labels=tmp_path / "labels.xlsx") == "labels are read from a CSV (.csv) or TSV (.tsv)"


# ------------------------------------------------------------------------------ what is refused


def test_a_file_without_the_outcome_column_is_refused_with_the_columns_there_are(write):
    path = write("id,text,ward,liver_mets", f"A1,{CANARY},{CANARY},yes")
    assert refusal(path).startswith("no column 'outcome' with the outcomes; the columns are: 'ward', 'liver_mets'. ")
    assert "--outcome-column (LabelColumns.outcome in Python)" in refusal(path)
    complete = write("id,text,sma_contact,liver_mets,size_cm", "A1,M.,none,no,2")
    assert refusal(complete, LabelColumns(outcome="board")).startswith("no column 'board' with the outcomes; ")


def test_a_folder_of_texts_alone_has_no_labels(reports):
    assert refusal(reports).startswith("no column 'outcome' with the outcomes; it has no columns beside id and text.")


def test_two_columns_that_could_be_meant_are_not_chosen_from(write):
    path = write("id,text,Outcome,OUTCOME", "A1,M.,resectable,open")
    assert refusal(path) == "'Outcome', 'OUTCOME' all look like column 'outcome'; write it as it stands there"


def test_unknown_labels_are_counted_and_placed_and_the_nearest_outcomes_are_named(write):
    path = write(
        "id,text,outcome",
        "A1,M.,Locally advanced",
        "A2,M.,resectable",
        "A3,M.,Locally advanced",
        *(f"B{i},M.,{CANARY} {i}" for i in range(5)),
    )
    said = refusal(path)
    assert said.startswith(
        "column 'outcome': 7 cells with 6 labels, neither outcomes of plan demo nor `open` (row 1 ('A1'), "
        "row 3 ('A3'), row 4 ('B0'), row 5 ('B1'), row 6 ('B2') and 2 more); nearest: locally_advanced. Map labels "
    )
    assert "Locally advanced" not in said


def test_unknown_labels_of_all_columns_are_told_at_once_up_to_three_of_them(write):
    path = write(
        "id,text,outcome,reader,sma_contact,size_cm,liver_mets",
        f"A1,M.,{CANARY},{CANARY},180,{CANARY},YES",
        f"A2,M.,resectable,,<=180,31,yes {CANARY}",
    )
    said = refusal(path, LabelColumns(readers=("reader",)))
    assert "column 'sma_contact': 1 cell with 1 label, neither values of sma_contact nor `not_stated`" in said
    assert "column 'liver_mets': 2 cells with 2 labels, neither values" in said
    assert "column 'size_cm': 2 cells with 2 labels" in said
    assert said.endswith("; and 2 more columns with unknown labels")


def test_the_labels_of_a_reader_are_checked_too(write):
    path = write("id,text,outcome,reader", f"A1,M.,resectable,{CANARY}")
    said = refusal(path, LabelColumns(readers=("reader",)))
    assert said.startswith("column 'reader': 1 cell with 1 label, neither outcomes of plan demo nor `open`")


def test_ids_that_are_there_twice_and_rows_without_id_are_refused(write):
    path = write("id,text,outcome", "A1,M.,resectable", "A1,M.,open")
    assert "1 id stands for more than one report (1 reports too many): 'A1'" in refusal(path)
    assert "1 row without an id" in refusal(write("id,text,outcome", ",M.,resectable"))


def test_a_file_without_rows_or_without_labels_is_refused(write):
    assert "no reports behind it" in refusal(write("id,text,outcome"))
    assert refusal(write(" ")) == "the file is empty"
    path = write("id,text,outcome", "A1,M.,", "A2,M.,")
    assert refusal(path) == "none of 2 rows has an outcome in column 'outcome', nor all findings of plan demo"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            LabelColumns(outcome_names={CANARY: "resectible"}),
            "outcome names: 'resectible': no outcome of plan demo, nor `open`; nearest: resectable",
        ),
        (
            LabelColumns(finding_columns={"liver_metz": "ward"}),
            "finding columns: 'liver_metz': no findings of plan demo; nearest: liver_mets",
        ),
        (
            LabelColumns(finding_columns={"liver_mets": "liver"}),
            "no column 'liver' for finding liver_mets; the columns are: 'outcome', 'ward'",
        ),
    ],
)
def test_names_that_are_mapped_to_nothing_are_refused(write, columns, says):
    assert refusal(write("id,text,outcome,ward", "A1,M.,resectable,W1"), columns) == says


def test_a_labelled_set_prints_without_text_and_without_labels(write):
    labelled = read_labelled_set(PLAN, write("id,text,outcome", f"A1,{CANARY},resectable", "A2,M.,"))
    assert repr(labelled) == "LabelledSet('cases.csv', 1 cases, 1 unlabelled)"
    assert CANARY not in repr(labelled.cases)
