"""Every public function of litrev and lab runs on the pretended Apple GPU, and answers as on the CPU.

`mps_calls.CALLS` holds small calls. While one runs, it is noted which functions are entered: a public one that none of
them enters fails `test_every_public_function_has_run`. Give it a call there, or a reason in `EXEMPT`.
"""

import functools
import os
import sys
import tempfile
from unittest import mock

import pytest
import torch
from mps_calls import CALLS
from mps_rehearsal import MpsRehearsal
from public_names import MODULES, functions
from torch.utils._pytree import tree_leaves

from litrev import device
from litrev.nets import blocks

EXEMPT = {  # a name, or what names start with: why no call enters it
    "litrev.data.images.fashion_mnist": "a download",
    "litrev.data.images.cifar10": "a download",
    "litrev.data.folder.images": "files, which Pillow reads on the CPU",
    "litrev.diffusion.process.Schedule.alpha": "abstract",
    "litrev.diffusion.process.Schedule.sigma": "abstract",
    "litrev.diffusion.schedules.Chain.betas": "abstract",
    "litrev.diffusion.process.Schedule.latest": "for a message",
    "litrev.checks.": "types and shapes, mostly of what is wrong",
    "lab.claims.": "numbers and text, no tensors",
    "lab.distributed.": "CUDA's GPUs or the CPU: tests/test_distributed.py has two processes train",
    "lab.large.": "CUDA's GPUs or the CPU: tests/test_distributed.py trains one by the command",
    "lab.runs.main": "text: prints what is kept",
    "lab.runs.ship": "files: a kept run, smaller",
    "lab.sources.": "code, no tensors",
    "lab.vouch.take_over": "files: a kept run under another key",
}


def place(code):
    return code.co_filename, code.co_firstlineno


PUBLIC = {f"{m.__name__}.{name}": place(f.__code__) for m in MODULES for name, f in functions(m, m)}


def ran(name, **environment):
    """What a call answers where nothing was trained yet."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as empty:
        environment |= {"LITREV_RUNS": empty, "LITREV_PRESET": "smoke"}
        with mock.patch.dict(os.environ, environment):
            return CALLS[name](device.device())


@functools.cache
def prepare():
    """Forget what other tests have computed, which would not be computed again; import what a first operator does."""
    with MpsRehearsal():
        torch.zeros(1, device=device.device())
    for module in MODULES:
        for member in vars(module).values():
            getattr(member, "cache_clear", lambda: None)()


@functools.cache
def rehearsed(name):
    """What a call answers on the pretended MPS, and the places of the functions that it enters."""
    prepare()
    before, entered = sys.gettrace(), set()
    with MpsRehearsal():
        sys.settrace(lambda frame, event, arg: entered.add(place(frame.f_code)))  # gives None: lines are not traced
        try:
            return ran(name), entered
        finally:
            sys.settrace(before)


def same(a, b):
    """Whether two answers differ by rounding alone."""
    if a is None or b is None:
        return a is b
    if not isinstance(a, torch.Tensor):
        return a == pytest.approx(b, rel=1e-4, abs=1e-6)
    a, b = (x.detach().double() for x in (a, b))
    return bool(a.shape == b.shape and ((a - b).abs() <= 1e-4 * b.abs().max() + 1e-6).all())


@pytest.mark.parametrize("name", CALLS)
def test_answers_on_mps_as_on_the_cpu(name, monkeypatch):
    there, _ = rehearsed(name)
    monkeypatch.setattr(blocks, "bfloat16_pays", lambda device: False)  # where it does, the CPU rounds more
    here = ran(name, LITREV_DEVICE="cpu")
    for a, b in zip(tree_leaves(there), tree_leaves(here), strict=True):
        assert same(a, b), f"{name}: {a} on MPS, {b} on the CPU"


def test_every_public_function_has_run():
    entered = set().union(*(rehearsed(name)[1] for name in CALLS))
    rest = [name for name, where in PUBLIC.items() if where not in entered]
    unexplained = [name for name in rest if not name.startswith(tuple(EXEMPT))]
    assert not unexplained, f"give it a small call in tests/mps_calls.py: {', '.join(unexplained)}"
    stale = [start for start in EXEMPT if not any(name.startswith(start) for name in rest)]
    assert not stale, f"no longer to be exempted: {', '.join(stale)}"
