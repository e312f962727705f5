"""QLoRA (Dettmers et al., arXiv 2305.14314): whether a base is trained in 4 bits, and how its layers get there.

The frozen weights of the base are held as 4-bit NormalFloat in blocks of 64 with double quantization, by bitsandbytes;
the adapter on top is trained in full. That saves memory of the GPU and nothing else: it is slower than plain LoRA, and
the adapter gets to know weights that are not quite those that will run. Knows no plan and no tokens.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

from medorchestra.errors import ModelError, SettingsError
from medorchestra.local.engine.gguf_file import read_gguf_header

Quantization = Literal["none", "nf4"]
"""What the base's linear layers are held in while an adapter is trained."""
QloraChoice = Literal["auto", "on", "off"]

BYTES_OF_A_WEIGHT = 2
"""On a GPU, plain LoRA holds the base in bfloat16."""
SHARE_OF_THE_GPU = 1 / 3
"""Of its memory, as much as the base may take; the rest is for what the backward pass needs to know."""


def check_choice(choice: str) -> None:
    """Raises SettingsError where it is none of `QloraChoice`."""
    if choice not in get_args(QloraChoice):
        raise SettingsError(f"qlora is {choice!r}; it must be one of {', '.join(get_args(QloraChoice))}")


def chosen_quantization(torch: Any, base: Path, choice: QloraChoice) -> Quantization:
    """What a base is trained in.

    `auto` is nf4 where torch computes on a GPU, bitsandbytes is installed, and the base's weights in bfloat16 would
    take more than a third of that GPU's memory: from about 2 billion parameters on a GPU of 12 GB, 4 on one of 24 GB,
    13 on one of 80 GB. Smaller bases are faster and more exact with plain LoRA. What counts is all of the memory and
    not what happens to be free, so that the same command on the same machine goes on with the same training.

    Args:
        torch: the package.
        base: the GGUF that is trained.
        choice: `on` and `off` decide; `auto` as told above.

    Raises:
        SettingsError: `on`, and there is no GPU or no bitsandbytes.
        ModelError: the base is no whole GGUF.
    """
    check_choice(choice)
    if choice == "off":
        return "none"
    has_gpu = bool(torch.cuda.is_available())
    if choice == "on":
        if not has_gpu:
            raise SettingsError(
                "qlora is on, and torch finds no CUDA GPU; train without it (--qlora off), or, where there is a GPU, "
                "install torch's CUDA build: pip install --force-reinstall torch"
            )
        if not _has_bitsandbytes():
            raise SettingsError("qlora is on, and bitsandbytes is not installed; run pip install bitsandbytes")
        return "nf4"
    if not has_gpu:
        return "none"
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    is_large = BYTES_OF_A_WEIGHT * parameters(base) > SHARE_OF_THE_GPU * memory
    return "nf4" if is_large and _has_bitsandbytes() else "none"


def parameters(base: Path) -> int:
    """Weights of a GGUF, counted from its header. Raises ModelError: it is no whole GGUF."""
    return sum(math.prod(tensor.shape) for tensor in read_gguf_header(base).tensors.values())


def quantize_layers(model: Any, *, device: str, compute: Any) -> None:
    """Put every linear layer but the unembedding into NF4, one by one, and onto the device.

    transformers reads a base out of its GGUF or quantizes it with bitsandbytes, not both at once: what it has read is
    quantized here. So the machine, not its GPU, must be able to hold the base in float32 once.

    Args:
        model: as transformers has loaded it; changed in place.
        device: where it will compute.
        compute: torch's type of the numbers that a layer's weights are unpacked to.

    Raises:
        ModelError: no linear layer is found, or bitsandbytes does not work on this device.
    """
    import bitsandbytes
    import torch

    unembedding = model.get_output_embeddings()
    names = [
        name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not unembedding
    ]
    if not names:
        raise ModelError("no linear layer is found in this base; train it without 4 bits: --qlora off")
    try:
        for name in names:  # no list of layers: each is let go when the small one has taken its place
            model.set_submodule(name, _small(bitsandbytes, model.get_submodule(name), compute).to(device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what bitsandbytes raises where its library does not fit torch's CUDA
        raise ModelError(
            f"bitsandbytes cannot quantize on {device} ({type(error).__name__}); `python -m bitsandbytes` says why; "
            "or train without it: --qlora off"
        ) from error
    model.is_loaded_in_4bit = True  # peft asks for it


def _small(bitsandbytes: Any, layer: Any, compute: Any) -> Any:
    """The layer that quantizes itself as soon as it is moved to a device."""
    form = {"compress_statistics": True, "quant_type": "nf4"}
    small = bitsandbytes.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=False, compute_dtype=compute, device="meta", **form
    )
    small.weight = bitsandbytes.nn.Params4bit(layer.weight.detach(), requires_grad=False, module=small, **form)
    small.bias = layer.bias
    return small


def _has_bitsandbytes() -> bool:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        return False
    return True
