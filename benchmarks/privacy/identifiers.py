"""Measures the identifier scan: what it finds in queries that hold identifiers, and what it takes for one.

    python benchmarks/privacy/identifiers.py [DATASET] [--half development] [--misses]
    python benchmarks/privacy/identifiers.py --presidio blank      # needs presidio-analyzer
    python benchmarks/privacy/identifiers.py --names               # needs faker

Queries: `tests/data/phi_queries` (SOURCE.md says whose). Halves: the last hexadecimal digit of the query's SHA-256,
even for development, odd for held_out; the first eight queries of the file were read before the split and count as
development. False alarms are also counted on the synthetic cases of every topic. Intervals: 95 % Wilson.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from medorchestra.cloud.egress.identifiers import IdentifierKind, find_identifiers
from medorchestra.intervals import wilson_interval
from medorchestra.synthetic import read_cases
from medorchestra.topics import topics

DATASET = Path(__file__).parents[2] / "tests" / "data" / "phi_queries" / "synthetic_dataset.txt"
SEEN_BEFORE_THE_SPLIT = 8

Spans = list[tuple[int, int, str]]
Finder = Callable[[str], Spans]

# Where names stand in reports: with something beside them that says so, and at last with nothing.
CARRIERS = {
    "label": "Patient: {first} {last}\nCT pancreas, portal venous phase.",
    "label in capitals": "PATIENT NAME: {FIRST} {LAST}  CT ABDOMEN",
    "title": "Findings were telephoned to Dr {last} at 14:20.",
    "spoken to": "Discussed with {first} {last} at 14:20.",
    "before an age": "{first} {last}, 64-year-old female with jaundice.",
    "after an age": "64-year-old man, {first} {last}, presents with weight loss.",
    "signature": "Electronically signed by: {first} {last}",
    "degree": "Finalised {first} {last}, MD on the ward.",
    "nothing": "CT shows that {first} {last} has a mass in the head.",
}
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE", "pt_BR", "en_IN")


@dataclass(frozen=True)
class Query:
    """A query and the identifiers tagged in it: kind and value."""

    text: str
    tags: tuple[tuple[str, str], ...]
    half: str


def read_queries(path: Path) -> list[Query]:
    """All queries of the data set, each with its half."""
    queries = []
    for number, block in enumerate(path.read_text(encoding="utf-8").split("===QUERY===")[1:]):
        text, _, lines = block.partition("===PHI_TAGS===")
        tags = [json.loads(line) for line in lines.splitlines() if line.strip()]
        even = int(hashlib.sha256(text.strip().encode()).hexdigest()[-1], 16) % 2 == 0
        half = "development" if even or number < SEEN_BEFORE_THE_SPLIT else "held_out"
        queries.append(Query(text.strip(), tuple((tag["identifier_type"], tag["value"]) for tag in tags), half))
    return queries


def own(text: str) -> Spans:
    return [(found.start, found.end, found.kind.value) for found in find_identifiers(text)]


def presidio(model: str) -> Finder:
    """Presidio's analyzer; `blank` for an English pipeline without a model, so that only its patterns work."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    if model == "blank":
        model = "/tmp/blank_en"
        spacy.blank("en").to_disk(model)
    models = [{"lang_code": "en", "model_name": model}]
    nlp = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=nlp)
    analyzer = AnalyzerEngine(nlp_engine=nlp, registry=registry, supported_languages=["en"])
    # Organisations and countries identify nobody in this setting; with them it would raise an alarm at every turn.
    left_out = {"ORGANIZATION", "NRP"}
    return lambda text: [
        (found.start, found.end, found.entity_type)
        for found in analyzer.analyze(text, language="en")
        if found.entity_type not in left_out
    ]


def share(correct: int, n: int) -> str:
    interval = wilson_interval(correct, n)
    if interval is None:
        return "–"
    return f"{correct}/{n} = {100 * correct / n:.1f} % ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"


def measure_queries(queries: Iterable[Query], find: Finder, *, misses: bool) -> None:
    found_queries, with_tags, alarms, without = 0, 0, 0, 0
    elements: Counter[str] = Counter()
    found_elements: Counter[str] = Counter()
    for query in queries:
        spans = find(query.text)
        if not query.tags:
            without += 1
            alarms += bool(spans)
            if spans and misses:
                print("false alarm:", [(kind, query.text[start:end]) for start, end, kind in spans])
            continue
        with_tags += 1
        found_queries += bool(spans)
        for kind, value in query.tags:
            at = query.text.find(value)
            hit = at >= 0 and any(start < at + len(value) and end > at for start, end, _ in spans)
            elements[kind] += 1
            found_elements[kind] += hit
            if not hit and misses:
                print("missed:", kind, value)
    print(f"| queries with identifiers that raise an alarm | {share(found_queries, with_tags)} |")
    print(f"| hard negatives that raise one | {share(alarms, without)} |")
    for kind, n in elements.most_common():
        print(f"| element {kind} | {share(found_elements[kind], n)} |")
    print(f"| all elements | {share(found_elements.total(), elements.total())} |")


def measure_cases(find: Finder) -> None:
    for topic in topics():
        counts: Counter[str] = Counter()
        alarms: Counter[str] = Counter()
        for case in read_cases(topic):
            counts[case.split] += 1
            spans = find(case.text)
            alarms[case.split] += bool(spans)
            if spans:
                print(f"alarm on case {case.id}: {sorted({kind for _, _, kind in spans})}")
        for split, n in counts.items():
            print(f"| false alarms, {topic}, {split} | {share(alarms[split], n)} |")


def measure_names(find: Finder, per_locale: int = 200) -> None:
    """Recall on made-up names of ten countries, by what stands beside them; the lists hold American names only."""
    from faker import Faker

    for locale in LOCALES:
        fake = Faker(locale)
        fake.seed_instance(3)
        hits: Counter[str] = Counter()
        for _ in range(per_locale):
            first, last = fake.first_name(), fake.last_name()
            parts = {"first": first, "last": last, "FIRST": first.upper(), "LAST": last.upper()}
            for carrier, template in CARRIERS.items():
                spans = find(template.format(**parts))
                hits[carrier] += any(kind in (IdentifierKind.NAME.value, "PERSON") for _, _, kind in spans)
        shares = " | ".join(f"{100 * hits[carrier] / per_locale:.0f}" for carrier in CARRIERS)
        print(f"| {locale} | {shares} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?", default=DATASET)
    parser.add_argument("--half", choices=["development", "held_out"], default="development")
    parser.add_argument("--presidio", metavar="MODEL", help="measure Presidio with this spaCy model, or 'blank'")
    parser.add_argument("--names", action="store_true", help="recall on made-up names, by what stands beside them")
    parser.add_argument("--misses", action="store_true", help="print what was missed (development half only)")
    options = parser.parse_args()
    find = presidio(options.presidio) if options.presidio else own
    if options.names:
        print(f"| locale | {' | '.join(CARRIERS)} |")
        measure_names(find)
        return
    queries = [query for query in read_queries(options.dataset) if query.half == options.half]
    print(f"{options.half}: {len(queries)} queries")
    start = time.perf_counter()
    measure_queries(queries, find, misses=options.misses and options.half == "development")
    print(f"{time.perf_counter() - start:.2f} s for {sum(len(query.text) for query in queries)} characters")
    measure_cases(find)


if __name__ == "__main__":
    main()
