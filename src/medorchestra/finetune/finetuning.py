"""`finetune`: from a plan, a base model and synthetic cases to an adapter, with a record of how it came about.

Composes the steps: what is trained on, training, the GGUF, and the proof that llama.cpp reads with it what PyTorch
reads. That proof is always on the base as the GGUF holds it, also where 4-bit layers were trained on (`nf4`). Rehearsal
and calibration of the pair are `rehearsal`'s business.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from medorchestra.errors import ModelError, StorageError
from medorchestra.finetune.adapter_file import BaseShape, write_adapter
from medorchestra.finetune.branched_model import BranchedModel, LoraSettings, require_torch
from medorchestra.finetune.nf4 import QloraChoice, Quantization, check_choice, chosen_quantization
from medorchestra.finetune.training import Trained, Trainer, TrainingProgress, TrainingSettings
from medorchestra.finetune.training_prompts import PromptMaker
from medorchestra.finetune.training_set import TrainingSet, TrainingSetSettings, training_set
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.local.engine.llama_cpp import LlamaCppEngine
from medorchestra.local.engine.model_files import find_model, require_loading_allowed
from medorchestra.local.engine.protocol import Conversation
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Plan, content_digest
from medorchestra.synthetic import SyntheticCase
from medorchestra.whole_files import write_whole

PARITY_CASES = 6
PARITY_DIFFERENCE = 0.05
"""Mean difference of a right answer's probability between PyTorch and llama.cpp that quantization explains."""

TrainedOn = Literal["synthetic", "clinical"]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How an adapter is made.

    Attributes:
        data: what it is trained on.
        training: how its weights are found.
        lora: its form.
        dtype: numbers that training computes with; default what the hardware is fastest at.
        trained_on: `clinical` where any text is not synthetic: such an adapter must never leave.
        qlora: whether the base is held in 4 bits while it is trained; `auto`: see `chosen_quantization`.
    """

    data: TrainingSetSettings = field(default_factory=TrainingSetSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    dtype: str | None = None
    trained_on: TrainedOn = "synthetic"
    qlora: QloraChoice = "auto"

    def __post_init__(self) -> None:
        check_choice(self.qlora)

    def facts(self) -> dict[str, Any]:
        """What of it counts for the identity of an adapter, as JSON holds it. Not `qlora`: what comes of it does."""
        told = asdict(self)
        del told["qlora"]
        found: dict[str, Any] = json.loads(json.dumps(told, default=sorted))
        return found


@dataclass(frozen=True, slots=True)
class FinetunedAdapter:
    """An adapter that has been written.

    Attributes:
        path: the GGUF.
        record: content of the record beside it.
        parity: mean difference between PyTorch and llama.cpp on the same base (see `PARITY_DIFFERENCE`).
    """

    path: Path
    record: dict[str, Any]
    parity: float


def finetune(  # noqa: PLR0913 - plan, cases and bank are what is learned; base and path where it goes
    plan: Plan,
    cases: Sequence[SyntheticCase],
    out: str | Path,
    *,
    bank: PhraseBank | None = None,
    base: str | Path = "default",
    settings: FinetuneSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> FinetunedAdapter:
    """Train an adapter and write it, with its training record, so that `stage` can use it.

    Called again after it was killed, it goes on where it was. Beside `out` lie `<name>.json` (the record) and, while it
    trains, the folder `<name>.training`.

    Args:
        plan: whose questions are trained, in the prompt form and context of its profile.
        cases: synthetic cases; only the development split is trained on.
        out: path of the adapter, ending in .gguf.
        bank: phrase bank for composed reports.
        base: the GGUF that will run the plan, as `stage` takes it.
        settings: how.
        progress: called after every step.

    Raises:
        ModelError: a package of the extra `finetune` is missing, the base cannot be trained, or what llama.cpp reads
            with the adapter is not what PyTorch reads.
        CaseError, PlanError, SettingsError, StorageError: nothing is trained, or what was trained so far is kept.
    """
    settings, path = settings or FinetuneSettings(), Path(out)
    if path.suffix != ".gguf":
        raise ModelError(f"{path}: name the adapter's file with the ending .gguf")
    require_loading_allowed()
    torch = require_torch()
    base_path = base if isinstance(base, Path) else find_model(base)
    quantization = chosen_quantization(torch, base_path, settings.qlora)
    data = training_set(plan, cases, bank, settings.data)
    facts = _facts(plan, base_path, data, settings, quantization)
    identity = content_digest(facts)
    finished = _finished(path, identity)
    if finished is not None:
        return finished
    folder = path.with_suffix(".training")
    with LlamaCppEngine(base_path) as engine, _memory_named(torch, base_path, quantization):
        maker = PromptMaker(plan, engine)
        model = BranchedModel(
            base_path, settings.lora, seed=settings.training.seed, dtype=settings.dtype, quantization=quantization
        )
        trainer = Trainer(model, maker, data.cases, settings.training, folder=folder, identity=identity)
        trained = trainer.train(progress)
    unproven = folder / path.name  # where nothing takes it for the plan's adapter
    _export(unproven, model, settings, base_path, facts)
    parity, proof = _prove(plan, data.cases[:PARITY_CASES], model, base_path, unproven, settings)
    _put_in_place(unproven, path)
    record = facts | {"identity": identity} | _outcome(path, model, trained, maker, proof)
    write_whole(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    trainer.forget()
    return FinetunedAdapter(path, record, parity)


@contextmanager
def _memory_named(torch: Any, base: Path, quantization: Quantization) -> Iterator[None]:
    """Says what to do where a GPU's memory is too small."""
    try:
        yield
    except torch.OutOfMemoryError:
        way_out = "take a smaller base" if quantization == "nf4" else "train in 4 bits (--qlora on), or a smaller base"
        raise ModelError(f"{base.name}: the GPU's memory is too small to train it; {way_out}") from None


