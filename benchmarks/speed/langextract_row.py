"""Row (f) of `peers.py`: langextract with langextract-llamacpp, as their users call them.

Needs an interpreter that has both (`--langextract-python`); knows neither medorchestra nor its plans. The provider
takes a model as `file:PATH`, sends every prompt as one chat message to llama-cpp-python's `Llama`, and knows no JSON
schema: the form of the answer comes from a solved example in the prompt, one report of the same kind. The report goes
in one piece (`max_char_buffer`), which is the faster way. What is not extracted counts as not stated; an answer that
cannot be parsed counts as no answer at all.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any

from chat_rows import TokenCount
from peer_row import Answers, NotMeasuredError, OneByOne
from peer_task import PeerTask, TaskReport, value_of

NOT_STATED = "not_stated"
MOST_CHARACTERS = 20_000
MOST_TOKENS = 1024
PACKAGES = ("langextract", "langextract-llamacpp", "llama-cpp-python")


class LangExtract(OneByOne):
    """(f): one call of `langextract.extract` for each report."""

    def __init__(self, task: PeerTask) -> None:
        super().__init__(task)
        try:
            self._langextract: Any = importlib.import_module("langextract")
            found = {name: importlib.metadata.version(name) for name in PACKAGES}
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            raise NotMeasuredError(f"not installed ({error})") from None
        self._versions = found
        self._count = TokenCount()
        data, factory = self._langextract.data, self._langextract.factory
        extractions = [
            data.Extraction(
                extraction_class=one["finding"],
                extraction_text=one["words"],
                attributes={"answer": one["label"]},
            )
            for one in task.example["extractions"]
        ]
        self._examples = [data.ExampleData(text=task.example["text"], extractions=extractions)]
        fields = [f"- {finding}: one of {'; '.join(labels.values())}" for finding, labels in task.labels.items()]
        self._description = "\n".join(
            [
                "Extract the words of the medical report that answer each of these, with the answer as an attribute.",
                "Leave out what the report does not mention.",
                *fields,
            ]
        )
        settings = {"n_ctx": task.context_tokens, "n_threads": task.threads, "n_threads_batch": task.threads}
        completion = {"temperature": 0.0, "max_tokens": MOST_TOKENS}
        self._model = factory.create_model(
            factory.ModelConfig(
                model_id=f"file:{task.model}",
                provider_kwargs={**settings, "flash_attn": True, "completion_kwargs": completion},
            )
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages."""
        return {name: version for name, version in self._versions.items() if name != "llama-cpp-python"}

    def warm(self) -> None:
        """The warm-up report."""
        self.read(self.task.warm_up)

    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """All findings of a report."""
        with self._count.during() as tokens, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = self._answers(report)
        return answers, tokens[0]

    def _answers(self, report: TaskReport) -> Answers:
        try:
            document = self._langextract.extract(
                text_or_documents=report.text,
                prompt_description=self._description,
                examples=self._examples,
                model=self._model,
                max_char_buffer=MOST_CHARACTERS,
                max_workers=1,
                batch_length=1,
                resolver_params={"suppress_parse_errors": False},
                show_progress=False,
            )
        except Exception as error:
            # Told by name: the class lives in different places from version to version.
            if "Parsing" not in type(error).__name__ and "FormatError" not in type(error).__name__:
                raise
            return dict.fromkeys(self.task.findings)
        return extracted_answers(document.extractions or [], self.task.labels)


def extracted_answers(extractions: list[Any], labels: dict[str, dict[str, str]]) -> Answers:
    """Values of the findings: of the first extraction of each; not stated where there is none."""
    answers: Answers = dict.fromkeys(labels, NOT_STATED)
    seen: set[str] = set()
    for one in extractions:
        finding = one.extraction_class
        if finding in labels and finding not in seen:
            seen.add(finding)
            answers[finding] = value_of((one.attributes or {}).get("answer"), labels[finding])
    return answers
