"""Workers that write with vLLM, over a stand-in for it; what only vLLM itself can show needs it and a GPU."""

import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError

from preference_data.records import Prompt
from tests.rounds_kit import settings
from tests.training_kit import World
from workbench import assembly
from workbench.config import NumericsSettings, OnlineSettings, TrainingSettings
from workbench.errors import ModelError
from workbench.models.fetch import default_directory, is_fetched
from workbench.models.forward import collate, completion_logps
from workbench.models.load import load_full, load_tokenizer, trainable
from workbench.models.sampling import Sampling, sample
from workbench.models.tokens import prompt_ids
from workbench.models.weights import set_weights, trained_weights
from workbench.training.online.asking import largest_group, prompts_of
from workbench.training.online.vllm_writer import VllmWriter
from workbench.training.online.writers import Writer

ONLINE = {"objective": "grpo", "rewards": [{"by": "rule:telegram"}]}
PROMPTS = [Prompt.of("tea moon"), Prompt.of("river stone paper"), Prompt.of("tea moon")]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    online = OnlineSettings.model_validate(ONLINE | {"workers": 1, "engine": "vllm", "max_new_tokens": 9})
    return SimpleNamespace(parent=world.base, training=TrainingSettings(rank=4, alpha=8), numerics=NumericsSettings(),
                           online=online, version=world.version, anchors=(), by_slice=())  # fmt: skip


class Engine:
    """Stands for vLLM's: reads the adapter it is told of and answers with the likeliest tokens."""

    def __init__(self, **given):
        self.given, self.adapters, self.asked = given, [], []

    def generate(self, prompts, params, *, lora_request, use_tqdm):
        assert use_tqdm is False
        self.adapters.append(lora_request)
        self.asked.append(params)
        path = self.given["model"]
        assert list(Path(lora_request.lora_path).glob("adapter_*"))
        model = PeftModel.from_pretrained(load_full(path), lora_request.lora_path)
        tokenizer = load_tokenizer(path)
        texts = {tuple(prompt_ids(tokenizer, each)): each for each in PROMPTS}
        known = [texts[tuple(each.prompt_token_ids)] for each in prompts]
        how = Sampling(params[0].max_tokens, 0.0, 1.0, 8, 0)
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=a.encoded.completion, cumulative_logprob=-1.5,
                                                     finish_reason="stop" if a.finished else "length")])
            for a in sample(model, tokenizer, known, how)
        ]  # fmt: skip


@pytest.fixture
def engine(monkeypatch):
    """A package of this name; the engines made of it."""
    made = []

    def make(**given):
        made.append(Engine(**given))
        return made[-1]

    package, adapters = ModuleType("vllm"), ModuleType("vllm.lora.request")
    vars(package).update(LLM=make, SamplingParams=SimpleNamespace, TokensPrompt=SimpleNamespace)
    vars(adapters).update(
        LoRARequest=lambda name, number, path: SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)
    )
    for module in (package, ModuleType("vllm.lora"), adapters):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def weights_of(job, seed):
    model = trainable(job.parent, job.training)
    torch.manual_seed(seed)
    set_weights(model, {name: 0.5 * torch.randn_like(w) for name, w in trained_weights(model).items()})
    return {name: tensor.numpy() for name, tensor in trained_weights(model).items()}


def test_it_writes_what_a_worker_of_our_own_would(job, engine):
    greedy = Sampling(6, 0.0, 1.0, 8, 3)
    writer, own = VllmWriter(job), Writer(job)
    found = []
    for seed in (1, 2):
        weights = weights_of(job, seed)
        answers = writer.write(weights, PROMPTS, greedy)
        assert answers == own.write(weights, PROMPTS, greedy)
        found.append([a.text for a in answers])
    assert found[0] != found[1], "other weights, other answers"
    (made,) = engine
    assert [a.lora_int_id for a in made.adapters] == [1, 2], "under a number it has seen it would keep the old weights"
    assert not any(Path(a.lora_path).exists() for a in made.adapters), "adapters pile up"


def test_prompts_that_fill_the_length_are_not_answered(job):
    tokenizer = load_tokenizer(job.parent.path)
    lengths = sorted(len(prompt_ids(tokenizer, each.prompt)) for each in prompts_of(job, tokenizer).asked)
    shorter = SimpleNamespace(**vars(job) | {"training": job.training.model_copy(update={"max_length": lengths[-1]})})
    kept = sorted(len(prompt_ids(tokenizer, each.prompt)) for each in prompts_of(shorter, tokenizer).asked)
    assert kept == [each for each in lengths if each < lengths[-1]]


