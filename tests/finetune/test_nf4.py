"""Whether a base is trained in 4 bits, and a tiny training on one that is.

Where bitsandbytes is installed, its layers are what is tested, on the CPU; elsewhere layers that stand in for them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from local.engine.gguf_writing import TINY_MODEL, model_tensors, write_gguf

from medorchestra.errors import ModelError, SettingsError
from medorchestra.finetune import branched_model
from medorchestra.finetune.branched_model import BranchedModel, LoraSettings
from medorchestra.finetune.nf4 import chosen_quantization, parameters, quantize_layers
from medorchestra.finetune.training import Trainer, TrainingSettings
from medorchestra.finetune.training_prompts import Branch, BranchedPrompt

WEIGHTS = 3 * 8 + 2 * (8 * 8 + 8 * 16)
"""Of `model_tensors`."""
THIRD = 3 * 2 * WEIGHTS
"""Bytes of a GPU of which these weights fill a third in bfloat16."""


@pytest.fixture
def base(tmp_path):
    return write_gguf(tmp_path / "base.gguf", TINY_MODEL, model_tensors())


def with_gpu(memory):
    """What is asked of torch, on a machine with a GPU of so many bytes; None: without one."""
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: memory is not None,
            current_device=lambda: 0,
            get_device_properties=lambda _: SimpleNamespace(total_memory=memory),
        )
    )


@pytest.fixture
def installed(monkeypatch):
    """Says whether bitsandbytes is installed."""

    def set_(there):
        monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes") if there else None)

    return set_


# ------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("choice", "memory", "there", "found"),
    [
        ("auto", THIRD - 1, True, "nf4"),
        ("auto", THIRD, True, "none"),  # a base that fills no more than a third
        ("auto", THIRD - 1, False, "none"),
        ("auto", None, True, "none"),
        ("on", 1000 * THIRD, True, "nf4"),
        ("off", THIRD - 1, True, "none"),
        ("off", None, False, "none"),
    ],
)
def test_a_base_is_trained_in_4_bits_where_it_is_asked_for_or_pays(base, installed, choice, memory, there, found):
    installed(there)
    assert chosen_quantization(with_gpu(memory), base, choice) == found


def test_4_bits_that_are_asked_for_on_a_machine_without_a_gpu_are_refused(base, installed):
    installed(True)
    with pytest.raises(SettingsError, match="no CUDA GPU; train without it") as caught:
        chosen_quantization(with_gpu(None), base, "on")
    assert "pip install --force-reinstall torch" in str(caught.value)


def test_4_bits_that_are_asked_for_without_bitsandbytes_are_refused_with_the_command_that_installs_it(base, installed):
    installed(False)
    with pytest.raises(SettingsError, match="bitsandbytes is not installed; run pip install bitsandbytes"):
        chosen_quantization(with_gpu(THIRD), base, "on")


def test_another_choice_is_refused(base):
    with pytest.raises(SettingsError, match="qlora is 'yes'; it must be one of auto, on, off"):
        chosen_quantization(with_gpu(THIRD), base, "yes")


def test_the_weights_of_a_base_are_counted_without_reading_them(base):
    assert parameters(base) == WEIGHTS


# ------------------------------------------------------------------------------------ the layers


def stand_in(torch):
    """What is used of bitsandbytes: linear layers whose weights have 16 levels in every block of 64."""

    def rounded(weights, requires_grad, module, compress_statistics, quant_type):
        assert compress_statistics
        assert quant_type == "nf4"
        blocks = weights.reshape(-1, 64)
        most = blocks.abs().amax(dim=1, keepdim=True)
        levels = (blocks / most * 7.5 - 0.5).round() + 0.5
        return torch.nn.Parameter((levels / 7.5 * most).reshape(weights.shape), requires_grad=requires_grad)

    class Linear4bit(torch.nn.Linear):
        def __init__(self, columns, rows, *, bias, compute_dtype, device, compress_statistics, quant_type):
            super().__init__(columns, rows, bias=bias, device=device)

    module = ModuleType("bitsandbytes")
    module.__spec__ = importlib.util.spec_from_loader("bitsandbytes", None)
    module.nn = SimpleNamespace(Linear4bit=Linear4bit, Params4bit=rounded)
    return module


@pytest.fixture
def torch(monkeypatch):
    """torch, with bitsandbytes or what stands in for it."""
    torch = pytest.importorskip("torch", reason="needs the extra `finetune`")
    imports = pytest.importorskip("peft.import_utils", reason="needs the extra `finetune`")
    if not (imports.is_bnb_available() and imports.is_bnb_4bit_available()):  # peft remembers what it finds
        monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in(torch))
    return torch


@pytest.fixture
def tiny(torch, monkeypatch):
    """Makes `BranchedModel`s of two small layers of a Llama with random weights, on the CPU."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `finetune`")
    monkeypatch.setattr(branched_model, "_keep_memory", lambda: None)
    monkeypatch.setattr(branched_model, "_load_base", lambda torch, _: llama(torch, transformers))

    def make(quantization):
        lora = LoraSettings(rank=4, alpha=8)
        return BranchedModel(Path("base.gguf"), lora, seed=1, dtype="float32", quantization=quantization, device="cpu")

    return make


