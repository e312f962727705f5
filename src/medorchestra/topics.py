"""Where the topics that come with the library lie: their guideline, plan, adapters and synthetic cases.

In an installed package they are package data; in a checkout they are the folders at its top level.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]
_TOPIC_NAME = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*\Z")


def _folder(name: str) -> Path:
    packaged = _PACKAGE / name
    return packaged if packaged.is_dir() else _CHECKOUT / name


def topics() -> tuple[str, ...]:
    """Names of the topics that have a plan, sorted."""
    return tuple(sorted(path.parent.name for path in _folder("guidelines").glob("*/plan.yaml")))


def is_topic_name(name: str) -> bool:
    """Whether this looks like the name of a topic (and not like a path)."""
    return bool(_TOPIC_NAME.match(name))


def guideline_folder(topic: str) -> Path:
    """Folder with the guideline, the plan and the adapters of a topic (it may not exist)."""
    return _folder("guidelines") / topic


def cases_folder(topic: str) -> Path:
    """Folder with the synthetic cases of a topic (it may not exist)."""
    return _folder("synthetic_cases") / topic
