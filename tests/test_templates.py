"""Templates of an untrusted plan are text with named slots, and nothing else."""

from __future__ import annotations

import re

import pytest

from medorchestra.templates import MAX_TEMPLATE_CHARACTERS, check_template, render_template


def test_declared_slots_are_filled_and_the_rest_stays_as_it_is():
    source = "Answer with {{ labels }}.\nUnit: {{unit}} {braces} <|im_end|>"
    check_template(source, ("labels", "unit"))
    filled = render_template(source, {"labels": "yes; {{ no }}", "unit": "cm"})
    assert filled == "Answer with yes; {{ no }}.\nUnit: cm {braces} <|im_end|>"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ ''.__class__ }}", "Getattr is not allowed"),
        ("{{ labels.__class__ }}", "Getattr is not allowed"),
        ("{{ labels['x'] }}", "Getitem is not allowed"),
        ("{{ labels() }}", "Call is not allowed"),
        ("{{ labels|upper }}", "Filter is not allowed"),
        ("{{ 7 * 7 }}", "Mul is not allowed"),
        ("{{ 'text' }}", "Const is not allowed"),
        ("{% for x in labels %}{% endfor %}", "For is not allowed"),
        ("{% include 'x' %}", "Include is not allowed"),
        ("{% set a = 1 %}", "Assign is not allowed"),
        ("{{ report }}", "undeclared slot 'report'"),
        ("{{ labels", "template line 1"),
        ("fine\n{{ cycler }}", "line 2: undeclared slot 'cycler'"),
        ("x" * (MAX_TEMPLATE_CHARACTERS + 1), "at most"),
    ],
)
def test_everything_else_is_refused_before_it_is_rendered(source, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        check_template(source, ("labels",))
