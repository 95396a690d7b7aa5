"""Encoder folders to a Hugging Face repository."""

from __future__ import annotations

import re
from pathlib import Path

from morphoclip.export.card_usage import HERE
from morphoclip.export.layout import CARD
from morphoclip.export.load import HUB_ID
from morphoclip.export.record import check_files

CODE = re.compile(r".*\.(py|pkl|pickle|pt|pth|ckpt|bin)")  # files that run code or may hold pickles


def upload_of(folder: str | Path, repository: str) -> dict[str, bytes | Path]:
    """What `push` uploads: name in the repository -> file, or the bytes of the card, in which the repository is named.

    Raises:
        ValueError: not a repository id "owner/name", a file that differs from its hash, or one that may hold code.
    """
    if not HUB_ID.fullmatch(repository):
        raise ValueError(f"{repository!r} is not the id of a Hugging Face repository: give owner/name")
    folder, found = Path(folder), {}
    for name in check_files(folder):
        if CODE.fullmatch(name):
            raise ValueError(f"{folder / name} may hold code, which is never pushed: export the encoder again")
        path: bytes | Path = folder / name
        if name == CARD:
            card = (folder / name).read_text(encoding="utf-8")
            path = card.replace(f"local-dir:{HERE}", f"hf-hub:{repository}").replace(HERE, repository).encode()
        found[name] = path
    return found


def push(
    folder: str | Path, repository: str, *, private: bool = True, message: str = "Encoder by morphoclip export"
) -> str:
    """Upload an encoder folder to a Hugging Face repository in one commit; the repository is made if there is none.

    The token is that of `hf auth login` or of the environment variable HF_TOKEN.

    Returns:
        The address of the commit.

    Raises:
        ValueError: as `upload_of`.
        OSError: the upload failed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = upload_of(folder, repository)
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    added = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
    ]
    return api.create_commit(repository, added, commit_message=message).commit_url
