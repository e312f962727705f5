"""Finds names of persons in text, by what stands around them and by lists of names. Knows no other identifier.

A word list alone would take 'Douglas pouch' and 'Wilson disease' for people; a context alone misses 'John Smith was
seen'. So a name counts where a title, a label, an age, a degree or a signature stands beside it, or where a given name
of the list is followed by a family name or an initial. It is a net against the accidental paste of a real report, not
a proof that a text holds no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

Span = tuple[int, int]

_LONGEST_NAME = 5
"""Words of the longest name that is followed: 'Maria de la Cruz Garcia'."""

_WORD = re.compile(r"[^\W\d_]+(?:(?:'(?!s\b)|-)[^\W\d_]+)*")
_GAP = re.compile(r"\.? |, (?=(?:Jr|Sr)\b)")

_TITLE = re.compile(
    r"\b(?:Dr|Drs|Mr|Mrs|Ms|Mx|Miss|Prof|Professor|Doctor|Sir|Dame|Herr|Frau|Mme|Mlle|Monsieur|Madame|Sra|Srta|Dra|"
    r"Sig|Signora|Dott|Pan|Pani|Mevr|Dhr)\b\.? {1,2}|\b(?:DR|MR|MRS|MS|PROF)\. {1,2}|\bSr\. (?=[A-Z][a-z]+ [A-Z])"
)
_TITLE_WITHOUT_CASE = re.compile(r"\b(?:DR|MR|MRS|MS|PROF|dr|mr|mrs|prof)\.? (?=[^\W\d_]{3})")
"""'MR' and 'DR' are also ways of imaging, so that only a family name of the list counts after them."""

_LABEL = re.compile(
    r"\b(?:patient'?s? name|pt'?s? name|name of (?:the )?patient|full name|patient|paciente|nom du patient|"
    r"name des patienten|surname|forenames?|first name|last name|family name|given name|maiden name|next of kin|"
    r"(?:reporting |attending |referring |interpreting |consultant |staff )?(?:radiologist|physician|clinician|doctor|"
    r"surgeon|consultant|registrar|oncologist|provider|practitioner)|attending|gp|"
    r"(?:electronically |digitally )?(?:reported|dictated|signed|transcribed|verified|approved|authori[sz]ed|"
    r"finali[sz]ed|interpreted|reviewed|read|typed|requested|referred|validated) by|signed|signature)"
    r"[ \t]{0,3}[:=][ \t]{0,3}",
    re.IGNORECASE,
)
_NAME_LABEL = re.compile(
    r"\b(?:patient'?s? name|pt'?s? name|name of (?:the )?patient|full name|surname|forenames?|next of kin)"
    r"(?: is|[ \t]{0,3}[:=])[ \t]{1,3}",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"\b(?:named|by the name of|name is|[Pp]atients? (?:like|such as)|[Pp]atient,?|pts?,?|similar to|a case like|"
    r"(?:[Ss]een|[Rr]eported|[Rr]eviewed|[Dd]ictated|[Ss]igned|[Vv]erified|[Rr]eferred|[Pp]erformed|[Rr]equested) by|"
    r"[Dd]iscussed with|[Cc]ommunicated to|[Tt]elephoned to|(?:notes|records?|scans?|chart|report) (?:of|for)) "
)
_AGE_BEFORE = re.compile(
    r"\b\d{1,3}(?:[- ]?(?:years?|yrs?|months?|weeks?|days?)[- ]old|[- ]?y/?o\b|[- ]?yrs?\b|[- ]?[MF]\b)"
    r"[^.;:\n]{0,90}?, "
)
_AGE_AFTER = re.compile(
    r",? \(?(?:an? |age[d:]? |who is )?\d{1,3}(?:[- ]?(?:years?|yrs?|months?)[- ]old|[- ]?y/?o\b| ?[MF]\b)|"
    r",? \(?age[d:]? \d{1,3}\b|,? \(?(?:DOB|born|geb\.)"
)
_DEGREE = re.compile(
    r",? (?:MD(?! ?Anderson)|M\.D\.|D\.O\.|FRCR|FRCP|FRCS|MRCP(?=,| \()|MBBS|MBChB|MBBCh|FRANZCR|FACR|FRCPC|Ph\.?D|"
    r"RN|PA-C|NP-C)\b"
)
_RECORD_NOUN = re.compile(
    r"'s (?:notes?|charts?|records?|reports?|scans?|results?|e-?mail|mother|father|wife|husband|son|daughter|"
    r"condition|appointment|family|case)\b"
)
_INITIAL_AND_FAMILY = re.compile(r"\b(?:[A-Z]\. ?){1,3}(?=[A-Z][^\W\d_])")
_CARET = re.compile(r"\b[^\W\d_][^\W\d_'-]+\^[^\W\d_][^\W\d_'-]+(?:\^[^\W\d_]*)?")
_CJK = re.compile(
    r"(?:姓名|患者氏名|患者名|氏名|病人|환자명|성명|환자)[ \t]?[::][ \t]?[\u3400-\u9fff\uac00-\ud7a3]{2,4}"
)


@lru_cache(maxsize=8)
def word_list(name: str) -> frozenset[str]:
    """One of the lists in `word_lists/`: words in lower case; lines with # are comments."""
    text = (files("medorchestra.cloud.egress") / "word_lists" / f"{name}.txt").read_text(encoding="ascii")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def find_person_names(text: str) -> Iterator[Span]:
    """Spans of names of persons, in no order; they may overlap.

    Args:
        text: with plain hyphens, apostrophes and spaces (see `identifiers.plain`).
    """
    yield from _after_cues(text)
    yield from _before_cues(text)
    yield from _by_list(text)
    for pattern in (_CARET, _CJK):
        yield from (match.span() for match in pattern.finditer(text))


