"""Fused LoRA layers compute what PEFT's own do, forwards and backwards."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, get_peft_model

from medorchestra.finetune.fused_lora import fuse_lora_layers


class TwoLayers(torch.nn.Module):
    """Two linear layers, the first with a bias."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(12, 8, bias=True)
        self.second = torch.nn.Linear(8, 5, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def with_adapter(dropout=0.0):
    torch.manual_seed(1)
    form = LoraConfig(r=3, lora_alpha=6, lora_dropout=dropout, target_modules=["first", "second"])
    model = get_peft_model(TwoLayers(), form)
    for name, weights in model.named_parameters():
        if "lora_B" in name:  # at its start it is zero, and the adapter changes nothing
            torch.nn.init.normal_(weights)
    return model


def test_output_and_every_gradient_are_those_of_peft():
    plain = with_adapter()
    fused = copy.deepcopy(plain)
    assert fuse_lora_layers(torch, fused) == 2
    one = torch.randn(2, 7, 12, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    expected, found = plain(one), fused(other)
    assert torch.allclose(expected, found, atol=1e-6)
    expected.square().sum().backward()
    found.square().sum().backward()
    assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-5)
    trained = {name: weights.grad for name, weights in plain.named_parameters() if weights.requires_grad}
    assert len(trained) == 4
    for name, weights in fused.named_parameters():
        if name in trained:
            assert torch.allclose(weights.grad, trained[name], rtol=1e-4, atol=1e-4), name
        else:
            assert weights.grad is None


def test_layers_with_dropout_stay_as_they_are():
    assert fuse_lora_layers(torch, with_adapter(dropout=0.1)) == 0
