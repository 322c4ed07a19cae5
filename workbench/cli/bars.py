"""Progress bars on standard error."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from workbench.cli import show
from workbench.tasks import Progress

LABELS = {
    "tokens_per_pass": "room for {:,.0f} tokens at once",
    "recompute": "activations computed again",
    "plain_rows": "a row for each answer, because this model takes no other (docs/speed.md)",
    "padded_rows": "a padded row for each prompt, because this model takes no other (docs/speed.md)",
    "prompts_left_out": "{:.0f} prompts left out, which leave no room for an answer (max_new_tokens)",
    "keep": "{:.0%} of the start",
    "chance": "chance of the better answer {:.3f}",
    "loss": "loss {:.4f}",
    "reward": "reward {:.3f}",
    "guard": "guard {:.3f}",
    "kl_per_token": "KL to the anchors {:.3f} nats per token",
    "kl_base": "to the base {:.3f}",
    "answer_tokens": "{:.0f} tokens an answer",
    "truncated": "{:.0%} cut off",
    "distinct_answers": "{:.0%} distinct",
    "kl_parent": "KL {:.4f}",
    "entropy_chosen": "entropy {:.2f}",
    "entropy_rejected": "(rejected {:.2f})",
    "top1_chosen": "top-1 {:.0%}",
    "top1_rejected": "(rejected {:.0%})",
    "pairs_per_s": "{:.2f} pairs/s",
    "prompts_per_s": "{:.2f} prompts/s",
}
"""Facts a bar shows, in this order."""

LINE_S = 10.0


def _bars(*columns: ProgressColumn) -> Bars:
    """Bars that vanish when they are done, and are not drawn where nobody looks."""
    console = show.err()
    first = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
    return Bars(*first, *columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def file_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar by bytes; call it with bytes done and bytes in all."""
    with _bars(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bars:
        task = bars.add_task(name, total=None)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield tell


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """One bar per stage; call it with stage, done and total (None where unknown)."""
    with _bars(MofNCompleteColumn(), TimeRemainingColumn()) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tell


@contextmanager
def step_bars() -> Iterator[Callable[[Progress], None]]:
    """Shows the step under way, with loss or reward, KL, pairs or prompts per second and time left; call it with progress.

    A bar on a terminal, elsewhere a line now and then.
    """
    if not show.err().is_terminal:
        yield _Lines()
        return
    with _bars(
        MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), TimeRemainingColumn()
    ) as bars:
        yield _OneBar(bars)


class _OneBar:
    """A bar that starts anew with every step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._last = Progress("", 0, 0, {})

    def __call__(self, progress: Progress) -> None:
        if self._task is None or progress.step != self._last.step or progress.done < self._last.done:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(progress.step, total=progress.total, facts="")
        self._last = progress
        self._bars.update(self._task, completed=progress.done, total=progress.total, facts=_facts(progress))


class _Lines:
    """A line when a step begins or ends, and every `LINE_S` seconds in between."""

    def __init__(self) -> None:
        self._step, self._said = "", -math.inf

    def __call__(self, progress: Progress) -> None:
        moment = time.monotonic()
        ends = progress.step != self._step or progress.done == progress.total
        if ends or moment - self._said > LINE_S:
            self._step, self._said = progress.step, moment
            typer.echo(f"{progress.step} {progress.done}/{progress.total} {_facts(progress)}".rstrip(), err=True)


def _facts(progress: Progress) -> str:
    return "  ".join(label.format(progress.facts[name]) for name, label in LABELS.items() if name in progress.facts)
