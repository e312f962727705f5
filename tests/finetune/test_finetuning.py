"""A tiny training, the whole way: an adapter that llama.cpp reads as PyTorch does, its record, and going on."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from local.engine.gguf_writing import TINY_MODEL, model_tensors, write_gguf
from plan_by_hand import PLAN_BY_HAND
from small_phrase_bank import small_bank

from medorchestra.errors import ModelError, SettingsError, StorageError
from medorchestra.finetune import finetuning
from medorchestra.finetune.branched_model import LoraSettings
from medorchestra.finetune.finetuning import PARITY_DIFFERENCE, FinetuneSettings, finetune
from medorchestra.finetune.training import Trained, TrainingSettings
from medorchestra.finetune.training_prompts import PromptMaker
from medorchestra.finetune.training_set import TrainingSetSettings, training_set
from medorchestra.local.adapters import find_adapter
from medorchestra.local.engine import model_files
from medorchestra.local.engine.adapter_fit import check_adapter
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.local.engine.llama_cpp import LlamaCppEngine
from medorchestra.local.engine.model_files import find_model
from medorchestra.local.engine.protocol import Conversation
from medorchestra.phrases.composition import Composer, CompositionSettings
from medorchestra.phrases.report_writing import WritingHabits
from medorchestra.plan import content_digest
from medorchestra.topics import guideline_folder

COMPACT = PLAN_BY_HAND.profile.model_copy(update={"prompt_form": "compact"})
PLAN = PLAN_BY_HAND.model_copy(update={"profile": COMPACT})
STEPS = 6
SETTINGS = FinetuneSettings(
    data=TrainingSetSettings(composed=0, repeats=3),
    training=TrainingSettings(batch=1, together=1, learning_rate=2e-3, save_every=0.0),
    lora=LoraSettings(rank=4, alpha=8),
)


def composed_cases():
    """Two reports, which are read three times each: six steps."""
    composer = Composer(small_bank(), PLAN, "development")
    return [composer.compose(seed).case for seed in (1, 2)]


CASES = composed_cases()


@pytest.fixture(scope="module", autouse=True)
def short_proof():
    """Parity on one report is enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "PARITY_CASES", 1)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An uninterrupted run: the adapter and its progress, step by step."""
    seen = []
    out = tmp_path_factory.mktemp("trained") / "adapters" / "tiny.gguf"
    return finetune(PLAN, CASES, out, settings=SETTINGS, progress=seen.append), seen


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Where the adapter of a run would lie that was killed after its third step."""
    out = tmp_path_factory.mktemp("killed") / "tiny.gguf"

    def kill(done):
        if done.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(PLAN, CASES, out, settings=SETTINGS, progress=kill)
    assert not out.exists()
    return out


def weights(path):
    """Tensor -> its numbers, of an adapter's GGUF."""
    import gguf

    return {tensor.name: tensor.data.astype(np.float32) for tensor in gguf.GGUFReader(path).tensors}


# ---------------------------------------------------------------------------- before the model


def test_an_adapter_that_is_not_named_gguf_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"name the adapter's file with the ending \.gguf"):
        finetune(PLAN, CASES, tmp_path / "adapter.bin", settings=SETTINGS)


