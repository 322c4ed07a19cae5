"""Where policies are computed and in which precision: what stays the same, what is refused, what only a GPU can show."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn.attention.flex_attention import create_mask

from preference_data.records import Prompt
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench.config import NumericsSettings, RoundSettings
from workbench.errors import ModelError
from workbench.models import flex
from workbench.models.attention import attend, pieces
from workbench.models.flex import Piece
from workbench.models.forward import completion_logps
from workbench.models.load import Family, load_full
from workbench.models.numerics import apply_numerics, numerics_key
from workbench.models.sampling import Sampling, sample
from workbench.models.tokens import Encoded

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
ON_GPU = NumericsSettings(device="cuda")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace after one round, so that there is an adapter."""
    root = tmp_path_factory.mktemp("devices")
    ws = two_versions(root / "ws", build_tiny_model(root / "model"))
    child = ws.round(ws.plan(settings(version="polite", training={"learning_rate": 5e-2}))).run(where="here").child
    return ws.registry.ref(ws.registry.resolve("base")), ws.registry.ref(child)


EXAMPLES = [Encoded(tuple(range(5, 5 + n)), tuple(range(9, 9 + m))) for n, m in ((7, 3), (7, 5), (2, 8), (30, 1))]


def scores(family, policy, numerics):
    with apply_numerics(numerics), family.using(policy) as model:
        return completion_logps(model, family.collate(EXAMPLES)).cpu()


def test_frozen_matrices_in_bfloat16_change_no_score_and_no_adapter(world):
    """A family for bfloat16 holds them so; one for float32, under autocast, converts them every time."""
    half = NumericsSettings(dtype="bfloat16")
    held, converted = Family(world[0], half), Family(world[0])
    for policy in world:
        assert torch.equal(scores(held, policy, half), scores(converted, policy, half))
    saved = load_file(Path(world[1].path) / "adapter_model.safetensors")
    with held.using(world[1]) as model:
        found = {n.replace(".weight", ""): p for n, p in model.named_parameters() if "lora_" in n}
        kinds = {m.weight.dtype for n, m in model.named_modules() if n.endswith("_proj.base_layer")}
    assert kinds == {torch.bfloat16}
    assert len(found) == len(saved)
    for name, value in saved.items():
        own = next(p for n, p in found.items() if n.rsplit(".", 1)[0] == name.removesuffix(".weight"))
        assert torch.equal(own, value), name


def test_answers_in_bfloat16_are_nearly_those_in_float32(world):
    said = {}
    for dtype in ("float32", "bfloat16"):
        numerics = NumericsSettings(dtype=dtype)
        family = Family(world[0], numerics)
        with apply_numerics(numerics), family.using(world[1]) as model:
            answers = sample(
                model, family.tokenizer, [Prompt.of(f"tea {i}") for i in range(12)], Sampling(8, 1.0, 1.0, 4, 0)
            )
        said[dtype] = [token for a in answers for token in a.encoded.completion]
    same = sum(a == b for a, b in zip(*said.values(), strict=False)) / len(said["float32"])
    assert same > 0.8, "the same chances decide, so only a near tie can differ"


SPANS = tuple(Piece(*each) for each in ((0, 3, 0, 0), (3, 5, 0, 3), (5, 8, 0, 3), (8, 10, 8, 8), (10, 11, 8, 10)))
"""A prompt of three tokens with answers of two and three; one of two with an answer of one."""


def test_flex_attention_is_told_what_pieces_are():
    mask = create_mask(flex.block_mask(SPANS, torch.device("cpu")).mask_mod, 1, 1, 11, 11, device="cpu")[0, 0]
    expected = [
        "x..........",
        "xx.........",
        "xxx........",
        "xxxx.......",
        "xxxxx......",
        "xxx..x.....",
        "xxx..xx....",
        "xxx..xxx...",
        "........x..",
        "........xx.",
        "........xxx",
    ]
    assert ["".join(".x"[sees] for sees in row) for row in mask.int().tolist()] == expected


