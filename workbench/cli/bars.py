"""Progress bars on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

LABELS = {"loss": "loss {:.4f}", "kl_parent": "KL {:.4f}", "pairs_per_s": "{:.2f} pairs/s"}
"""Facts a bar shows, in this order."""


def _bars(*columns: ProgressColumn) -> Bars:
    return Bars(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), *columns,
                console=show.err(), transient=True)  # fmt: skip


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
    """A bar for the step under way, with loss, KL to parent, pairs per second and time left; call it with progress."""
    with _bars(
        MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), TimeRemainingColumn()
    ) as bars:
        current: dict[str, TaskID] = {}
        last = {"done": 0}

        def tell(progress: Progress) -> None:
            if progress.step not in current or progress.done < last["done"]:
                for task in current.values():
                    bars.remove_task(task)
                current.clear()
                current[progress.step] = bars.add_task(progress.step, total=progress.total, facts="")
            last["done"] = progress.done
            bars.update(
                current[progress.step], completed=progress.done, total=progress.total, facts=_facts(progress.facts)
            )

        yield tell


def _facts(facts: dict[str, float]) -> str:
    return "  ".join(label.format(facts[name]) for name, label in LABELS.items() if name in facts)
