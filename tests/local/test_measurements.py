"""Numbers are found in the report, with their unit, and never made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.measurements import measurements_in
from medorchestra.plan import NumberRange

CM = NumberRange(unit="cm", minimum=0.1, maximum=30)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a 3.2 cm mass", [3.2]),
        ("24 x 19 mm", [2.4]),
        ("2.1 x 3.4 x 1.9 cm", [3.4]),
        ("31mm (previously 28 mm)", [3.1, 2.8]),
        ("3,2 cm", [3.2]),
        ("a 3-cm mass", [3.0]),
        ("2 cm x 3 cm", [3.0]),
        ("220 degrees, series 4, image 31", []),
        ("CA 19-9 of 450", []),
        ("999 cm", []),
        ("0.75 mm slices", []),
        ("5 cmH2O", []),
    ],
)
def test_lengths_are_read_in_centimetres_with_the_largest_dimension(text, values):
    assert [m.value for m in measurements_in(text, CM)] == values


@pytest.mark.parametrize(
    ("unit", "text", "values"),
    [
        ("mm", "2.4 cm and 7 mm", [24.0, 7.0]),
        ("count", "3 of 14 nodes, 8 mm", [3.0, 14.0]),
        ("percent", "about 40 %", [40.0]),
        ("unit_per_ml", "CA 19-9: 450 U/mL", [450.0]),
    ],
)
def test_other_units_are_read_too(unit, text, values):
    number = NumberRange(unit=unit, minimum=0, maximum=10_000)
    assert [m.value for m in measurements_in(text, number)] == values


@given(st.text(alphabet="0123456789.,x× cm mA-", max_size=80))
def test_every_measurement_stands_in_the_text(text):
    for found in measurements_in(text, CM):
        assert text[found.start : found.end].lower().rstrip().endswith(("cm", "mm"))
        assert CM.minimum <= found.value <= CM.maximum