def llama(torch, transformers):
    torch.manual_seed(7)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=True,
            attn_implementation="eager",
            use_cache=False,
        )
    )


def prompt(number):
    """A report of some tokens and two questions with three answers each."""
    asked = [
        Branch("q", "?", ("a", "b", "c"), right, (5 + right, 6, 7), ((2, (10, 11, 12), right),))
        for right in (number % 3, (number + 1) % 3)
    ]
    return BranchedPrompt("case", "text", tuple((7 * i + number) % 97 for i in range(20 + number)), tuple(asked))


def losses(model):
    model.train(training=False)
    with model.torch.no_grad():
        return [float(loss) for loss in model.losses([prompt(1), prompt(2)])]


def small_layers(model):
    """Name -> layer, of those that bitsandbytes made."""
    import bitsandbytes

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)}


def test_all_linear_layers_but_the_unembedding_are_put_into_4_bits(torch):
    transformers = pytest.importorskip("transformers", reason="needs the extra `finetune`")
    model = llama(torch, transformers)
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    quantize_layers(model, device="cpu", compute=torch.float32)
    assert [name.rpartition(".")[2] for name in small_layers(model)] == [*kinds, *kinds]
    assert all(not layer.weight.requires_grad for layer in small_layers(model).values())
    assert torch.equal(model.lm_head.weight, before["lm_head.weight"])
    assert torch.equal(model.model.layers[0].self_attn.q_proj.bias, before["model.layers.0.self_attn.q_proj.bias"])


def test_a_base_in_4_bits_reads_nearly_as_it_does_in_full(tiny):
    full, small = losses(tiny("none")), losses(tiny("nf4"))
    assert small == pytest.approx(full, abs=0.1)
    assert small != pytest.approx(full, abs=1e-6)


def test_an_adapter_on_a_base_in_4_bits_has_the_names_and_the_first_weights_of_any_other(tiny, torch):
    plain, small = tiny("none"), tiny("nf4")
    assert (plain.quantization, small.quantization) == ("none", "nf4")
    assert plain.masters.keys() == small.masters.keys()
    assert all(torch.equal(weights, small.masters[name]) for name, weights in plain.masters.items())


def test_training_on_a_base_in_4_bits_changes_the_adapter_alone_and_the_loss_falls(tiny, torch):
    model = tiny("nf4")
    frozen = {name: layer.weight.clone() for name, layer in small_layers(model._model).items()}
    untrained = losses(tiny("nf4"))
    settings = TrainingSettings(batch=2, together=2, learning_rate=5e-3)
    maker = SimpleNamespace(prompts=lambda case: [prompt(case.number)])
    cases = [SimpleNamespace(number=1 + i % 2, text="") for i in range(40)]
    trained = Trainer(model, maker, cases, settings).train()
    assert trained.losses[-1][0] == 20
    assert all(torch.equal(layer.weight, frozen[name]) for name, layer in small_layers(model._model).items())
    assert sum(losses(model)) < 0.7 * sum(untrained)  # reading packs the weights anew, on a CPU


def test_what_is_computed_again_in_the_backward_pass_changes_no_gradient(tiny, torch):
    model = tiny("nf4")
    for weights in model.masters.values():
        weights.add_(0.02)  # or the first factor would have no gradient
    model.copy_masters()
    model.train(training=True)

    def gradients():
        torch.stack(model.losses([prompt(1), prompt(2)])).sum().backward()
        return model.take_gradients()

    layers = [layer for layer in model._body.layers if layer.gradient_checkpointing]
    assert len(layers) == 2
    again = gradients()
    for layer in layers:
        layer.gradient_checkpointing = False
    kept = gradients()
    assert all(torch.allclose(kept[name], again[name], atol=1e-6) for name in kept)
    assert max(float(found.abs().max()) for found in kept.values()) > 1e-2


# ------------------------------------------------------------------------------- what goes wrong


def test_a_base_without_linear_layers_is_refused(torch):
    model = torch.nn.Sequential(torch.nn.ReLU())
    model.get_output_embeddings = lambda: None
    with pytest.raises(ModelError, match="no linear layer is found in this base"):
        quantize_layers(model, device="cpu", compute=torch.float32)


def failing(torch, monkeypatch, error):
    def fail(*_, **__):
        raise error

    import bitsandbytes

    monkeypatch.setattr(bitsandbytes.nn, "Params4bit", fail)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    model.get_output_embeddings = lambda: None
    quantize_layers(model, device="cpu", compute=torch.float32)


def test_a_bitsandbytes_that_does_not_fit_torch_is_told_with_the_way_out(torch, monkeypatch):
    with pytest.raises(ModelError, match=r"bitsandbytes cannot quantize on cpu .*--qlora off") as caught:
        failing(torch, monkeypatch, RuntimeError("no native library"))
    assert "python -m bitsandbytes" in str(caught.value)


def test_a_gpu_that_is_too_small_is_no_fault_of_bitsandbytes(torch, monkeypatch):
    with pytest.raises(torch.OutOfMemoryError):
        failing(torch, monkeypatch, torch.OutOfMemoryError("out of memory"))
