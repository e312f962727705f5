"""`benchmarks/speed/where_time_goes.py`: which part a sample counts for."""

from __future__ import annotations

import where_time_goes as script

ENGINE = "medorchestra/local/engine/"
FRAMES = [
    ("Stager.stage_one", "medorchestra/local/staging.py"),
    ("LlamaReader.look_along", f"{ENGINE}llama_reader.py"),
    ("LlamaReader._compute", f"{ENGINE}llama_reader.py"),
    ("LlamaReader.read", f"{ENGINE}llama_reader.py"),
    ("_descend", f"{ENGINE}label_trie.py"),
    ("has_term", "medorchestra/local/sentences.py"),
    ("Pattern.search", "<built-in>"),
    ("decide", "medorchestra/local/aggregator.py"),
    ("evaluate", "medorchestra/rules.py"),
    ("Ledger.add", "medorchestra/local/ledger.py"),
]
STACKS = {
    (0, 1, 2): script.ASKING,
    (0, 3, 2): script.READING,
    (0, 1, 4): "the engine around it: tokens, trees, logits",
    (0, 5, 6): "quotes for the answers",
    (0, 7, 8): "decision: rules, probabilities, flags",
    (0, 9): "ledger",
    (0,): script.REST,
}


def test_every_sample_counts_once_for_the_innermost_function_that_a_part_claims() -> None:
    profile = {
        "shared": {"frames": [{"name": name, "file": file, "line": 1} for name, file in FRAMES]},
        "profiles": [{"samples": [list(stack) for stack in STACKS], "weights": [2.0**n for n in range(len(STACKS))]}],
    }
    found = script.seconds_by_part(profile)
    assert set(found) == set(script.ORDER)
    assert {part: seconds for part, seconds in found.items() if seconds} == {
        part: 2.0**n for n, part in enumerate(STACKS.values())
    }


def test_the_table_tells_shares_milliseconds_and_what_a_token_costs() -> None:
    seconds = dict.fromkeys(script.ORDER, 0.0) | {script.READING: 3.0, script.ASKING: 1.0}
    about = {
        "measured": "2026-11-25T00:00:00",
        "command": "c",
        "model": "m",
        "threads": 2,
        "context": "full",
        "subtasks": 24,
    }
    about |= {"processor": "p", "cores": "2", "reports": 4, "tokens": {"report": 1000, "computed": 1500}}
    text = "\n".join(script.table_lines(about | {"seconds": seconds}))
    assert f"| {script.READING} | 75.0 % | 750.0 |" in text
    assert "250 of the text, 125 of chat markup" in text
    assert "3.00 ms for a token of the text, and 2.00 ms" in text
