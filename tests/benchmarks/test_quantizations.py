"""`benchmarks/speed/quantizations.py`: the files that it makes, and what it makes of the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import quantization_row as row_module
import quantization_table as tables

import medorchestra as mo
from medorchestra.errors import ModelError
from medorchestra.local.engine.adapter_fit import BASE_DIGEST
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.local.engine.model_files import find_model

ADAPTER = Path(__file__).parents[2] / "guidelines" / "pancreatic_cancer" / "adapters" / "SmolLM2-135M-Instruct.gguf"


def cases(right: dict[str, list[str]], **answers: dict[str, str]) -> dict[str, Any]:
    """What a row read in some cases."""
    return {"answers": answers, "right": right, "outcomes": {"C-1": "resectable"}, "outcomes_right": ["C-1"]}


def row(seconds: list[float], read: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row that was measured."""
    rounds = [{"tokens": 600, "seconds": one, "whole": 2 * one} for one in seconds]
    found = {"rounds": rounds, "file_mb": 98.0, "peak_mb": 262.0, "weights": {"Q4_1": 0.8, "Q8_0": 0.2}}
    return found | ({} if read is None else {"cases": read})


def test_an_adapter_is_copied_for_another_base_with_nothing_changed_but_the_base_it_names(tmp_path: Path) -> None:
    base = tmp_path / "base.Q8_0.gguf"
    base.write_bytes(b"the same weights, rounded otherwise")

    copy = row_module.adapter_naming(ADAPTER, base, tmp_path)

    before, after = read_gguf_header(ADAPTER), read_gguf_header(copy)
    assert after.text(BASE_DIGEST) == file_digest(base) != before.text(BASE_DIGEST)
    assert after.tensors == before.tensors
    changed = sum(a != b for a, b in zip(ADAPTER.read_bytes(), copy.read_bytes(), strict=True))
    assert 0 < changed <= len(file_digest(base))


def test_an_adapter_that_says_its_base_twice_is_not_copied(tmp_path: Path) -> None:
    twice = tmp_path / "adapter.gguf"
    twice.write_bytes(ADAPTER.read_bytes() + read_gguf_header(ADAPTER).text(BASE_DIGEST).encode())

    with pytest.raises(ValueError, match="more than once"):
        row_module.adapter_naming(twice, ADAPTER, tmp_path)


def test_held_out_cases_are_refused_before_a_model_is_asked() -> None:
    with pytest.raises(ValueError, match="never made on held-out cases"):
        row_module.read_cases("pancreatic_cancer", "held_out", ["C-1"])


def test_ratios_are_those_of_the_same_round() -> None:
    assert tables.ratios(row([1.0, 5.0]), row([2.0, 10.0]), "seconds") == [2.0, 2.0]
    assert tables.rates(row([1.0, 5.0])) == [600.0, 120.0]


def test_an_answer_that_differs_is_counted_and_so_is_whether_it_was_gained_or_lost() -> None:
    reference = cases({"C-1": ["liver_mets"]}, **{"C-1": {"liver_mets": "absent", "sma_contact": "none"}})
    other = cases({"C-1": ["sma_contact"]}, **{"C-1": {"liver_mets": "present", "sma_contact": "<=180"}})
    wrong = cases({"C-1": ["liver_mets"]}, **{"C-1": {"liver_mets": "absent", "sma_contact": ">180"}})

    assert tables.changed(other, reference) == {"asked": 2, "other": 2, "gained": 1, "lost": 1}
    assert tables.changed(wrong, reference) == {"asked": 2, "other": 1, "gained": 0, "lost": 0}


def test_the_fastest_row_that_reads_worse_is_not_the_one_to_take() -> None:
    good = cases({"C-1": ["liver_mets"]}, **{"C-1": {"liver_mets": "absent"}})
    bad = cases({"C-1": []}, **{"C-1": {"liver_mets": "present"}})
    rows = {
        "default": row([4.0], good),
        "default-bare": row([3.0]),
        "Q4_0": row([1.0], bad),
        "Q8_0": row([2.0], good),
    }
    about = {"measured": "2026-11-25", "command": "x", "reports": [600], "harmless_tokens": [0], "repeats": 1}
    about |= {"model": "m.gguf", "adapter": "a.gguf", "threads": 2, "processor": "p", "cores": "2"}

    text = "\n".join(tables.table_lines(rows, about | {"llama_cpp": {"version": "0", "system": "AVX2 = 1"}}))

    assert "Fastest for whole reports: Q4_0, 4.00 times the default." in text
    assert "Fastest of those that lose no more readings than they gain: Q8_0, 2.00 times." in text
    assert "default, without adapter | Q4_1 80 %, Q8_0 20 % | 98 | 262 | 200 (200–200) | 1.33 (1.33–1.33) |  |" in text


@pytest.mark.model
def test_the_default_model_in_q8_0_is_read_with_a_copy_of_the_adapter_and_refuses_the_adapter_itself(
    tmp_path: Path,
) -> None:
    model = row_module.quantize(find_model("default"), "Q8_0", tmp_path, threads=2)
    with pytest.raises(ModelError, match="trained on another base"):
        mo.LlamaCppEngine(model, adapter=ADAPTER, context_tokens=256)
    adapter = row_module.adapter_naming(ADAPTER, model, tmp_path)

    opened = row_module.Row(row_module.RowSettings("Q8_0", str(model), str(adapter), 2, 256, "pancreatic_cancer"))
    tokens, seconds = opened.prefill("CT of the abdomen. No liver metastases.")
    opened.engine.close()

    assert list(row_module.weight_types(model)) == ["Q8_0", "F32"]
    assert tokens > 5
    assert seconds > 0
    with pytest.raises(SystemExit, match="no type of weights 'Q9_9'"):
        row_module.quantize(find_model("default"), "Q9_9", tmp_path, threads=2)
