"""From a job to a child: load the parent, prove the wiring, train, save."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.dpo_config import DPOConfig

from preference_data.records import digest
from preference_data.versions import load_version
from workbench.config import AI, BY_BATCH, kl_terms
from workbench.errors import ConfigError, JournalError, StopRequested, WiringError
from workbench.maths import PairLogps
from workbench.models.forward import Layout
from workbench.models.free import free_memory
from workbench.models.load import family_of, load_tokenizer, save_adapter, trainable
from workbench.models.numerics import apply_numerics, give_back_memory
from workbench.models.packed import hold_in_half
from workbench.models.score_table import PairScore, read_table
from workbench.models.sharing import layout_of
from workbench.models.tokens import pad_id
from workbench.objects import entry
from workbench.policies.checkpoints import kind_of
from workbench.reward_tasks import RewardJob
from workbench.tasks import PolicyRef, Progress, Report, TrainJob
from workbench.training.after import Refinement
from workbench.training.batches import (
    PairCollator,
    TrainRow,
    as_columns,
    batch_of,
    batch_tokens,
    in_order,
    train_rows,
)
from workbench.training.carried import Carried, MovingReference
from workbench.training.checkpoints import newest_verified
from workbench.training.held import carried_by, penalties_of
from workbench.training.lanes import has_lanes, lanes
from workbench.training.memory import Fit, fit, recompute
from workbench.training.online.asking import Prompts, fresh_answers, largest_group, prompts_of
from workbench.training.online.trainer import OnlineTrainer
from workbench.training.online.watched import guard_of
from workbench.training.online.writers import Ahead, Write, own_answers
from workbench.training.proof import (
    FEWER_PAIRS,
    PROOF_PAIRS,
    Proof,
    prove_anchors,
    prove_child,
    prove_reference,
    prove_start,
)
from workbench.training.trainer import AnchoredDPOTrainer, policy_logps
from workbench.training.watch import KlProbe, Watch, require_finite_weights

PROBE_ROWS, PROBE_TOKENS = 2, 64
"""Pairs whose answers tell KL for the progress bar, and how much of each is looked at: logits of all of it are kept."""
ONLINE_CHECKPOINTS = 5
COPY_BYTES = 4


def optimise(job: TrainJob, report: Report, write: Write | None = None) -> None:
    """Train the child of a job and write its weights into `job.output`.

    Args:
        job: everything that determines the child.
        report: told every step.
        write: who writes fresh answers; the trainer itself where None.

    Killed and called again with the same job it goes on from the newest verified checkpoint and ends with the same
    weights (CPU, same thread count).

    Raises:
        WiringError: the round would not train what its plan says.
        NumericsError: a loss, gradient or weight is not finite.
        StopRequested: `report` answered True; a checkpoint was written.
    """
    tokenizer = load_tokenizer(job.parent.base_path)
    tables = {digest: read_table(Path(folder)) for digest, folder in job.tables.items()}
    anchors = [(anchor, tables[anchor.policy.digest]) for anchor in job.anchors]
    rows = train_rows(
        list(load_version(Path(job.version.path)).pairs("train")),
        tokenizer,
        max_length=job.training.max_length,
        parent=tables[job.parent.digest],
        anchors=anchors,
        by_slice=job.by_slice,
    )
    if not rows:
        raise WiringError(
            f"version {job.version.digest[:12]} has no training pair shorter than training.max_length = "
            f"{job.training.max_length} tokens; raise it"
        )
    ordered = in_order(rows, epochs=job.training.epochs, seed=job.training.seed)
    proof_rows = ordered[:PROOF_PAIRS]
    prove_reference(rows, anchors)
    # That the parent's scores are its own is seen when training starts from it.
    others = [(a.policy, table) for a, table in anchors if a.policy != job.parent]
    gap = _prove_scores(job, sorted(proof_rows, key=_tokens)[:FEWER_PAIRS], others)
    with apply_numerics(job.numerics):
        trainer = _trainer(job, ordered, tokenizer, report, write=write)
        proof = _prove_start(trainer, proof_rows, job, tables[job.parent.digest], gap=gap)
        report(Progress("prove", 1, 1, asdict(proof)))
        last_rows = proof_rows[:FEWER_PAIRS]
        trained = _trained(trainer, job, last_rows, report=report)
        del trainer
    give_back_memory()
    prove_child(family_of(job.parent, job.numerics), last_rows, _saved(job), trained=trained, numerics=job.numerics)


def _trained(
    trainer: AnchoredDPOTrainer, job: TrainJob, proof_rows: Sequence[TrainRow], *, report: Report
) -> PairLogps:
    """Train and save; what the policy says of the proof's rows afterwards."""
    refinement = Refinement(trainer, job)
    probe = None
    if not job.online.on:  # fresh answers have a KL of their own
        probed = trainer.pairs.at_once([_shortened(row) for row in as_columns(proof_rows[:PROBE_ROWS])])
        probe = KlProbe(trainer.model, batch_of(probed).rows, job.numerics)
    with lanes(job.numerics, wanted=trainer.pairs.in_lanes) as trainer.lanes:
        train_to_end(trainer, job, carried_by(trainer, job), report, probe=probe)
    refinement.apply(report)
    _save(trainer, job)
    return policy_logps(trainer, trainer.pairs.at_once(as_columns(proof_rows)))


