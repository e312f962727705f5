"""The training loop: AdamW, warm-up and cosine decay over a fixed order of reports. Killed, it goes on where it was.

Knows steps, batches and checkpoints; what a report's tokens are, and what the model computes, it is told.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medorchestra.errors import SettingsError, StorageError
from medorchestra.finetune.branched_model import BranchedModel
from medorchestra.finetune.training_prompts import BranchedPrompt, PromptMaker
from medorchestra.synthetic import SyntheticCase

WINDOW = 8
"""Batches whose cases are sorted by length together, so that little is padded."""
STEPS_IN_A_MEAN = 20
"""Steps over which a loss is averaged before it is noted."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the weights are found.

    Attributes:
        batch: prompts in a step.
        together: prompts computed at once.
        learning_rate: the highest; reached after `warmup`, then falling along a cosine to a twentieth.
        warmup: share of the steps.
        clip: greatest norm of a step's gradient.
        seed: of the adapter's first weights.
        save_every: seconds between checkpoints.
    """

    batch: int = 2
    together: int = 2
    learning_rate: float = 1e-3
    warmup: float = 0.04
    clip: float = 1.0
    seed: int = 1
    save_every: float = 120.0

    def __post_init__(self) -> None:
        if min(self.batch, self.together) < 1 or not 0 < self.learning_rate < 1 or not 0 <= self.warmup < 1:
            raise SettingsError("batch and together must be at least 1, learning_rate and warmup between 0 and 1")


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far training is.

    Attributes:
        step, steps: done and in all.
        loss: mean over the last steps, in nats for each answer.
        tokens_per_second: of this run.
        seconds_left: at this rate.
    """

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished training has to tell.

    Attributes:
        losses: (step, mean loss since the one before).
        tokens: computed, over all runs.
        seconds: over all runs.
    """

    losses: tuple[tuple[int, float], ...]
    tokens: int
    seconds: float


@dataclass(slots=True)
class _State:
    """What a checkpoint holds beside weights."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: tuple[tuple[int, float], ...] = ()
    recent: tuple[float, ...] = ()


