"""Models by their Hugging Face name, from this machine's cache alone."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from workbench.errors import ModelError


def cached_model(name: str) -> Path:
    """The folder of a model that was downloaded before.

    Raises:
        ModelError: the cache has no such model, or the name is neither a folder nor a Hugging Face name.
    """
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError as error:
        raise ModelError(
            f"base {name!r}: no such folder, and no Hugging Face name (OWNER/NAME); check the path"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"base {name!r}: no such folder, and not in this machine's Hugging Face cache; nothing is downloaded here; "
            f"run `hf download {name}` where there is a network, then the same command again"
        ) from error
