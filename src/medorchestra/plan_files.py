"""Plans on disk: YAML, human-readable and diffable, read back to an equal plan with the same digest.

Knows files and formats; what a plan may hold is `plan`'s business.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from medorchestra.errors import PlanError
from medorchestra.plan import Plan
from medorchestra.plan_yaml import dump_plan_yaml, parse_plan_yaml
from medorchestra.topics import guideline_folder, is_topic_name, topics
from medorchestra.whole_files import write_whole


def read_plan(source: str | Path) -> Plan:
    """Read and check a plan.

    Args:
        source: name of a topic that comes with the library (`pancreatic_cancer`), or path of a plan file.

    Raises:
        PlanError: not there, not readable, or not a valid plan; names file and place.
    """
    path = plan_path(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not a text file in UTF-8") from None
    return parse_plan(text, where=str(path))


def plan_path(source: str | Path) -> Path:
    """Where a plan lies: the path itself, or the plan file of the topic of this name.

    Raises:
        PlanError: it is neither a file nor a topic.
    """
    path = Path(source)
    if is_topic_name(str(source)) and not path.is_file():
        path = guideline_folder(str(source)) / "plan.yaml"
        if not path.is_file():
            raise PlanError(f"no plan {str(source)!r}: neither a file nor one of the topics: {', '.join(topics())}")
    return path


def parse_plan(text: str, *, where: str = "plan") -> Plan:
    """The plan in this YAML text; `where` names it in errors.

    Raises:
        PlanError: not a valid plan.
    """
    try:
        content = parse_plan_yaml(text)
        if not isinstance(content, dict):
            raise PlanError("not a plan: the top level must be a mapping")
        return Plan.model_validate(content)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None
    except ValidationError as error:
        raise PlanError(_describe(error, where)) from None
    except RecursionError:
        raise PlanError(f"{where}: nested too deeply") from None


def describe_plan_errors(error: ValidationError) -> list[str]:
    """One line for each place of a plan that is wrong, without the text that stands there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        f"{'.'.join(str(part) for part in place['loc']) or 'plan'}: {place['msg'].removeprefix('Value error, ')}"
        for place in found
    ]


def _describe(error: ValidationError, where: str, most: int = 8) -> str:
    places = describe_plan_errors(error)
    lines = [f"{where}: {len(places)} place{'s' if len(places) != 1 else ''} to mend"]
    lines += [f"  {place}" for place in places[:most]]
    if len(places) > most:
        lines.append(f"  … and {len(places) - most} more")
    return "\n".join(lines)


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML that `read_plan` reads back to an equal plan with the same digest. Whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_whole(Path(path), format_plan(plan))


def format_plan(plan: Plan) -> str:
    """The plan as YAML text."""
    content = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dump_plan_yaml({"schema_version": plan.schema_version} | content)