class Trainer:
    """Trains one adapter on one order of cases.

    Args:
        model: what is trained.
        maker: turns cases into tokens.
        cases: in the order in which they are read, but for a little sorting by length.
        settings: how.
        folder: for the checkpoint; None: none is kept.
        identity: of model, cases and settings: a checkpoint of anything else is refused.
    """

    def __init__(
        self,
        model: BranchedModel,
        maker: PromptMaker,
        cases: Sequence[SyntheticCase],
        settings: TrainingSettings,
        *,
        folder: Path | None = None,
        identity: str = "",
    ) -> None:
        self._model, self._maker, self._settings = model, maker, settings
        self._batches = batches_of(cases, settings)
        self._checkpoint = None if folder is None else folder / "checkpoint.pt"
        self._identity = identity
        torch = model.torch
        self._optimizer = torch.optim.AdamW(list(model.masters.values()), lr=settings.learning_rate, weight_decay=0.0)
        self._state = _State()

    def train(self, progress: Callable[[TrainingProgress], None] | None = None) -> Trained:
        """Train to the end.

        Raises:
            SettingsError: the checkpoint in the folder is of another training, or the loss is no number any more.
            StorageError: a checkpoint cannot be read or written.
        """
        self._resume()
        self._model.train(training=True)
        state, steps = self._state, len(self._batches)
        before = _State(state.step, state.tokens, state.seconds)
        started = saved = time.perf_counter()
        for step in range(state.step, steps):
            prompts = [one for case in self._batches[step] for one in self._maker.prompts(case)]
            loss = self._step(step, prompts)
            state.recent = (*state.recent, *(() if loss is None else (loss,)))
            state.step = step + 1
            now = time.perf_counter()
            state.seconds = before.seconds + now - started
            if state.recent and (state.step % STEPS_IN_A_MEAN == 0 or state.step == steps):
                mean = sum(state.recent) / len(state.recent)
                state.losses, state.recent = (*state.losses, (state.step, round(mean, 4))), ()
            if now - saved > self._settings.save_every or state.step == steps:
                self._save()
                saved = now
            if progress is not None:
                progress(_progress(state, before, steps, now - started))
        return Trained(state.losses, state.tokens, state.seconds)

    def _step(self, step: int, prompts: Sequence[BranchedPrompt]) -> float | None:
        """One update; returns the mean loss of the answers, None where nothing was asked."""
        answers = sum(len(prompt.branches) for prompt in prompts)
        if not answers:
            return None
        ordered = sorted(prompts, key=lambda prompt: prompt.length)
        total = 0.0
        for start in range(0, len(ordered), self._settings.together):
            losses = self._model.losses(ordered[start : start + self._settings.together])
            loss = self._model.torch.stack(losses).sum() / answers
            if not bool(self._model.torch.isfinite(loss)):
                raise SettingsError(f"step {step + 1}: the loss is no number any more; begin anew with a lower rate")
            loss.backward()
            total += float(loss.detach())
        self._state.tokens += sum(prompt.length for prompt in prompts)
        self._update(rate_at(step, len(self._batches), self._settings))
        return total

    def _update(self, rate: float) -> None:
        gradients = self._model.take_gradients()
        for name, weights in self._model.masters.items():
            weights.grad = gradients[name]
        self._model.torch.nn.utils.clip_grad_norm_(list(self._model.masters.values()), self._settings.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._model.copy_masters()

    # ------------------------------------------------------------- checkpoint

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        beside = self._checkpoint.with_name(".checkpoint.part")
        content = {
            "identity": self._identity,
            "state": asdict(self._state),
            "masters": self._model.masters,
            "optimizer": self._optimizer.state_dict(),
        }
        try:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._model.torch.save(content, beside)
            beside.replace(self._checkpoint)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            beside.unlink(missing_ok=True)
            raise StorageError(
                f"{self._checkpoint}: cannot be written ({type(error).__name__}); check folder and free space"
            ) from None

    def forget(self) -> None:
        """Remove the checkpoint, which is of no use any more."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def _resume(self) -> None:
        path = self._checkpoint
        if path is None or not path.is_file():
            return
        try:
            # Tensors and plain values only: a checkpoint is data, no code in it is run.
            content: dict[str, Any] = self._model.torch.load(path, map_location=self._model.device, weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises anything for a damaged file
            raise StorageError(f"{path}: cannot be read ({type(error).__name__}); remove it to begin anew") from None
        if not isinstance(content, dict) or content.keys() != {"identity", "state", "masters", "optimizer"}:
            raise StorageError(f"{path}: not a checkpoint of this library; remove it to begin anew")
        if content["identity"] != self._identity:
            raise SettingsError(
                f"{path}: begun with another plan, base, cases or settings; finish it with those, or remove it to "
                "begin anew"
            )
        self._model.load(content["masters"])
        self._optimizer.load_state_dict(content["optimizer"])
        told = content["state"]
        losses = tuple((int(step), float(loss)) for step, loss in told["losses"])
        self._state = _State(told["step"], told["tokens"], told["seconds"], losses, tuple(told["recent"]))


def batches_of(cases: Sequence[SyntheticCase], settings: TrainingSettings) -> list[tuple[SyntheticCase, ...]]:
    """The cases in batches of about the same length, in an order that the seed alone decides."""
    chance = random.Random(f"batches {settings.seed}")  # noqa: S311 - not for secrets
    batches: list[tuple[SyntheticCase, ...]] = []
    size = settings.batch * WINDOW
    for start in range(0, len(cases), size):
        window = sorted(cases[start : start + size], key=lambda case: len(case.text))
        found = [tuple(window[i : i + settings.batch]) for i in range(0, len(window), settings.batch)]
        chance.shuffle(found)
        batches += found
    return batches


def rate_at(step: int, steps: int, settings: TrainingSettings) -> float:
    """The learning rate of a step: warm-up, then a cosine down to a twentieth."""
    warm = settings.warmup * steps
    if step < warm:
        return settings.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1.0, steps - warm)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def _progress(state: _State, before: _State, steps: int, seconds: float) -> TrainingProgress:
    rate = (state.tokens - before.tokens) / seconds
    left = (steps - state.step) * seconds / (state.step - before.step)
    loss = state.losses[-1][1] if state.losses else sum(state.recent) / max(1, len(state.recent))
    return TrainingProgress(state.step, steps, loss, rate, left)