@pytest.mark.parametrize(
    ("layout", "prompts"),
    [("plain", 9), ("shared", 2), ("packed", 2)],  # of nine answers each has its prompt, or eight have one
)
def test_the_largest_group_is_counted_as_it_is_laid_out(job, layout, prompts):
    tokenizer = load_tokenizer(job.parent.path)
    asked = prompts_of(job, tokenizer)
    assert asked.longest == max(len(prompt_ids(tokenizer, each.prompt)) for each in asked.asked)
    nine = job.online.model_copy(update={"samples": 9})
    assert largest_group(nine, asked.longest, layout) == prompts * asked.longest + 9 * 9


def test_what_the_engine_is_asked_for(job, engine):
    answers = VllmWriter(job).write(weights_of(job, 1), PROMPTS, Sampling(6, 1.0, 0.9, 8, 3))
    assert {a.logp for a in answers} == {-1.5}
    (made,) = engine
    assert (made.given["trust_remote_code"], made.given["load_format"]) == (False, "safetensors")
    assert (made.given["max_lora_rank"], made.given["dtype"]) == (8, "float32")
    tokenizer = load_tokenizer(job.parent.path)
    longest = prompts_of(job, tokenizer).longest
    assert made.given["max_model_len"] == longest + 9
    (asked,) = made.asked
    assert [(p.max_tokens, p.temperature, p.top_p, p.logprobs) for p in asked] == [(6, 1.0, 0.9, 0)] * 3
    seeds = [p.seed for p in asked]
    assert len(set(seeds)) == 3, "two answers to one prompt would be the same one"
    again = VllmWriter(job)
    again.write(weights_of(job, 1), PROMPTS, Sampling(6, 1.0, 0.9, 8, 3))
    assert [p.seed for p in engine[1].asked[0]] == seeds


def test_the_engine_is_chosen_where_workers_are_made(job, engine):
    assembly.writer(job)
    assert len(engine) == 1


def test_without_vllm_it_says_what_to_do(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match="pip install vllm where workers run, or leave engine out"):
        VllmWriter(job)


CUDA = {"device": "cuda", "dtype": "bfloat16"}


def test_who_wrote_is_made_up_for():
    def weighted(**changes):
        return OnlineSettings.model_validate(ONLINE | {"workers": 1} | changes).weighted

    assert weighted(engine="vllm")
    assert weighted(staleness=1)
    assert not weighted()
    assert not weighted(engine="vllm", objective="dpo")


@pytest.mark.parametrize(
    ("online", "more", "why"),
    [
        ({"workers": 0}, {"numerics": {"device": "cuda"}}, "there are none; set workers, such as 1"),
        ({"workers": 1}, {"numerics": {"device": "cpu", "dtype": "bfloat16"}}, "set numerics.device = 'cuda'"),
        ({"workers": 1}, {"numerics": {"device": "cuda"}}, "numerics.dtype = 'bfloat16'"),
        ({"workers": 1, "temperature": 0.5}, {"numerics": CUDA}, "use temperature = 1"),
        ({"workers": 1}, {"numerics": CUDA, "training": {"method": "full"}}, "training.method = 'lora'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(online, more, why):
    with pytest.raises(ValidationError, match=why):
        settings(version="v", online=ONLINE | {"engine": "vllm"} | online, **more)


def test_vllm_takes_what_it_is_given():
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.lora.request import LoRARequest

    wanted = {"max_tokens", "temperature", "top_p", "seed", "logprobs"}
    assert wanted <= set(inspect.signature(vllm.SamplingParams).parameters)
    assert {"lora_request", "use_tqdm"} <= set(inspect.signature(vllm.LLM.generate).parameters)
    assert LoRARequest("step", 1, "/step").lora_int_id == 1


@pytest.mark.gpu
def test_vllm_itself_draws_from_the_policy(job):
    """What it says a token's chance was is what our own forward pass gives, up to bfloat16."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    if not is_fetched(default_directory()):
        pytest.skip("SmolLM2-135M-Instruct is not there; `workbench model fetch` downloads it")
    path = str(default_directory())
    job = SimpleNamespace(**vars(job) | {"parent": job.parent._replace(path=path, base_path=path),
                                         "numerics": NumericsSettings(**CUDA)})  # fmt: skip
    weights = {name: 0.02 * array for name, array in weights_of(job, 1).items()}
    answers = VllmWriter(job).write(weights, PROMPTS, Sampling(32, 1.0, 1.0, 8, 3))
    model = trainable(job.parent, job.training)
    set_weights(model, {name: torch.tensor(array) for name, array in weights.items()})
    with torch.no_grad():
        found = completion_logps(model, collate([a.encoded for a in answers], pad_id=0, layout="plain")).tolist()
    for answer, logp in zip(answers, found, strict=True):
        assert abs(answer.logp - logp) <= 0.05 * len(answer.encoded.completion)
