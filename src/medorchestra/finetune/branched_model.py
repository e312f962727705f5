"""The model in PyTorch: the GGUF's own weights, a LoRA adapter on top, and one forward pass for a report and all its
questions.

A block attention mask lets every question see the report and itself only, and positions begin anew behind the report
in every branch: what is computed is what llama.cpp computes question by question. Logits are computed where an answer
has to be chosen, among the tokens that may be chosen, and nowhere else. Knows tokens and weights; knows no plan.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medorchestra.errors import ModelError
from medorchestra.finetune.nf4 import Quantization, quantize_layers
from medorchestra.finetune.training_prompts import BranchedPrompt

_INSTALL = "pip install 'medorchestra[finetune]' (on a machine without GPU, torch's CPU build is enough)"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The adapter's form (Hu et al., arXiv 2106.09685).

    Attributes:
        rank: of every change.
        alpha: its scale is alpha / rank.
        dropout: of the adapter's input while it is trained.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


def require_torch() -> Any:
    """torch, or a clear error.

    Raises:
        ModelError: one of the packages of the extra `finetune` is missing; says how to install it.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is a file; nothing is looked up anywhere
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import gguf  # noqa: F401
        import peft  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(f"training needs the package {error.name}; run {_INSTALL}") from None
    _keep_memory()
    return torch


