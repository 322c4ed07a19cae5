"""The verb `bench`."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from workbench.bench.figures import Kept
from workbench.cli import app, show


class Bench(NamedTuple):
    """A module with `PARTS`, each called with (tell, quick=…), and the packages whose versions matter."""

    module: str
    help: str
    packages: tuple[str, ...]


STORE = ("SQLAlchemy", "datasketch", "pyarrow")
TRAINING = ("torch", "transformers", "trl", "peft")
BENCHES = {
    "page": Bench("page", "the annotation page: painting, saving, load, kills", ("fastapi", "uvicorn", "SQLAlchemy")),
    "dashboard": Bench(
        "dashboard",
        "the drift page over a large ledger, live; how often the gate errs",
        ("fastapi", "uvicorn", "SQLAlchemy"),
    ),
    "freeze": Bench("freeze", "100,000 and 1,000,000 pairs imported and frozen", STORE),
    "speed": Bench("speed", "training against TRL and LLaMA-Factory: pairs/s, memory", TRAINING),
    "tricks": Bench("tricks", "what each of the things that make training and sampling fast buys", TRAINING),
    "curves": Bench("curves", "how cost grows with pairs, shared prompts, completions, anchors", TRAINING),
    "methods": Bench("methods", "what protects what earlier rounds taught: streams x methods x seeds", TRAINING),
    "matched": Bench(
        "matched", "are several anchors worth it, at one KL to the base: references x replay x beta", TRAINING
    ),
    "online": Bench(
        "online",
        "learning from fresh answers: where it converges, what it earns, the guard, workers",
        (*TRAINING, "ray"),
    ),
    "explain": Bench("explain", "whether leaving out the pairs that turned a version brings it back", TRAINING),
    "rounds": Bench("rounds", "rounds with more anchors, added pairs, workers on Ray", (*TRAINING, "ray")),
}


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="; ".join(f"{name}: {each.help}" for name, each in BENCHES.items()))],
    *,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Keep the figures in this file; parts of it that were measured before are not again."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few repetitions, to see that it runs; its verdicts mean little.")
    ] = False,
) -> None:
    """Measure figures against their targets; exit status 1 if any is short."""
    if name not in BENCHES:
        raise typer.BadParameter(f"{name!r}: expected one of {', '.join(BENCHES)}")
    chosen = BENCHES[name]
    parts = import_module(f"workbench.bench.{chosen.module}").PARTS
    kept = Kept(json_file, f"workbench bench {name}{' --quick' * quick}", chosen.packages, tuple(parts))
    with show.err().status(f"bench {name}") as status:
        for part, measure in parts.items():
            if part not in kept.figures:
                kept.add(part, list(measure(lambda doing: status.update(f"bench {name}: {doing}"), quick=quick)))
    figures = [each for part in parts for each in kept.figures[part]]
    rows = [(each.name, "" if each.value is None else f"{each.value:.4g}", each.target, each.note) for each in figures]
    show.out().print(show.table(f"bench {name}", ("figure", "#value", "#target", "how"), rows))
    for each in figures:
        typer.echo(each.line())
    if any(each.verdict == "short" for each in figures):
        raise typer.Exit(1)