def _tokens(row: TrainRow) -> int:
    return len(row.chosen.prompt) + len(row.chosen.completion) + len(row.rejected.completion)


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    return row | {side: row[side][:PROBE_TOKENS] for side in ("chosen", "rejected")}


def _prove_scores(
    job: TrainJob, rows: Sequence[TrainRow], tables: Sequence[tuple[PolicyRef, dict[str, PairScore]]]
) -> float:
    """The largest gap between cached scores and the policies' own, nats."""
    if not tables:
        return 0.0
    places = {anchor.policy: f"anchor {i + 1}" for i, anchor in enumerate(job.anchors)} | {job.parent: "parent"}
    named = [(places[policy], policy, table) for policy, table in tables]
    return prove_anchors(family_of(job.parent, job.numerics), rows, named, job.numerics)


def _trainer(
    job: TrainJob,
    rows: Sequence[TrainRow],
    tokenizer: PreTrainedTokenizerBase,
    report: Report,
    *,
    write: Write | None,
) -> AnchoredDPOTrainer:
    t = job.training
    torch.manual_seed(t.seed)
    model = trainable(job.parent, t, job.numerics)
    layout = layout_of(model)
    if job.numerics.dtype == "bfloat16":
        hold_in_half(model, training=True)
    columns = as_columns(rows)
    batches = [batch_tokens(columns[i : i + t.batch_size], layout) for i in range(0, len(columns), t.batch_size)]
    prompts = prompts_of(job, tokenizer) if job.online.on else None
    if prompts:
        batches = [largest_group(job.online, prompts.longest, layout)]
    fits = fits_kept(job, model.train(), batches, layout)
    given_up = {"recompute": fits.recompute, "plain_rows": layout == "plain", "padded_rows": layout == "shared"}
    facts = {"tokens_per_pass": fits.tokens} | {name: 1.0 for name, is_so in given_up.items() if is_so}
    facts |= {"prompts_left_out": prompts.left_out} if prompts and prompts.left_out else {}
    report(Progress("fit", 1, 1, facts))
    whole = _in_one_pass(job, most=max(batches), fits=fits.tokens)
    pairs = PairCollator(pad_id(tokenizer), layout=layout, tokens=fits.tokens, whole=whole)
    built_with: dict[str, Any] = {"model": model, "processing_class": tokenizer, "data_collator": pairs}
    trainer = _of_fresh_answers(job, prompts, write, **built_with) if prompts else _of_pairs(job, columns, **built_with)
    trainer.remove_callback(PrinterCallback)
    trainer.objective_settings, trainer.pairs = job.objective, pairs
    trainer.token_metrics = t.token_metrics
    trainer.penalties = penalties_of(job, trainer)
    pairs.in_lanes = has_lanes(job, list(trainer.penalties), layout, recompute=fits.recompute)
    trainer.moving = MovingReference(model, job.moving) if job.moving.share else None
    return trainer


