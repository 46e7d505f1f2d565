"""Measurements that take a while are kept like training runs: computed once, found again by what determines them."""

import time

import torch

from lab import fingerprint, runs
from litrev import paths
from litrev.device import describe


def measure(function, *inputs, name):
    """Return function(*inputs), a dict of tensors: the kept or shipped measurement, else computed now and kept.

    `function` and `inputs` determine the key as in `training.fit`: change either and it is measured again. Numbers may
    stand for tensors; all come back as tensors on the CPU. Raises ValueError for inputs that cannot be described.
    """
    description = {"function": fingerprint.describe(function, name), "inputs": fingerprint.describe(inputs, "inputs")}
    key = fingerprint.digest(description)
    if found := runs.find(name, key):
        tensors, info, source = found
        print(f"{name}: {source}; measured in {info['seconds']:.0f} s on {info['device']}.")
        return tensors
    start = time.perf_counter()
    tensors = {entry: torch.as_tensor(value).cpu() for entry, value in function(*inputs).items()}
    info = {"name": name, "key": key, "description": description, "seconds": time.perf_counter() - start}
    info["device"] = describe()
    runs.keep(runs.location(paths.runs_dir(), name, key), tensors, info, "The measurement lives in this session only.")
    print(f"{name}: measured now in {info['seconds']:.0f} s on {info['device']}.")
    return tensors
