"""What we do with what people said: score, optimise, evaluate, gate, promote."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.workspace import Workspace as Workspace

__all__ = ["Workspace"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: importing any module of the package would otherwise load the databases.
    if name == "Workspace":
        return import_module("workbench.workspace").Workspace
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")
