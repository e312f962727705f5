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
        ("3.2 by 2.1 cm", [3.2]),
        ("3.2 cm by 21 mm", [3.2]),
        ("2 cm x 35 mm", [3.5]),
        ("2.1 (AP) x 3.4 (TR) x 1.9 (CC) cm", [3.4]),
        ("2.1 cm AP x 3.4 cm TR", [3.4]),
        ("3 centimetres, 12 millimeters, 4 cms", [3.0, 1.2, 4.0]),
        ("3.2\r\ncm", [3.2]),
        ("2.5 cm/3.0 cm", [2.5, 3.0]),
        ("measuring [3.2] cm", [3.2]),
        ("Size (cm): 3.2\nDiameter mm: 51 / 54 / 52\nLength [mm] = 12 x 9", [3.2, 5.4, 1.2]),
        ("Size in cm: 24 mm", [2.4]),
        ("Wall (mm): 40 % of 3", []),
        ("peak velocity 20 cm/s, volume 5 cm3, 4 cm³, 2 cm^3", []),
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
        ("count", "2 nodes, 40 % fat, 180 degrees, 90°, 14 x 8 mm", [2.0]),
        ("unit_per_ml", "CA 19-9 of 1,250.5 U/mL, before 12,5 U/mL", [1250.5, 12.5]),
        ("percent", "about 40 %", [40.0]),
        ("unit_per_ml", "CA 19-9: 450 U/mL", [450.0]),
    ],
)
def test_other_units_are_read_too(unit, text, values):
    number = NumberRange(unit=unit, minimum=0, maximum=10_000)
    assert [m.value for m in measurements_in(text, number)] == values


@pytest.mark.parametrize("unit", ["cm", "count", "percent", "unit_per_ml"])
def test_a_report_full_of_blanks_is_read_in_no_time(unit):
    text = "1" + " " * 50_000 + "x" + "1 x " * 5_000
    assert measurements_in(text, NumberRange(unit=unit, minimum=5, maximum=9)) == ()


def test_a_measurement_keeps_its_words_on_one_line():
    text = "a mass of 3.2\n x  2.1 cm"
    (found,) = measurements_in(text, CM)
    assert (text[found.start : found.end], found.words) == ("3.2\n x  2.1 cm", "3.2 x 2.1 cm")


@given(st.text(alphabet="0123456789.,x× cm mA-", max_size=80))
def test_every_measurement_stands_in_the_text(text):
    for found in measurements_in(text, CM):
        assert "cm" in found.words or "mm" in found.words
        assert CM.minimum <= found.value <= CM.maximum