def _finished(path: Path, identity: str) -> FinetunedAdapter | None:
    """The adapter that the same training has already made here, or None."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if record["identity"] == identity and record["adapter_digest"] == file_digest(path):
            return FinetunedAdapter(path, record, record["parity"])
    except (OSError, ValueError, KeyError, TypeError, ModelError):
        pass  # no record, or not one of this library: train
    return None


def _facts(
    plan: Plan, base: Path, data: TrainingSet, settings: FinetuneSettings, quantization: Quantization
) -> dict[str, Any]:
    """What decides how the adapter will be. A quantization is told where there is one: what was trained before there
    was any keeps its identity.
    """
    facts = {
        "schema_version": 1,
        "topic": plan.topic,
        "plan_digest": plan.digest,
        "questions_digest": plan.questions_digest,
        "base": base.name,
        "base_digest": file_digest(base),
        "trained_on": settings.trained_on,
        "data_digest": data.digest,
        "data": data.counts,
        "settings": settings.facts(),
    }
    return facts if quantization == "none" else facts | {"quantization": quantization}


def _outcome(
    path: Path, model: BranchedModel, trained: Trained, maker: PromptMaker, proof: dict[str, float]
) -> dict[str, Any]:
    packages = ["torch", "transformers", "peft", "gguf", "llama-cpp-python"]
    if model.quantization != "none":
        packages.append("bitsandbytes")
    return {
        "adapter_digest": file_digest(path),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "tokens": trained.tokens,
        "seconds": round(trained.seconds, 1),
        "device": model.device,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "questions_left_out": dict(maker.unanswerable),
        **proof,
        "losses": [list(pair) for pair in trained.losses],
    }


def _export(path: Path, model: BranchedModel, settings: FinetuneSettings, base: Path, facts: dict[str, Any]) -> None:
    header = read_gguf_header(base)
    heads = header.count(".attention.head_count") or 0
    shape = BaseShape(
        header.architecture,
        header.count(".block_count") or 0,
        heads,
        header.count(".attention.head_count_kv") or heads,
    )
    notes = {
        f"medorchestra.{name}": str(facts[name]) for name in ("topic", "questions_digest", "base_digest", "trained_on")
    }
    weights = {name: matrix.cpu().numpy() for name, matrix in model.masters.items()}
    write_adapter(path, weights, settings.lora, shape, notes)


def _put_in_place(unproven: Path, path: Path) -> None:
    try:
        unproven.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; check folder and free space") from None


def _prove(
    plan: Plan,
    cases: Sequence[SyntheticCase],
    model: BranchedModel,
    base: Path,
    adapter: Path,
    settings: FinetuneSettings,
) -> tuple[float, dict[str, float]]:
    """Compare PyTorch with llama.cpp, both on the base as its GGUF holds it.

    What 4-bit layers were trained on is another base: how much it differs from the one that runs is told, but it says
    nothing of whether the adapter was written and read rightly. So the proof is done on the weights of the GGUF, as for
    any other adapter, and on the CPU: the GPU may be too small for them.

    Returns:
        the mean difference, and what the record says of it.

    Raises:
        ModelError: it is more than quantization explains, or nothing could be compared.
    """
    told = {}
    if model.quantization != "none":
        told["difference_to_trained_base"] = round(measure_parity(plan, cases, model, base, adapter), 4)
        executed = BranchedModel(base, settings.lora, seed=settings.training.seed, dtype=settings.dtype, device="cpu")
        executed.load(model.masters)
        model = executed
    parity = measure_parity(plan, cases, model, base, adapter)
    if not parity <= PARITY_DIFFERENCE:  # so written that it also catches what is no number
        raise ModelError(
            f"{adapter}: llama.cpp reads with it otherwise than PyTorch (mean difference {parity:.3f}, at most "
            f"{PARITY_DIFFERENCE} is quantization); this base's architecture is not supported for training"
        )
    return parity, {"parity": round(parity, 4), **told}


def measure_parity(
    plan: Plan, cases: Sequence[SyntheticCase], model: BranchedModel, base: Path, adapter: Path
) -> float:
    """Mean absolute difference of the right answer's probability between the model in PyTorch and llama.cpp."""
    model.train(training=False)
    differences: list[float] = []
    with LlamaCppEngine(base, adapter=adapter) as engine:
        maker = PromptMaker(plan, engine)
        for case in cases:
            for prompt in maker.prompts(case):
                with model.torch.no_grad():
                    losses = model.losses([prompt])
                with engine.open(Conversation(plan.head(), prompt.text)) as session:
                    for branch, loss in zip(prompt.branches, losses, strict=True):
                        read = session.choose(branch.question, branch.candidates).probabilities[branch.right]
                        differences.append(abs(read - float(model.torch.exp(-loss))))
    return sum(differences) / len(differences) if differences else math.nan  # nothing compared is nothing proven