def test_flex_attention_is_told_what_all_prompts_begin_with():
    spans = (Piece(0, 2, 0, 0), Piece(2, 3, 2, 2, 2), Piece(3, 4, 2, 3, 2), Piece(4, 5, 4, 4, 2), Piece(5, 6, 4, 5, 2))
    mask = create_mask(flex.block_mask(spans, torch.device("cpu")).mask_mod, 1, 1, 6, 6, device="cpu")[0, 0]
    expected = ["x.....", "xx....", "xxx...", "xxxx..", "xx..x.", "xx..xx"]
    assert ["".join(".x"[sees] for sees in row) for row in mask.int().tolist()] == expected


def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="finds no GPU here; .* or set numerics.device = 'cpu'"):
        load_full(str(tmp_path), ON_GPU)
    with pytest.raises(ModelError, match="finds no GPU"), apply_numerics(ON_GPU):
        pass


def test_four_bits_need_a_gpu_an_adapter_and_their_package(tmp_path, monkeypatch):
    with pytest.raises(ValidationError, match="base = 'nf4' needs device = 'cuda'"):
        NumericsSettings(base="nf4")
    four = NumericsSettings(base="nf4", device="cuda")
    with pytest.raises(ValidationError, match="use training.method = 'lora'"):
        RoundSettings.model_validate({"numerics": four.model_dump(), "training": {"method": "full"}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("workbench.models.load.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs the package bitsandbytes: pip install bitsandbytes"):
        load_full(str(tmp_path), four)


def test_scores_of_other_numerics_are_not_mixed_in():
    kinds = [
        NumericsSettings(),
        NumericsSettings(dtype="bfloat16"),
        ON_GPU,
        NumericsSettings(device="cuda", base="nf4"),
    ]
    assert len({numerics_key(each) for each in kinds}) == 4
    assert numerics_key(NumericsSettings(threads=7)) == numerics_key(kinds[0])


@pytest.mark.gpu
@GPU
def test_flex_attention_on_a_gpu_is_attention_by_pieces():
    torch.manual_seed(0)
    on_cpu = [torch.randn(1, heads, 11, 16, requires_grad=True) for heads in (4, 2, 2)]
    on_gpu = [each.detach().cuda().requires_grad_() for each in on_cpu]
    spans, module = pieces([*SPANS]), torch.nn.Module()
    out = [attend(module, *given, spans.to(given[0].device))[0] for given in (on_cpu, on_gpu)]
    assert torch.allclose(out[1].cpu(), out[0], atol=1e-5)
    wanted = torch.randn_like(out[0])
    out[0].backward(wanted)
    out[1].backward(wanted.cuda())
    for there, here in zip(on_gpu, on_cpu, strict=True):
        assert torch.allclose(there.grad.cpu(), here.grad, atol=1e-4)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_on_a_gpu_are_those_of_the_cpu(world, dtype):
    here, there = (NumericsSettings(dtype=dtype, device=device) for device in ("cpu", "cuda"))
    for policy in world:
        found = scores(Family(world[0], there), policy, there)
        assert torch.allclose(
            found, scores(Family(world[0], here), policy, here), atol=0.2 if dtype == "bfloat16" else 1e-3
        )


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("base", ["whole", "nf4"])
def test_a_round_on_a_gpu_proves_its_wiring_and_ends(tmp_path, base):
    if base == "nf4":
        pytest.importorskip("bitsandbytes", reason="the package for four bits is not installed")
    ws = two_versions(tmp_path / "ws", build_tiny_model(tmp_path / "model", hidden=64))
    numerics = {"device": "cuda", "dtype": "bfloat16", "base": base}
    outcome = ws.round(ws.plan(settings(version="polite", numerics=numerics))).run(where="here")
    assert outcome.state in {"promoted", "rejected"}
