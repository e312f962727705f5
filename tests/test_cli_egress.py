"""`egress verify` and `egress check`: exit codes, counts, and never a word of a report."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from medorchestra.cli_egress import egress_app
from medorchestra.cloud.egress.log import EgressLog
from medorchestra.cloud.outgoing import Piece, PieceKind

PASTED = "ill-defined mass in the uncinate process abutting the superior mesenteric artery over ninety degrees"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "egress.jsonl"
    with EgressLog.open(path) as opened:
        opened.record_request(
            step="s",
            endpoint="https://x",
            model="m",
            request_digest="sha256:1",
            pieces=[Piece(PieceKind.PLAN, "p", PASTED)],
        )
    return path


def run(*arguments):
    return CliRunner().invoke(egress_app, [str(argument) for argument in arguments])


def reports(tmp_path, *texts):
    path = tmp_path / "reports.csv"
    rows = "".join(f'R{number},"{text}"\n' for number, text in enumerate(texts, start=1))
    path.write_text(f"report_id,text\n{rows}")
    return path


def test_verify_says_whole_and_gives_the_head(log):
    result = run("verify", log)
    assert result.exit_code == 0
    assert "whole: 2 entries, 1 requests, 0 replies, 1 without a word on their reply" in result.output
    head = result.output.split("head: ")[1].strip()
    assert run("verify", log, "--head", head).exit_code == 0
    assert run("verify", log, "--head", "sha256:0").exit_code == 1


def test_verify_names_the_changed_line(log):
    log.write_bytes(log.read_bytes().replace(b"uncinate", b"oncinate"))
    result = run("verify", log)
    assert result.exit_code == 1
    assert "problem: line 2: is no entry, or was changed" in result.output
    assert "NOT WHOLE" in result.output
    assert "oncinate" not in result.output


def test_verify_explains_a_half_written_line(log):
    log.write_bytes(log.read_bytes()[:-20])
    result = run("verify", log)
    assert result.exit_code == 0
    assert "half written" in result.output


def test_check_shows_ids_and_counts_of_what_is_shared(log, tmp_path):
    result = run("check", log, "--against", reports(tmp_path, "Normal study.", f"Today {PASTED} seen."))
    assert result.exit_code == 1
    assert "sharing a sequence: 1" in result.output
    assert "R2\t15\t8\tplan\t1" in result.output
    assert "uncinate" not in result.output


def test_check_finds_nothing_where_nothing_left(log, tmp_path):
    result = run(
        "check", log, "--against", reports(tmp_path, "Normal pancreas and normal vessels in all phases today.")
    )
    assert result.exit_code == 0
    assert "sharing a sequence: 0" in result.output


def test_check_leaves_known_phrases_out(log, tmp_path):
    known = tmp_path / "known.txt"
    known.write_text(f"\n{PASTED}\n")
    source = reports(tmp_path, f"Today {PASTED} seen.")
    assert run("check", log, "--against", source, "--known", known).exit_code == 0
