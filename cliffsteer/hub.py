"""Push a saved surrogate to the Hugging Face hub, and pull one from there: ``pip install 'cliffsteer[hub]'``.

push("runs/smoke/published", "user/smoke")
surrogate = Surrogate.from_pretrained(pull("user/smoke"))
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

FILES = ("config.json", "model.safetensors", "README.md")
"""What goes to the hub and comes from it; other files of a folder stay where they are."""


def push(folder: str | Path, repository: str, private: bool = False, message: str = "Publish a surrogate") -> str:
    """Upload what `Surrogate.save_pretrained` wrote; needs a token (``hf auth login``).

    Args:
        folder: of the surrogate.
        repository: "user/name" on the hub; made when it is not there.
        private: make a new repository private.
        message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        FileNotFoundError, ValueError: the folder holds no surrogate.
        OSError: the hub does not answer, or refuses.
    """
    _require()
    from huggingface_hub import HfApi

    from cliffsteer.surrogate import read_config

    folder = Path(folder)
    for name in FILES[:2]:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"`{folder / name}` is missing: {folder} holds no complete surrogate.")
    read_config(folder / FILES[0])
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    commit = api.upload_folder(
        folder_path=folder, repo_id=repository, allow_patterns=list(FILES), commit_message=message
    )
    return str(commit.commit_url)


def pull(repository: str, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Download a surrogate, or find it in the cache; without a network the cache alone is looked at.

    Args:
        repository: "user/name" on the hub.
        revision: branch, tag or commit; the newest by default.
        cache: folder of the cache; that of ``huggingface_hub`` by default.

    Returns:
        The folder, for `Surrogate.from_pretrained`.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        OSError: no such repository or revision, or the hub does not answer and the cache does not hold it.
    """
    _require()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision, cache_dir=cache, allow_patterns=list(FILES)))


def _require() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ImportError("`cliffsteer.hub` needs huggingface_hub: pip install 'cliffsteer[hub]'.")