def fits_kept(job: TrainJob | RewardJob, model: Any, batches: Sequence[int], layout: Layout) -> Fit:
    """How a batch is computed; training that goes on from a checkpoint goes on as it began, or its sums would differ."""
    file = Path(job.scratch) / "fit.json"
    if file.exists() and newest_verified(Path(job.scratch), job.plan):
        found = Fit(**json.loads(file.read_text(encoding="utf-8")))
        if found.recompute:
            recompute(model)
        return found
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    free = free_memory(job.numerics.device) - COPY_BYTES * trained * _copies(job)
    others = kl_terms(job.penalties, job.online, len(job.anchors)) if isinstance(job, TrainJob) else 0
    found = fit(model, batches, layout=layout, free=free, others=others)
    file.write_text(json.dumps(found._asdict()), encoding="utf-8")
    return found


def _copies(job: TrainJob | RewardJob) -> int:
    """How many copies of the trained weights are made beside the model once it is known how batches are computed."""
    if isinstance(job, RewardJob):
        return 0
    penalties = job.penalties
    anchors = len(job.anchors) if penalties.kl_new or penalties.kl_old or job.online.on else 0
    anchors += (job.after.merge == "slerp") + len(job.lineage) * bool(penalties.orthogonal)
    anchors += 2 * (job.merging.kind != "none")
    to_base = penalties.kl_base or (job.online.on and job.online.kl_base_budget)
    judged = job.online.on and job.online.guard and job.online.guard.by.startswith(AI)
    return anchors + bool(to_base) + bool(judged) + 2 * bool(penalties.ewc) + bool(job.moving.share) + 1


def config_of(job: TrainJob | RewardJob, rows: int, batch_size: int, accumulation: int) -> DPOConfig:
    """TRL's settings of one pass over so many rows."""
    t, steps = job.training, expected_steps(rows, batch_size, accumulation)
    config = DPOConfig(
        output_dir=job.scratch,
        use_cpu=job.numerics.device == "cpu",
        bf16=job.numerics.dtype == "bfloat16",
        activation_checkpointing=False,
        learning_rate=t.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(t.warmup_share * steps),
        optim="adamw_torch_fused",
        max_grad_norm=t.max_grad_norm,
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        precompute_ref_log_probs=True,
        disable_dropout=True,
        seed=t.seed,
        save_strategy="steps",
        save_steps=_save_every(job),
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(job.report_to) or "none",
        run_name=f"round-{job.plan[:12]}",
        disable_tqdm=True,
    )
    if config.n_gpu > 1:  # of several, transformers would use all, each for a part of a batch
        config._n_gpu = 1  # noqa: SLF001 - the only place where it can be said
    return config


def _save_every(job: TrainJob | RewardJob) -> int:
    """Steps between checkpoints; few where a step asks for answers and rewards, which take long and may fail."""
    often = isinstance(job, TrainJob) and job.online.on
    return min(job.training.checkpoint_every, ONLINE_CHECKPOINTS) if often else job.training.checkpoint_every


def _of_pairs(job: TrainJob, columns: list[dict[str, Any]], **built_with: Any) -> AnchoredDPOTrainer:
    """The trainer of the version's pairs."""
    args = config_of(job, len(columns), job.training.batch_size, job.training.accumulation)
    return AnchoredDPOTrainer(args=args, train_dataset=Dataset.from_list(columns), **built_with)