def _after_cues(text: str) -> Iterator[Span]:
    for match in _TITLE.finditer(text):
        words = _run(text, match.end(), eponyms_too=True)
        if words:
            yield match.start(), words[-1].end()
    for match in _TITLE_WITHOUT_CASE.finditer(text):
        family = _WORD.match(text, match.end())
        if family and _is_family(family.group()):
            yield match.start(), family.end()
    for match in _LABEL.finditer(text):
        words = _run(text, match.end(), eponyms_too=True)
        if _is_full_name(words) or (len(words) == 1 and _is_listed(words[0].group())):
            yield words[0].start(), words[-1].end()
    for match in _NAME_LABEL.finditer(text):
        # Whatever stands after 'patient name:' is one, in small letters too.
        words = _run(text, match.end(), eponyms_too=True, any_case=True)
        if words:
            yield words[0].start(), words[-1].end()
    for pattern in (_CUE, _AGE_BEFORE):
        for match in pattern.finditer(text):
            words = _run(text, match.end())
            if _is_full_name(words) and _shape_of_name(text, words):
                yield words[0].start(), words[-1].end()


def _before_cues(text: str) -> Iterator[Span]:
    for match in _WORD.finditer(text):
        word = match.group()
        if not _is_capitalised(word) or _is_no_name(word):
            continue
        if _RECORD_NOUN.match(text, match.end()) and _is_given(word):
            yield match.span()
        words = _run(text, match.start())
        if not words:
            continue
        end = _after_initial(text, words[-1].end())
        cue = _AGE_AFTER.match(text, end) or _DEGREE.match(text, end)
        if cue and (len(words) > 1 or (_DEGREE.match(text, end) and _is_family(word))):
            yield match.start(), words[-1].end()


def _by_list(text: str) -> Iterator[Span]:
    words = list(_WORD.finditer(text))
    for first, second in pairwise(words):
        between = text[first.end() : second.start()]
        one, two = first.group(), second.group()
        # The nodule of Sister Mary Joseph Dempsey bears her name.
        side_by_side = between == " " and not text.startswith("Sister ", max(0, first.start() - 7))
        if (side_by_side and _names_a_person(text, first, second)) or (
            between == ", " and _is_family_before_given(one, two)
        ):
            yield first.start(), second.end()
    for match in _INITIAL_AND_FAMILY.finditer(text):
        family = _WORD.match(text, match.end())
        if family and _is_capitalised(family.group()) and _is_family(family.group()):
            yield match.start(), family.end()