def _keep_memory() -> None:
    """Tell glibc to keep freed memory: large tensors come and go, and fresh pages cost a fifth of the time on a CPU."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        most_mapped, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        mallopt(most_mapped, 0)
        mallopt(trim_threshold, 2**31 - 1)


def training_device(torch: Any, device: str | None = None) -> tuple[str, Any]:
    """(device, type of the numbers): a GPU unless told; bfloat16 where the hardware computes it, else float32."""
    if device != "cpu" and torch.cuda.is_available():
        return "cuda", torch.bfloat16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "cpu", torch.bfloat16 if has_bf16 else torch.float32


class BranchedModel:
    """A base model with a LoRA adapter that is being trained.

    Where the base is in 4 bits, the backward pass computes again what would otherwise be kept for it: where the weights
    take too much memory, that would, too.

    Attributes:
        device: where it computes.
        dtype: the numbers it computes with.
        quantization: of the base's linear layers.
        masters: name -> the adapter's weights in float32; the model computes with a copy in its own type.
    """

    def __init__(
        self,
        base: Path,
        lora: LoraSettings,
        *,
        seed: int,
        dtype: str | None = None,
        quantization: Quantization = "none",
        device: str | None = None,
    ) -> None:
        """Load the base from its GGUF and put a fresh adapter on every linear layer.

        Args:
            base: the GGUF that the executor will run.
            lora: the adapter's form.
            seed: of the adapter's first weights.
            dtype: `float32` or `bfloat16`; default what the hardware computes fastest.
            quantization: `nf4`: the base's linear layers are held in 4 bits (see `chosen_quantization`).
            device: `cpu`: not on a GPU, even if there is one.

        Raises:
            ModelError: a package is missing, transformers cannot read this GGUF, or bitsandbytes cannot quantize it.
        """
        torch = self.torch = require_torch()
        from peft import LoraConfig, get_peft_model

        self.device, kind = training_device(torch, device)
        self._kind = getattr(torch, dtype) if dtype else kind
        self.dtype, self.quantization = str(self._kind).removeprefix("torch."), quantization
        model = _load_base(torch, base)
        if quantization == "nf4":
            quantize_layers(model, device=self.device, compute=self._kind)
        torch.manual_seed(seed)
        form = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft still calls what transformers has renamed
            self._model: Any = get_peft_model(model, form)
            if quantization == "nf4":
                model.gradient_checkpointing_enable({"use_reentrant": False})
        working = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self.masters = {name: p.detach().float().to(self.device) for name, p in working.items()}
        self._model.to(self.device, self._kind)
        self._working: dict[str, Any] = working
        self.copy_masters()
        causal: Any = self._model.get_base_model()
        self._body: Any = causal.model
        self._unembedding: Any = causal.get_output_embeddings().weight

    @property
    def config(self) -> Any:
        """The base model's configuration, as transformers has it."""
        return self._model.config

    def train(self, *, training: bool) -> None:
        """Switch dropout on or off."""
        self._model.train(training)

    def copy_masters(self) -> None:
        """To be called when the masters have changed: the model computes with them from now on."""
        with self.torch.no_grad():
            for name, weights in self._working.items():
                weights.copy_(self.masters[name])

    def load(self, masters: dict[str, Any]) -> None:
        """Take the adapter's weights from elsewhere."""
        for name, weights in self.masters.items():
            weights.copy_(masters[name])
        self.copy_masters()

    # -------------------------------------------------------------- computing

    def fork_logits(self, prompts: Sequence[BranchedPrompt]) -> list[list[list[Any]]]:
        """Logits of the tokens to choose among.

        Returns:
            for each prompt, for each branch, for each fork a tensor of shape (number of possible tokens,), float32.
        """
        torch = self.torch
        tokens, positions, mask, places = self._batch(prompts)
        hidden = self._body(
            input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        rows = [row for row, prompt in enumerate(prompts) for branch in prompt.branches for _ in branch.forks]
        chosen = [
            start + position
            for prompt, starts in zip(prompts, places, strict=True)
            for branch, start in zip(prompt.branches, starts, strict=True)
            for position, _, _ in branch.forks
        ]
        # All at once: one by one, each would cost a gradient of the size of the whole batch.
        at_forks = iter(hidden[torch.tensor(rows, device=self.device), torch.tensor(chosen, device=self.device)])
        return [
            [[self._among(next(at_forks), possible) for _, possible, _ in branch.forks] for branch in prompt.branches]
            for prompt in prompts
        ]

    def _among(self, hidden: Any, possible: Sequence[int]) -> Any:
        """Logits of some tokens, float32."""
        return (self._unembedding[self.torch.tensor(possible, device=self.device)] @ hidden).float()

    def losses(self, prompts: Sequence[BranchedPrompt]) -> list[Any]:
        """Minus the logarithm of the probability of the right answer, for each branch of each prompt in turn."""
        torch = self.torch
        found = []
        for prompt, of_prompt in zip(prompts, self.fork_logits(prompts), strict=True):
            for branch, forks in zip(prompt.branches, of_prompt, strict=True):
                parts = [
                    torch.logsumexp(logits, 0) - logits[taken]
                    for logits, (_, _, taken) in zip(forks, branch.forks, strict=True)
                ]
                found.append(torch.stack(parts).sum())
        return found

    def take_gradients(self) -> dict[str, Any]:
        """The adapter's gradients in float32, and forget them."""
        gradients = {}
        for name, weights in self._working.items():
            gradients[name] = weights.grad.float() if weights.grad is not None else None
            weights.grad = None
        return gradients

    def _batch(self, prompts: Sequence[BranchedPrompt]) -> tuple[Any, Any, Any, list[list[int]]]:
        """Tokens, positions, additive mask, and where every branch starts; padded on the right."""
        torch = self.torch
        longest = max(prompt.length for prompt in prompts)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        positions = torch.zeros(len(prompts), longest, dtype=torch.long)
        owner = torch.full((len(prompts), longest), -1)  # 0: the prefix; 1, 2 …: a branch; -1: padding
        places: list[list[int]] = []
        for row, prompt in enumerate(prompts):
            at = len(prompt.prefix)
            tokens[row, :at] = torch.tensor(prompt.prefix)
            positions[row, :at] = torch.arange(at)
            owner[row, :at] = 0
            starts = []
            for number, branch in enumerate(prompt.branches, start=1):
                end = at + len(branch.tokens)
                tokens[row, at:end] = torch.tensor(branch.tokens)
                positions[row, at:end] = torch.arange(len(prompt.prefix), len(prompt.prefix) + len(branch.tokens))
                owner[row, at:end] = number
                starts.append(at)
                at = end
            places.append(starts)
        seen = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
        seen &= torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = torch.zeros(seen.shape, dtype=self._kind).masked_fill(~seen, torch.finfo(self._kind).min)
        return tokens.to(self.device), positions.to(self.device), mask[:, None].to(self.device), places


def _load_base(torch: Any, base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        # Eager attention: on CPUs it is faster than torch's fused kernel, and it takes any mask. The progress bars of
        # two libraries go to a place of their own: whoever calls this has one already.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                str(base.parent), gguf_file=base.name, dtype=torch.float32, attn_implementation="eager"
            )
    except Exception as error:  # whatever transformers raises for an architecture or type that it does not know
        raise ModelError(
            f"{base}: transformers cannot load it for training ({type(error).__name__}); take a GGUF of an "
            "architecture that it reads (Llama, Mistral, Qwen2, Qwen3 …)"
        ) from error
    model.config.use_cache = False
    return model