def _of_fresh_answers(job: TrainJob, prompts: Prompts, write: Write | None, **built_with: Any) -> OnlineTrainer:
    """The trainer of fresh answers to the pairs' prompts."""
    fresh = fresh_answers(job, built_with["model"], prompts.asked)
    rows = Dataset.from_list([{"index": i} for i in fresh.order])
    args = config_of(job, len(fresh.order), fresh.per_step, 1)
    trainer = OnlineTrainer(args=args, train_dataset=rows, **built_with)
    trainer.data_collator = lambda rows: {"indices": [row["index"] for row in rows]}
    write = write or own_answers(trainer, job.numerics)
    fresh.ahead = Ahead(trainer.model, write, fresh.of_step, staleness=job.online.staleness)
    trainer.fresh, fresh.guard = fresh, guard_of(job, trainer)
    return trainer


def _in_one_pass(job: TrainJob, *, most: int, fits: int) -> bool:
    """Whether a batch must not be computed in parts, because its pairs are weighed against each other."""
    if job.objective.loss not in BY_BATCH:
        return False
    if most > fits:
        raise ConfigError(
            f"objective.loss = '{job.objective.loss}' weighs the pairs of a batch against each other, but only {fits} tokens "
            f"of {most} fit into memory at once; lower training.batch_size or training.max_length"
        )
    return True


def _prove_start(
    trainer: AnchoredDPOTrainer, rows: Sequence[TrainRow], job: TrainJob, scores: dict[str, PairScore], *, gap: float
) -> Proof:
    measured = policy_logps(trainer, trainer.pairs.at_once(as_columns(rows)))
    try:
        return prove_start(measured, rows, job.objective, job.numerics, gap=gap)
    except WiringError:
        _prove_scores(job, rows, [(job.parent, scores)])  # is it the scores that are not the parent's?
        raise


def train_to_end(
    trainer: AnchoredDPOTrainer,
    job: TrainJob | RewardJob,
    carried: Sequence[Carried],
    report: Report,
    *,
    probe: KlProbe | None = None,
) -> None:
    """Take all steps, from the newest verified checkpoint on if there is one.

    Args:
        trainer: made ready.
        job: whose checkpoints they are.
        carried: what changes from step to step beside the weights.
        report: told every step.
        probe: measures KL for the progress bar.

    Raises:
        StopRequested: `report` answered True; a checkpoint was written.
        NumericsError: a loss, gradient or weight is not finite.
        JournalError: it ended after another number of steps than planned.
    """
    per_step = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    watch = Watch(report, probe, pairs_per_step=per_step, plan=job.plan, carried=carried)
    trainer.add_callback(watch)
    resume = newest_verified(Path(job.scratch), job.plan)
    if resume:
        for each in carried:
            each.load(resume)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if watch.stopped:
        raise StopRequested("the round was asked to stop; a checkpoint was kept; run the same round again to go on")
    expected = expected_steps(len(trainer.train_dataset), per_step, 1)
    if trainer.state.global_step != expected:
        raise JournalError(
            f"training ended after {trainer.state.global_step} optimizer steps, the plan has {expected}; "
            "start the round again"
        )


def _save(trainer: AnchoredDPOTrainer, job: TrainJob) -> None:
    model: Any = trainer.model
    require_finite_weights(model)
    output = Path(job.output)
    if job.training.method == "lora":
        save_adapter(model, output)
    else:
        _save_full(model, output, job)


def _saved(job: TrainJob) -> PolicyRef:
    """The child by what its files hold: the registry names it later."""
    output = Path(job.output)
    weights = digest([entry(file).sha256 for file in sorted(output.glob("*.safetensors"))])
    return job.parent._replace(digest=weights, kind=kind_of(output), path=job.output)


def _save_full(model: Any, output: Path, job: TrainJob) -> None:
    model.save_pretrained(output)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        source = Path(job.parent.base_path) / name
        if source.exists():
            shutil.copyfile(source, output / name)


def expected_steps(pairs: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps of one pass over `pairs` rows."""
    return math.ceil(math.ceil(pairs / batch_size) / accumulation)
