"""The exception tree, sorted by who has to act. Messages carry ids and counts, never report text.

MedorchestraError            catches everything this library raises on purpose
├── PlanError                fix the plan: unknown field, unknown finding or value, unsafe template ...
│   ├── RuleError            fix its rules: they name what is not there, or are too entangled to compile
│   └── UnvalidatedPlanError      rehearse it with the model that is to run it, or say that it may run all the same
├── GuidelineError           fix the guideline text: no sections, section numbers missing or doubled
├── CaseError                fix the synthetic cases
├── SourceError              fix the input: missing file or column, wrong encoding, doubled ids ...
├── ModelError               fix the model or adapter file, or install what runs it
│   ├── ContextTooSmallError      a prompt does not fit the model's context (the executor handles this one)
│   └── ServerFailedError         a model server is gone or fails: a report's answers fail, after several the run stops
│       └── ServerRefusedError        it answers with an error status (`local/engine/server_client.py`)
├── StorageError             fix the machine: folder not writable, disk full, ledger not readable
├── SettingsError            fix the call: an option has an impossible value
├── CloudError               fix the cloud model's access: no key, refused, unreachable, no usable answer
│   ├── UnusableAnswerError       it answers, but not in the form or with the content asked for: try another model
│   └── BudgetError               more tokens, rounds or money would be needed than were granted
└── EgressError              stop: something was about to leave that must not, or the egress log was tampered with
"""

from __future__ import annotations


class MedorchestraError(Exception):
    """Base class of everything raised on purpose by medorchestra."""


class PlanError(MedorchestraError):
    """The plan file is not a valid plan. The message names the place in the plan."""


class RuleError(PlanError):
    """The rules of a plan cannot be compiled."""


class UnvalidatedPlanError(PlanError):
    """The plan has no validation record for the model that is to run it. The message says how to make one."""


class GuidelineError(MedorchestraError):
    """The guideline text cannot be read as numbered, citable sections."""


class CaseError(MedorchestraError):
    """A file of synthetic cases is not valid. The message names line and case id."""


class SourceError(MedorchestraError):
    """The input with the reports cannot be read. The message names file, column, row or id."""


class ModelError(MedorchestraError):
    """The model or the adapter cannot be used. The message names the file and the next step."""


class ContextTooSmallError(ModelError):
    """A prompt has more tokens than the model's context holds.

    Attributes:
        needed: tokens the prompt would take.
        available: tokens the context can give it.
    """

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(f"prompt of {needed} tokens, room for {available}")
        self.needed = needed
        self.available = available


class ServerFailedError(ModelError):
    """A model server cannot be reached, breaks off, or answers with an error.

    Attributes:
        of_server: whether that tells of the server; False where it may lie in what it was asked.
    """

    def __init__(self, message: str, *, of_server: bool = True) -> None:
        super().__init__(message)
        self.of_server = of_server


class StorageError(MedorchestraError):
    """A file of the run cannot be written or read back. The message names the path."""


class SettingsError(MedorchestraError):
    """An option of the call has a value that cannot be used."""


class CloudError(MedorchestraError):
    """The cloud model cannot be reached, refuses, or gives no usable answer. The message names step and next step."""


class UnusableAnswerError(CloudError):
    """The cloud model gave no usable answer to one question within the effort. The message says what was wrong."""


class BudgetError(CloudError):
    """The planner would need more tokens, rounds or money than it was granted."""


class EgressError(MedorchestraError):
    """Something was about to leave that must not, or the egress log does not hold together.

    The message names the piece, its origin and the kind of problem, never its text.
    """