def test_training_loads_no_model_where_loading_is_switched_off(tmp_path):
    with pytest.raises(ModelError, match="loading models is switched off"):
        finetune(PLAN, CASES, tmp_path / "adapter.gguf", settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------- what is trained is put in its place


class TensorOnCpu:
    """What PyTorch would hand out for a weight."""

    def __init__(self, numbers):
        self._numbers = numbers

    def cpu(self):
        return self

    def numpy(self):
        return self._numbers


class TrainedAlready:
    """Stands for the model in PyTorch and for its trainer: the weights are there."""

    dtype = "float32"
    first, second = np.ones((4, 8), np.float32), np.zeros((8, 4), np.float32)

    def __init__(self, *_, quantization="none", device=None, **__):
        self.quantization, self.device = quantization, device or "cuda"
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.default.weight"
        self.masters = {name.format("A"): TensorOnCpu(self.first), name.format("B"): TensorOnCpu(self.second)}

    def train(self, progress):
        return Trained(losses=((6, 0.5),), tokens=1_234, seconds=9.87)

    def forget(self):
        pass

    def load(self, masters):
        self.masters = masters


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """`finetune` of a tiny base without a model; calling it with a parity makes that the finding of the proof."""
    pytest.importorskip("gguf", reason="needs the extra `finetune`")
    sizes = {"llama.attention.head_count": 2, "llama.attention.head_count_kv": 1}
    base = write_gguf(tmp_path / "base.gguf", TINY_MODEL | sizes, model_tensors())
    monkeypatch.setattr(model_files, "ALLOW_MODEL_LOADING", True)
    monkeypatch.setattr(finetuning, "LlamaCppEngine", lambda _: nullcontext())
    monkeypatch.setattr(finetuning, "PromptMaker", lambda *_: SimpleNamespace(unanswerable={"tumor_size_cm": 3}))
    monkeypatch.setattr(finetuning, "BranchedModel", TrainedAlready)
    monkeypatch.setattr(finetuning, "Trainer", TrainedAlready)

    def run(parity, settings=SETTINGS):
        def measured(plan, cases, model, base, adapter):
            check_adapter(read_gguf_header(adapter), read_gguf_header(base))
            return parity

        monkeypatch.setattr(finetuning, "measure_parity", getattr(run, "measure", measured))
        return finetune(PLAN, CASES, tmp_path / "adapters" / "tiny.gguf", base=base, settings=settings)

    return run


def test_an_adapter_that_is_proven_is_put_in_its_place_with_its_record(quick, tmp_path):
    found = quick(0.01)
    path = tmp_path / "adapters" / "tiny.gguf"
    assert found.path == path
    assert json.loads(path.with_suffix(".json").read_text("utf-8")) == found.record
    assert found.record["adapter_digest"] == file_digest(path)
    assert found.record["base_digest"] == file_digest(tmp_path / "base.gguf")
    assert (found.record["tokens"], found.record["seconds"], found.record["parity"]) == (1_234, 9.9, 0.01)
    assert found.record["questions_left_out"] == {"tumor_size_cm": 3}
    assert find_adapter(PLAN, tmp_path / "base.gguf", tmp_path / "plan.yaml") == path


@pytest.mark.parametrize("parity", [0.051, float("nan")])
def test_an_adapter_that_fails_the_proof_does_not_replace_one_that_held(quick, tmp_path, monkeypatch, parity):
    path = quick(0.01).path
    there = (path.read_bytes(), path.with_suffix(".json").read_bytes())
    monkeypatch.setattr(TrainedAlready, "second", np.ones((8, 4), np.float32))
    with pytest.raises(ModelError, match=r"llama\.cpp reads with it otherwise than PyTorch"):
        quick(parity, replace(SETTINGS, training=replace(SETTINGS.training, seed=99)))
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == there
    assert find_adapter(PLAN, tmp_path / "base.gguf", tmp_path / "plan.yaml") == path


@pytest.fixture
def in_4_bits(quick, monkeypatch):
    """`quick` with a large base; called with two parities: of the trained base, and of the one that runs."""
    measured = []

    def run(trained, executed):
        monkeypatch.setattr(finetuning, "chosen_quantization", lambda *_: "nf4")
        monkeypatch.setattr(finetuning, "version", lambda name: f"of {name}")
        found = iter((trained, executed))

        def measure(plan, cases, model, base, adapter):
            measured.append(model)
            return next(found)

        quick.measure = measure
        return quick(None)

    return run, measured


def test_an_adapter_of_4_bits_is_proven_on_the_base_that_runs_and_says_how_far_the_trained_one_was(in_4_bits, quick):
    run, measured = in_4_bits
    plain = quick(0.01).record
    record = run(0.2, 0.02).record
    assert [(model.quantization, model.device) for model in measured] == [("nf4", "cuda"), ("none", "cpu")]
    assert measured[1].masters is measured[0].masters
    assert (record["quantization"], record["parity"], record["difference_to_trained_base"]) == ("nf4", 0.02, 0.2)
    assert (record["device"], record["versions"]["bitsandbytes"]) == ("cuda", "of bitsandbytes")
    assert plain["quantization"] == "none"
    assert "difference_to_trained_base" not in plain
    assert "bitsandbytes" not in plain["versions"]
    assert record["identity"] != plain["identity"]


def test_an_adapter_of_4_bits_that_reads_like_its_own_base_alone_fails_the_proof(in_4_bits, tmp_path):
    run, _ = in_4_bits
    with pytest.raises(ModelError, match=r"llama\.cpp reads with it otherwise than PyTorch"):
        run(0.001, 0.2)
    assert not (tmp_path / "adapters" / "tiny.gguf").exists()


@pytest.mark.parametrize(("quantization", "way_out"), [("none", "train in 4 bits"), ("nf4", "take a smaller base")])
def test_a_gpu_that_is_too_small_is_told_with_the_way_out(quick, monkeypatch, quantization, way_out):
    torch = pytest.importorskip("torch", reason="needs the extra `finetune`")

    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(TrainedAlready, "train", fail)
    monkeypatch.setattr(finetuning, "chosen_quantization", lambda *_: quantization)
    with pytest.raises(ModelError, match=f"base.gguf: the GPU's memory is too small to train it; {way_out}"):
        quick(0.01)


def test_an_adapter_that_was_never_proven_is_not_found(quick, tmp_path):
    with pytest.raises(ModelError, match=r"llama\.cpp reads with it otherwise than PyTorch"):
        quick(0.4)
    assert find_adapter(PLAN, tmp_path / "base.gguf", tmp_path / "plan.yaml") is None
    assert list((tmp_path / "adapters").glob("*.json")) == []


# --------------------------------------------------------------------------------- the identity


def shipped():
    """The record of the adapter that comes with this library, and the settings that it tells."""
    path = guideline_folder("pancreatic_cancer") / "adapters" / "SmolLM2-135M-Instruct.json"
    record = json.loads(path.read_text("utf-8"))
    told = record["settings"]
    composition = told["data"]["composition"]
    sets = {name: frozenset(composition[name]) for name in ("without_styles", "only_styles")}
    composed = CompositionSettings(**composition | sets | {"habits": WritingHabits(**composition["habits"])})
    data = {"without_styles": frozenset(told["data"]["without_styles"]), "composition": composed}
    settings = FinetuneSettings(
        data=TrainingSetSettings(**told["data"] | data),
        training=TrainingSettings(**told["training"]),
        lora=LoraSettings(**told["lora"]),
        dtype=told["dtype"],
        trained_on=told["trained_on"],
    )
    return record, settings


@pytest.mark.parametrize("qlora", ["auto", "on", "off"])
def test_what_was_trained_before_there_were_4_bits_keeps_its_identity(monkeypatch, qlora):
    """Or the shipped adapter would be trained again by whoever makes it anew, and a killed training begin anew."""
    record, settings = shipped()
    plan = SimpleNamespace(
        topic=record["topic"], digest=record["plan_digest"], questions_digest=record["questions_digest"]
    )
    data = SimpleNamespace(digest=record["data_digest"], counts=record["data"])
    monkeypatch.setattr(finetuning, "file_digest", lambda _: record["base_digest"])

    def identity(quantization):
        facts = finetuning._facts(plan, Path(record["base"]), data, replace(settings, qlora=qlora), quantization)
        return content_digest(facts)

    assert identity("none") == record["identity"]
    assert identity("nf4") != record["identity"]


def test_a_choice_of_4_bits_that_there_is_not_is_refused():
    with pytest.raises(SettingsError, match="qlora is 'maybe'; it must be one of auto, on, off"):
        FinetuneSettings(qlora="maybe")


# ------------------------------------------------------------------------------- a whole run


@pytest.mark.model
def test_the_loss_of_the_same_reports_falls(trained):
    _, seen = trained
    assert [(done.step, done.steps) for done in seen] == [(step, STEPS) for step in range(1, STEPS + 1)]
    losses = [done.loss for done in seen[:-1]]  # the last is the mean of all
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    assert all(done.tokens_per_second > 0 and done.seconds_left >= 0 for done in seen)


@pytest.mark.model
def test_llama_cpp_reads_with_the_adapter_what_pytorch_reads(trained):
    adapter, _ = trained
    assert 0 <= adapter.parity < PARITY_DIFFERENCE


@pytest.mark.model
def test_the_record_beside_the_adapter_says_how_it_came_about(trained):
    adapter, seen = trained
    record = json.loads(adapter.path.with_suffix(".json").read_text("utf-8"))
    assert record == adapter.record
    base = find_model("default")
    told = {
        "topic": "pancreatic_cancer",
        "plan_digest": PLAN.digest,
        "questions_digest": PLAN.questions_digest,
        "base": base.name,
        "base_digest": file_digest(base),
        "trained_on": "synthetic",
        "data_digest": training_set(PLAN, CASES, None, SETTINGS.data).digest,
        "data": {"hand": 0, "planner": 0, "composed": 2},
        "adapter_digest": file_digest(adapter.path),
    }
    assert {key: record[key] for key in told} == told
    assert record["settings"]["lora"] == {"rank": 4, "alpha": 8, "dropout": 0.0}
    assert record["settings"]["training"]["learning_rate"] == 2e-3
    assert record["losses"] == [[STEPS, round(seen[-1].loss, 4)]]
    assert record["tokens"] > 1_000
    assert set(record["versions"]) == {"torch", "transformers", "peft", "gguf", "llama-cpp-python"}
    assert record["parity"] == round(adapter.parity, 4)


@pytest.mark.model
def test_the_adapter_itself_says_for_which_base_and_questions_it_is(trained):
    header = read_gguf_header(trained[0].path)
    record = trained[0].record
    for key in ("topic", "questions_digest", "base_digest", "trained_on"):
        assert header.text(f"medorchestra.{key}") == record[key]


@pytest.mark.model
def test_the_adapter_is_found_beside_its_plan_and_not_beside_another(trained):
    adapter, _ = trained
    plan_file = adapter.path.parents[1] / "plan.yaml"
    base = find_model("default")
    assert find_adapter(PLAN, base, plan_file) == adapter.path
    assert find_adapter(PLAN_BY_HAND, base, plan_file) is None  # other prompts: the instructed ones


@pytest.mark.model
def test_an_engine_with_the_adapter_answers_its_questions_better(trained, default_engine):
    adapter, _ = trained
    (prompt,) = PromptMaker(PLAN, default_engine).prompts(CASES[0])

    def right(engine):
        with engine.open(Conversation(PLAN.head(), prompt.text)) as session:
            return [
                session.choose(branch.question, branch.candidates).probabilities[branch.right]
                for branch in prompt.branches
            ]

    with LlamaCppEngine(adapter=adapter.path) as engine:
        tuned = right(engine)
        assert engine.identity.adapter_digest == file_digest(adapter.path)
    bare = right(default_engine)
    assert tuned != pytest.approx(bare, abs=1e-2)
    assert sum(tuned) > sum(bare) + 0.1 * len(bare)


@pytest.mark.model
def test_the_adapter_on_another_base_is_refused(trained, tmp_path):
    adapter, _ = trained
    base = find_model("default")
    other = tmp_path / "other.gguf"
    other.write_bytes(base.read_bytes() + b"\0")  # of the same shapes, and yet another file
    with pytest.raises(ModelError, match="trained on another base") as caught:
        LlamaCppEngine(other, adapter=adapter.path)
    assert file_digest(base)[:19] in str(caught.value)
    assert file_digest(other)[:19] in str(caught.value)


# ---------------------------------------------------------------------------- killed, and on


@pytest.mark.model
def test_a_checkpoint_of_other_settings_is_refused_and_kept(killed):
    checkpoint = killed.with_suffix(".training") / "checkpoint.pt"
    before = file_digest(checkpoint)
    other = replace(SETTINGS, training=replace(SETTINGS.training, learning_rate=1e-3))
    with pytest.raises(SettingsError, match="begun with another plan, base, cases or settings") as caught:
        finetune(PLAN, CASES, killed, settings=other)
    assert str(checkpoint) in str(caught.value)
    assert file_digest(checkpoint) == before
    assert not killed.exists()


@pytest.mark.model
def test_a_killed_run_goes_on_and_ends_with_the_weights_of_an_uninterrupted_one(trained, killed):
    adapter, seen = trained
    more = []
    again = finetune(PLAN, CASES, killed, settings=SETTINGS, progress=more.append)
    assert [done.step for done in more] == [4, 5, 6]
    assert more[-1].loss == pytest.approx(seen[-1].loss, abs=1e-3)
    found, wanted = weights(again.path), weights(adapter.path)
    assert found.keys() == wanted.keys()
    # Threads may add up in another order: the last bits are not promised.
    assert all(np.allclose(found[name], wanted[name], atol=2e-3) for name in wanted)
    assert not killed.with_suffix(".training").joinpath("checkpoint.pt").exists()
    assert again.record["tokens"] == adapter.record["tokens"]


@pytest.mark.model
def test_a_damaged_checkpoint_is_refused_with_the_way_out(tmp_path):
    folder = tmp_path / "tiny.training"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StorageError, match=r"cannot be read \(\w+\); remove it to begin anew"):
        finetune(PLAN, CASES, tmp_path / "tiny.gguf", settings=SETTINGS)


def test_the_same_training_again_finds_what_it_has_made(quick, monkeypatch):
    first = quick(0.01)
    monkeypatch.setattr(finetuning, "Trainer", lambda *_, **__: pytest.fail("it was trained again"))
    again = quick(0.01)
    assert (again.path, again.record) == (first.path, first.record)
