"""Measurements that take a while are kept like training runs: computed once, found again by what determines them."""

import time

import torch

from lab import fingerprint, runs, sources, vouch
from litrev import paths
from litrev.device import describe


def measure(function, *inputs, name):
    """Return function(*inputs), a dict of tensors: the kept or shipped measurement, else computed now and kept.

    `function` and `inputs` determine the key as in `training.fit`, and the code of litrev that they use is kept with
    the result: change any of it and it is measured again. Numbers may stand for tensors; all come back as tensors on
    the CPU. Raises ValueError for inputs that cannot be described.
    """
    description = {"function": fingerprint.describe(function, name), "inputs": fingerprint.describe(inputs, "inputs")}
    key = fingerprint.digest(description)
    info = {"name": name, "key": key, "description": description, "sources": sources.used(function, *inputs)}
    for tensors, was, source in runs.candidates(name, key):
        if not (changes := sources.changed(was.get("sources", {}), info["sources"])):
            print(f"{name}: {source}; measured in {was['seconds']:.0f} s on {was['device']}.")
            return tensors
        if not vouch.asked(name):
            print(f"{name}: {source}, but {' and '.join(changes[:3])} changed since: measuring again.")
    if found := vouch.kept(name):
        vouch.take_over(*found, info)
        return found[0]
    start = time.perf_counter()
    tensors = {entry: torch.as_tensor(value).cpu() for entry, value in function(*inputs).items()}
    info |= {"seconds": time.perf_counter() - start, "device": describe()}
    runs.keep(runs.location(paths.runs_dir(), name, key), tensors, info, "The measurement lives in this session only.")
    print(f"{name}: measured now in {info['seconds']:.0f} s on {info['device']}.")
    return tensors