def _is_family_before_given(one: str, two: str) -> bool:
    """'Smith, John' and 'SMITH, JOHN'; two given names in a list of them ('Ann, John') are not one."""
    capital = one[0].isupper() and two[0].isupper() and one.isupper() == two.isupper()
    return capital and _is_family(one) and not _is_given(one) and _is_given(two)


def _names_a_person(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    one, two = first.group(), second.group()
    listed = one.lower() in word_list("given_names") and not _is_no_name(one)
    if not listed or not one[0].isupper() or not two[0].isupper():
        return False
    if _is_initial(two):
        # 'Anna S.' and 'Anna S, 54': an initial needs a sign that it ends there; 'Bella B cells' has none.
        return _is_given(one) and text[second.end() : second.end() + 1] in {".", ",", ")", "?", ";", "'"}
    if one.isupper() != two.isupper():
        return False
    if one.isupper() or not _is_given(one):
        return _is_family(two) and (not one.isupper() or _is_given(one))
    return not _is_no_name(two) and len(two) > 1


def _run(text: str, start: int, *, eponyms_too: bool = False, any_case: bool = False) -> list[re.Match[str]]:
    """The words from here that can be one name: capitalised words, initials, particles between them."""
    words: list[re.Match[str]] = []
    position = start
    while len(words) < _LONGEST_NAME:
        match = _WORD.match(text, position)
        if match is None:
            break
        word = match.group()
        particle = word.lower() in word_list("particles") and not (words and word.isupper())
        fits = particle or _is_initial(word) or _is_capitalised(word) or word.isupper() or any_case
        if not fits or (not particle and _is_no_name(word, eponyms_too=eponyms_too)):
            break
        words.append(match)
        gap = _GAP.match(text, match.end())
        # A full stop ends the name unless it stands after an initial.
        if gap is None or (gap.group().startswith(".") and not _is_initial(word)):
            break
        position = gap.end()
    while words and words[-1].group() in word_list("particles"):
        words.pop()
    return words


def _shape_of_name(text: str, words: list[re.Match[str]]) -> bool:
    """After a weak cue: words like 'Maria Lopez' or 'Maria L.', none of them an abbreviation in capitals."""
    long = [match for match in words if not _is_initial(match.group())]
    if not long or any(match.group().isupper() for match in long):
        return False
    last = words[-1]
    return not _is_initial(last.group()) or text[last.end() : last.end() + 1] in {".", ",", ")", "?", ";", "'"}


def _is_full_name(words: list[re.Match[str]]) -> bool:
    return len(words) > 1 and any(len(match.group()) > 1 for match in words)


def _after_initial(text: str, end: int) -> int:
    return end + 1 if text[end : end + 1] == "." and text[end - 2 : end - 1] == " " else end


def _is_initial(word: str) -> bool:
    return len(word) == 1 and word.isupper()


def _is_capitalised(word: str) -> bool:
    return len(word) > 1 and word[0].isupper() and not word.isupper()


def _is_no_name(word: str, *, eponyms_too: bool = False) -> bool:
    lower = word.lower()
    parts = {lower, *lower.split("-")}
    return bool(parts & word_list("not_names")) or (not eponyms_too and bool(parts & word_list("eponyms")))


def _is_given(word: str) -> bool:
    lower = word.lower()
    return lower in word_list("given_names") and lower not in word_list("doubtful_names") and not _is_no_name(word)


def _is_family(word: str) -> bool:
    return word.lower() in word_list("family_names") and not _is_no_name(word)


def _is_listed(word: str) -> bool:
    return _is_given(word) or _is_family(word)
