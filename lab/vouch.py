"""For contributors: what is shipped is taken over by the code of now, when an edit is known to change no result.

After such an edit (an experiment's function tidied, a key's scheme changed) LITREV_VOUCH names the runs and
measurements that stand as they are, or says `all`: tools/bazel run //notebooks:03_ddpm.execute -- --vouch ddpm_quality
"""

import os

from torch import Tensor

from lab import runs
from litrev import paths


def asked(name: str) -> bool:
    """Say whether somebody vouches for what is kept under a name."""
    names = os.environ.get("LITREV_VOUCH", "").split()
    return name in names or "all" in names


def kept(name: str) -> tuple[dict[str, Tensor], dict] | None:
    """Return tensors and facts of the one shipped file of a name that is vouched for; None where there is none.

    Raises ValueError where there are several: which one stands is not to be guessed.
    """
    shipped = [path for path in runs.kept(name) if path.parent == paths.trained_dir()] if asked(name) else []
    if len(shipped) > 1:
        raise ValueError(f"{name} is shipped {len(shipped)} times: remove from data/trained what does not stand.")
    return runs.unpack(shipped[0].read_bytes()) if shipped else None


def take_over(tensors: dict[str, Tensor], was: dict, now: dict) -> dict:
    """Write the shipped run or measurement `was` again as what the code of `now` made; return the facts on it."""
    about = was | now
    old, new = (runs.location(paths.trained_dir(), was["name"], facts["key"]) for facts in (was, about))
    paths.write_atomically(new, runs.pack(tensors, about))
    if old != new:
        old.unlink()
    print(f"{was['name']}: vouched for; it stands as the code of now has it.")
    return about
