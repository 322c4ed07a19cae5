"""The command `workbench`: verbs that parse, call the Python API and print.

A verb lives in a module of this package and registers itself with `@app.command`. `VERBS` says where, so that
`workbench --help` lists all of them without importing any.
"""

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from preference_data.errors import PreferenceDataError
from workbench.errors import WorkbenchError


class Verb(NamedTuple):
    """The module that registers a verb, of this package unless dots lead elsewhere, and the line `--help` shows."""

    module: str
    help: str


VERBS = {
    "demo": Verb("demo", "Align a small chat model twice and report: gains, losses, drift."),
    "doctor": Verb("upkeep", "Check this machine: versions, database, disk, model, Ray."),
    "model": Verb("setup", "Get the small chat model that comes along (`model fetch`)."),
    "init": Verb("setup", "Make a workspace over a base model."),
    "import": Verb("data", "Add a file of preferences; importing it twice adds nothing."),
    "export": Verb("data", "Write all judgements in a public format."),
    "freeze": Verb("data", "Make an immutable dataset version of what was judged so far."),
    "ask": Verb("annotation", "Put comparisons on the annotation page."),
    "page": Verb("annotation", "Serve the annotation page."),
    "serve": Verb("serving", "Serve policies over an OpenAI-compatible endpoint."),
    "runner": Verb("serving", "Do what people ask for on the page, until it is stopped."),
    "up": Verb("serving", "Start the page and the runner together."),
    "people": Verb("people", "List, add, change and pause the accounts of annotators."),
    "projects": Verb("projects", "List annotation projects, change their settings, add gold and trial items."),
    "simulate": Verb("data", "Judge open comparisons as a simulated annotator."),
    "plan": Verb("rounds", "Show what a round would do and cost, or write settings to edit."),
    "round": Verb("rounds", "Run a round: score, optimise, evaluate, gate, promote."),
    "methods": Verb("rounds", "List the named ways to hold a round to earlier ones."),
    "loop": Verb("looping", "Generate, judge, freeze, align, promote; again and again."),
    "explain": Verb("drift", "Show which training pairs made a policy forget what a version taught."),
    "rewards": Verb("reward_models", "List, train, average and measure reward models."),
    "rebase": Verb("rebase", "Run a lineage's rounds once more on another base, and compare."),
    "status": Verb("status", "Show the workspace: preferences, versions, champion, rounds."),
    "drift": Verb("drift", "Show what rounds gained, lost and moved."),
    "report": Verb("drift", "Write a report of a policy as one file, figures inside."),
    "evaluate": Verb("measure", "Measure a policy outside a round."),
    "generate": Verb("measure", "Let a policy answer a file of prompts."),
    "policies": Verb("policies", "List, verify and export policies."),
    "adopt": Verb("policies", "Register a checkpoint trained elsewhere."),
    "promote": Verb("policies", "Make a policy champion by hand."),
    "reject": Verb("policies", "Say that a policy is not to be used."),
    "rollback": Verb("policies", "Make an earlier champion champion again."),
    "bench": Verb(".bench.verb", "Measure figures against their targets."),
    "gc": Verb("upkeep", "Give back disk space that nothing refers to."),
}


class LazyGroup(TyperGroup):
    """Knows its verbs by name and line; imports a verb's module when the verb is used."""

    def __init__(self, **attributes: Any) -> None:
        loaded = attributes.pop("commands")
        listed = {name: TyperCommand(name, help=verb.help) for name, verb in VERBS.items()}
        super().__init__(commands=listed | loaded, **attributes)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the verb before it is looked up."""
        if verb := VERBS.get(args[0]):
            import_module(f".{verb.module}", __name__)
            self.commands[args[0]] = get_group(app).commands[args[0]]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what it refuses is one line on standard error."""
        try:
            return super().invoke(ctx)
        except (PreferenceDataError, WorkbenchError, OSError) as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=LazyGroup,
    name="workbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def workbench(
    *, debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False
) -> None:
    """Preference alignment in rounds, held by KL anchors; gains, losses and drift measured."""


def main() -> None:
    """The console script."""
    app()
