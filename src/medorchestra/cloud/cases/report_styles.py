"""The styles in which synthetic reports are asked for, as data: who writes so, and how. Asks nothing of anybody.

Styles say how a report is written, never what it says, so that they fit every plan. Some are kept for held-out cases:
a plan that was fitted to the other styles is then measured on ways of writing that nothing of it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from medorchestra.synthetic import Form


@dataclass(frozen=True, slots=True)
class ReportStyle:
    """A way of writing reports.

    Attributes:
        name: stands in the case as its `style`.
        form: free text, or a template with fields.
        asks: what the writer is told.
        words: fewest and most words of such a report.
        held_out_only: whether only held-out cases are written so.
    """

    name: str
    form: Form
    asks: str
    words: tuple[int, int] = (80, 260)
    held_out_only: bool = False


def _free(name: str, asks: str, *, words: tuple[int, int] = (80, 260), held_out_only: bool = False) -> ReportStyle:
    return ReportStyle(name, "free_text", asks, words, held_out_only)


def _structured(
    name: str, asks: str, *, words: tuple[int, int] = (80, 260), held_out_only: bool = False
) -> ReportStyle:
    return ReportStyle(name, "structured", asks, words, held_out_only)


REPORT_STYLES: tuple[ReportStyle, ...] = (
    _free(
        "terse US telegraphic",
        "United States, telegraphic: sentence fragments, common abbreviations, no articles, short impression",
        words=(60, 140),
    ),
    _free(
        "US academic prose",
        "United States teaching hospital: full sentences under FINDINGS by organ, a numbered IMPRESSION",
        words=(140, 300),
    ),
    _free(
        "UK consultant prose",
        "United Kingdom: flowing British prose and spelling, measures in millimetres, one closing opinion",
        words=(100, 240),
    ),
    _free(
        "Asian hospital English",
        "English as written in a busy Asian hospital: short numbered statements, some articles missing, terms "
        "precise, a dash before every line",
        words=(80, 200),
    ),
    _free(
        "Indian hospital English",
        "English as written in India: 'is seen', 'are noted', 'measuring approx.', IMPRESSION in full sentences",
        words=(100, 240),
    ),
    _free(
        "dictation with recognition errors",
        "dictated and not corrected: a few misheard or missing small words, run-on sentences, spoken punctuation left "
        "in now and then; every fact stays certain",
        words=(100, 240),
    ),
    _free(
        "follow-up with comparison",
        "a follow-up that compares throughout with an earlier examination (no date, at most month and year); earlier "
        "values stand beside today's",
        words=(120, 280),
    ),
    _free(
        "upper case",
        "everything in capital letters, as from an old terminal; short sentences",
        words=(70, 180),
    ),
    _free(
        "resident long form",
        "a careful beginner: long, complete, also normal organs that nobody asked about, hedged where nothing depends "
        "on it",
        words=(180, 300),
    ),
    _free(
        "translated from German",
        "translated from German word for word: nominal style, decimal commas, 'no indication of', a closing assessment",
        words=(90, 220),
    ),
    _free(
        "translated from Spanish",
        "translated from Spanish: long sentences joined by commas, 'it is observed', decimal commas, a conclusion",
        words=(90, 220),
    ),
    _free(
        "impression first",
        "begins with the conclusion; the findings follow below in the order of importance, not of anatomy",
        words=(90, 220),
    ),
    _free(
        "MRI narrative",
        "an MRI report with sequences and signal, unless a stated finding speaks of another examination",
        words=(110, 260),
    ),
    _free(
        "tumour board letter",
        "a summary for the tumour board in letter form ('Dear colleagues', no names), history in one line, then what "
        "the examination showed, then what is asked",
        words=(110, 260),
        held_out_only=True,
    ),
    _free(
        "outside examination re-read",
        "a second reading of an examination made elsewhere; says where it differs from the first report, and the "
        "second reading holds",
        words=(110, 260),
        held_out_only=True,
    ),
    _free(
        "French hospital English",
        "English from a French-speaking hospital: INDICATION, TECHNIQUE, RESULT, CONCLUSION in prose, 'absence of', "
        "'individualisable', decimal commas",
        words=(90, 220),
        held_out_only=True,
    ),
    _free(
        "one paragraph telephone note",
        "one single paragraph without headings, as a result given by telephone and noted down",
        words=(60, 150),
        held_out_only=True,
    ),
    _structured(
        "UK proforma",
        "a British staging proforma: 'Label: value' lines, Y/N where it fits, a free comment line",
        words=(70, 180),
    ),
    _structured(
        "US template by headings",
        "a template with capital headings, one short sentence after each, a numbered impression",
        words=(90, 240),
    ),
    _structured(
        "bulleted template",
        "a template of bullet points, grouped under three or four headings, sub-bullets for details",
        words=(80, 220),
    ),
    _structured(
        "numbered fields",
        "numbered fields (1., 1.1, 2. ...) each with a short answer; some fields answered 'see above'",
        words=(80, 220),
    ),
    _structured(
        "tick boxes",
        "tick boxes as [x] and [ ] with all choices of a field shown and one ticked; free text where no box fits",
        words=(90, 260),
    ),
    _structured(
        "table with bars",
        "a plain-text table: columns parted by | with one row for each structure, a summary line below",
        words=(80, 220),
    ),
    _structured(
        "key=value export",
        "an export of a reporting program: 'Field = choice' lines in plain clinical words, some fields empty, then "
        "'Conclusion ='",
        words=(70, 200),
    ),
    _structured(
        "template with defaults deleted",
        "a template whose unused lines were deleted, with traces left: a heading without text, a doubled blank line",
        words=(70, 200),
    ),
    _structured(
        "Asian hospital checklist",
        "a numbered checklist of an Asian hospital: item, then finding in brackets or after a dash, '(-)' and "
        "'(+)' for absent and present",
        words=(70, 200),
    ),
    _structured(
        "template with comparison column",
        "a template that gives today's and the earlier finding side by side ('now / before'), no dates",
        words=(90, 240),
    ),
    _structured(
        "template in capitals with free impression",
        "headings and answers in capitals, then an impression in ordinary prose that repeats only part of them",
        words=(90, 240),
    ),
    _structured(
        "MRI template",
        "an MRI template with technique, then fields by organ, unless a stated finding speaks of another examination",
        words=(90, 240),
    ),
    _structured(
        "synoptic tumour board form",
        "a synoptic form for the tumour board: short fields in two groups (local, beyond), open questions at the end",
        words=(80, 220),
        held_out_only=True,
    ),
    _structured(
        "question and answer form",
        "a form that asks questions ('Is there ...?') with the answer on the next line",
        words=(90, 240),
        held_out_only=True,
    ),
    _structured(
        "tab-separated short form",
        "a short form: label, tab, answer in few words; abbreviations explained nowhere",
        words=(60, 150),
        held_out_only=True,
    ),
    _structured(
        "German structured translation",
        "a German template translated to English: 'Question: ... Finding: ... Assessment: ...', decimal commas",
        words=(80, 220),
        held_out_only=True,
    ),
)
"""All styles. Names are unique."""


def styles_for(form: Form, *, held_out: bool) -> tuple[ReportStyle, ...]:
    """The styles of a form that a case may be written in: those kept for held-out cases only if it is one."""
    return tuple(style for style in REPORT_STYLES if style.form == form and (held_out or not style.held_out_only))
