"""Wrong input gets one clear sentence: every argument of every public function of litrev is given what it cannot mean.

`input_calls.CALLS` has a valid call of each. Here each argument in turn becomes something wrong: another type, a shape,
a value out of range. Then either litrev raises ValueError in a sentence of its own (not from deep inside torch, nor
Python's own IndexError or AttributeError), or the answer makes sense: finite, or with the NaN that went in.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from input_calls import CALLS
from public_names import MODULES, functions
from torch.utils._pytree import tree_leaves

import lab
import litrev
from litrev.checks import images
from litrev.data import mnist, to_pixels
from litrev.device import generator
from litrev.diffusion.denoiser import Denoiser, from_network
from litrev.diffusion.samplers import ddim, final
from litrev.diffusion.schedules import Chain, CosineVP, Geometric, LinearChain, LinearVP, Schedule
from litrev.quality.metrics import mnist_fd

HOMES = [Path(package.__file__).resolve().parent for package in (litrev, lab)]  # files may be links


def never(value):
    """What cannot stand for an argument like `value`: name -> wrong value."""
    wrong = {"None": None, "a word": "x y"}
    if isinstance(value, bool):
        return wrong | {"a number": 3}
    if isinstance(value, int):
        return wrong | {"NaN": math.nan, "a part": 2.5, "True": True, "a list": (1, 2)}
    if isinstance(value, float):
        return wrong | {"NaN": math.nan, "infinite": math.inf, "True": True, "a list": (1.0, 2.0)}
    if isinstance(value, torch.Tensor):
        other = {"a list": value.tolist(), "an array": value.detach().numpy(), "empty": value[:0]}
        kinds = {"uint8": value.to(torch.uint8), "bool": value > 0, "complex": value.to(torch.complex64)}
        return wrong | other | {"a number": 3} | {k: v for k, v in kinds.items() if v.dtype != value.dtype}
    if isinstance(value, torch.Generator):
        return {"None": None, "a seed": 0, "numpy's": np.random.default_rng(0)}
    if isinstance(value, str):
        return wrong | {"a number": 3}
    if isinstance(value, Denoiser):
        return wrong | {"a network": torch.nn.Identity(), "a number": 3}
    if isinstance(value, Schedule):
        return wrong | {"a class": LinearVP, "a number": 3}
    if isinstance(value, dict):
        return wrong | {"empty": {}, "a number": 3, "other keys": {"colour": 1}}
    if isinstance(value, list):
        return wrong | {"empty": [], "a number": 3, "no order": [0.5, 0.7, 0.5], "NaN": [math.nan, 0.0]}
    return wrong | {"a number": 3}


def maybe(value):
    """What may be right or wrong: then the answer must make sense."""
    if isinstance(value, bool | str | dict | list | torch.Generator) or not isinstance(
        value, int | float | torch.Tensor
    ):
        return {}
    if not isinstance(value, torch.Tensor):
        return {"0": type(value)(0), "-1": type(value)(-1)} | ({"huge": 1e9} if isinstance(value, float) else {})
    found = {"an axis more": value[None], "an axis less": value[0], "one row": value[:1]}
    if value.dtype != torch.bool:
        found |= {"negative": -value, "huge": value * 10**6 + 10**6}
    if value.ndim == 4:
        found["channels last"] = value.permute(0, 2, 3, 1)
    if value.is_floating_point():
        found |= {"float64": value.double(), "NaN": value * math.nan, "infinite": value / 0}
    return found


AS_NUMBERS = ("a list", "an array", "a number", "uint8", "empty", "an axis more", "an axis less")
TENSORS = ("empty", "uint8", "bool", "complex", "infinite")
OPEN = {  # start of a name, argument: (wrong values that are let in, why)
    ("", "t"): (AS_NUMBERS, "times are numbers in any form"),
    ("", "time"): (("uint8",), "so they are for networks"),
    ("", "log_snr"): ((*AS_NUMBERS, "infinite"), "so are log-SNRs; at t = 0 it is infinite"),
    ("", "alpha"): (("a number", "uint8", "an array"), "levels are numbers, or tensors"),
    ("", "sigma"): (("a number", "uint8", "an array"), "levels are numbers, or tensors"),
    ("", "shape"): (("a number",), "torch's own short form"),
    ("diffusion.process.Schedule.levels", "like"): (("NaN", "infinite"), "of it the type and shape count alone"),
    ("diffusion.distillation.turn", "like"): (("NaN", "infinite"), "of it the type and shape count alone"),
    ("diffusion.guidance.drop", "condition"): (TENSORS, "a condition is any tensor"),
    ("diffusion.guidance.drop", "null"): (("a list",), "a value for each axis"),
    ("diffusion.ode.divergence", "probe"): (("None",), "then it is exact"),
    ("lab.recipe", "centre"): (("None",), "then times are uniform"),
    ("data.scenes.boxes", "ink"): (("empty",), "no image, no box"),
    ("diffusion.ode.bits_per_dim", "log_p"): (("a number",), "of one image"),
    ("data.images.to_pixels", "x"): (("NaN", "infinite"), "what diverged can still be drawn; measures refuse it"),
    ("nets.autoencoder.", "log_variance"): (("huge",), "the exponential of a million is infinite"),
    ("data.scenes.pixels", "x0"): (("infinite",), "what diverged can still be drawn; the oracle refuses NaN"),
    ("data.captions", "captions"): (("empty",), "no caption, no ids"),
    ("data.captions", "tokens"): (("empty",), "no ids, no captions"),
    ("nets.clip.CLIP", "ids"): (("empty",), "no ids, no vectors"),
    ("nets.text", "ids"): (("empty",), "no ids, no vectors"),
    ("nets.unet.adm", "head_width"): (("None",), "then heads are counted"),
    ("data.scenes", "split"): (("None",), "all scenes"),
    ("data.scenes.allowed", "given"): (("empty",), "nothing is given"),
    ("data.scenes.resample", "x"): (("infinite",), "far outside there is nothing"),
    ("data.scenes.resample", "y"): (("infinite",), "far outside there is nothing"),
    ("data.toys.GaussianMixture", "means"): (AS_NUMBERS, "numbers in any form"),
    ("data.toys.GaussianMixture", "stds"): (("a number", "a list", "an array"), "numbers in any form"),
    ("data.toys.GaussianMixture", "weights"): (("None", *AS_NUMBERS), "numbers in any form, or equal"),
    ("quality.classifier.in_batches", "x"): (TENSORS, "what the function takes"),
    ("quality.metrics", "a"): (("uint8",), "features are numbers"),
    ("quality.metrics", "b"): (("uint8",), "features are numbers"),
    ("quality.metrics.precision_recall", ""): (("uint8",), "features are numbers"),
}
NETWORKS = "inside networks, which ask at their doors"
EXEMPT = {  # start of a name: why there is no call
    "diffusion.process.as_": "of a schedule's methods",
    "checks.": "the checks themselves",
    "plots.": "figures: test_plots",
    "paths.": "files: test_paths",
    "device.derived_seed": "of anything",
    "device.double": "the checks come before it",
    "device.synchronize": "of a device: test_device",
    "device.check": "of a tolerance: test_device",
    "presets.preset": "of anything: test_presets",
    "nets.autoencoder.": NETWORKS,
    "nets.blocks.": NETWORKS,
    "nets.clip.": NETWORKS,
    "nets.dit.": NETWORKS,
    "nets.laptop_unet.": NETWORKS,
    "nets.mmdit.": NETWORKS,
    "nets.prior.": NETWORKS,
    "nets.text.": NETWORKS,
    "nets.unet.": NETWORKS,
    "diffusion.ode.runge_kutta_step": "one step of solve, which asks once",
    "data.images.fashion_mnist": "a download, asked as mnist is",
    "data.images.cifar10": "a download, asked as mnist is",
    "lab.optim.Muon.step": "torch's way to call an optimiser",
    "lab.optim.get_state": "between fit and its files",
    "lab.optim.set_state": "between fit and its files",
    "lab.recipe.train": "trains: fit asks",
    "lab.recipe.Trained.": "of what train returns: test_recipe",
}


def answer(call):
    """All numbers and tensors that a call answers with, after a generator's last state."""
    result = call()
    parts = itertools.islice(result, 20) if inspect.isgenerator(result) else [result]
    return [leaf for part in parts for leaf in leaves(part)]


def leaves(part):
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return [x for f in dataclasses.fields(part) for x in leaves(getattr(part, f.name))]
    return [x for x in tree_leaves(part) if isinstance(x, torch.Tensor | float | int)]


@functools.cache
def raises(path):
    """The lines of a file on which something is raised."""
    nodes = (node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.Raise))
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def is_a_sentence(problem):
    """Whether an error is litrev's own: raised there by a `raise`, in a sentence."""
    trace = problem.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    path = Path(trace.tb_frame.f_code.co_filename).resolve()
    ours = any(path.is_relative_to(home) for home in HOMES) and trace.tb_lineno in raises(path)
    said = str(problem)
    return ours and isinstance(problem, ValueError | RuntimeError) and len(said.split()) > 4 and said.endswith(".")


def is_finite(x):
    return bool(x.isfinite().all()) if isinstance(x, torch.Tensor) else math.isfinite(x)


def fault(function, arguments, name, kind, value, must):
    """What is wrong with how a function takes a wrong value, or None."""
    try:
        found = answer(lambda: function(**arguments | {name: value}))
    except Exception as problem:
        return None if is_a_sentence(problem) else f"{type(problem).__name__}: {str(problem)[:110]!r}"
    if must:
        return "is let in"
    wrong = [x for x in found if not is_finite(x)]
    if kind in ("NaN", "infinite"):
        return None if any(isinstance(x, torch.Tensor) for x in wrong) else "goes unnoticed"
    return f"makes {wrong[0]!r:.60}" if wrong else None


@pytest.mark.parametrize("name", CALLS)
def test_wrong_input_gets_a_sentence(name):
    function, arguments = CALLS[name]
    torch.manual_seed(0)
    assert all(map(is_finite, answer(lambda: function(**arguments))))
    optional = {p.name for p in inspect.signature(function).parameters.values() if p.default is None}
    faults = []
    for argument, value in arguments.items():
        for kind, wrong, must in [(k, w, True) for k, w in never(value).items()] + [
            (k, w, False) for k, w in maybe(value).items()
        ]:
            if wrong is None and argument in optional:
                continue
            if any(
                name.startswith(start) and which in ("", argument) and kind in OPEN[start, which][0]
                for start, which in OPEN
            ):
                continue
            if found := fault(function, arguments, argument, kind, wrong, must):
                faults.append(f"{argument} {kind}: {found}")
    assert not faults, "\n" + "\n".join(faults)


def test_every_public_function_is_called():
    names = {}
    for module in MODULES:
        if module.__name__.startswith("litrev") or module.__name__ in ("lab.optim", "lab.recipe"):
            short = module.__name__.removeprefix("litrev.")
            names |= {f"{short}.{name}": inspect.signature(f).parameters for name, f in functions(module, module)}
    rest = [name for name, asked in names.items() if name not in CALLS and set(asked) - {"self"}]
    abstract = ("diffusion.process.Schedule.alpha", "diffusion.process.Schedule.sigma")
    missing = [name for name in rest if name not in abstract and not name.startswith(tuple(EXEMPT))]
    assert not missing, f"give it a valid call in tests/input_calls.py: {', '.join(missing)}"
    stale = [start for start in EXEMPT if not any(name.startswith(start) for name in rest)]
    assert not stale, f"no longer to be exempted: {', '.join(stale)}"


LAZY = {"xT": torch.zeros(1, 1, 4, 4), "denoiser": from_network(lambda x, time: x, LinearVP(), "v")}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: LinearChain(10, last=2.0), "last must be a number at most 1 and above 0, not 2.0"),
        (lambda: final(ddim(**LAZY, times=[0])), "times must be two or more numbers that fall"),
        (lambda: final(ddim(**LAZY, times=[0.2, 0.4])), "times must be two or more numbers that fall"),
        (lambda: final(ddim(**LAZY, times=[1.5, 0])), "between 0"),
        (lambda: Chain.grid(LinearChain(100), 60, start=50), "ask for at most 50"),
        (lambda: LinearChain(100).grid(5, start=0.5), "start must be a whole number"),
        (lambda: mnist_fd(to_pixels(mnist("test")[0][:9])), "data.to_unit makes floats"),
        (lambda: mnist_fd((mnist("test")[0][:9] + 1) / 2), r"lie in \[0, 1\].*use 2 \*"),
        (lambda: mnist_fd(to_pixels(mnist("test")[0][:9]).float()), r"lie in 0\.\.255.*127.5 - 1"),
        (lambda: mnist_fd(mnist("test")[0][:9].permute(0, 2, 3, 1)), r"channels first"),
        (lambda: mnist_fd(mnist("test")[0][0]), r"add the axis of the batch"),
        (lambda: LinearVP().add_noise(to_pixels(LAZY["xT"]), 0.5, LAZY["xT"]), "data.to_unit makes floats"),
    ],
)
def test_what_people_have_tried(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_images_of_a_diverged_model_can_be_measured():
    noise = torch.randn(4, 1, 28, 28, generator=generator(0))
    for x in (noise, 5 * noise, 0 * noise, 0 * noise + 1, 0 * noise + 3, noise.abs(), 40 * noise.abs()):
        images("n 1 28 28", x=x)


def test_a_chain_starts_where_it_is_told_and_where_it_is_advised():
    assert LinearChain(1000).grid(50)[:2] == [1000, 980]
    times = LinearChain(1000).grid(50, start=500)
    assert times[0] == 500 and times[-2:] == [1, 0] and len(times) == 51 and len(set(times)) == 51
    assert Geometric().grid(3, start=0.5)[0] == 0.5

    class Ending(Chain):
        betas = torch.tensor([0.1, 0.2, 0.3, 1.0])  # no signal is left at T

    for schedule in (Ending(4), CosineVP()):
        d = from_network(lambda x, time: x, schedule)
        with pytest.raises(ValueError, match=r"alpha = 0.*grid\(steps, start=") as said:
            d(LAZY["xT"], schedule.t_max)
        start = float(str(said.value).split("start=")[1].rstrip(")."))
        assert (
            final(ddim(d, LAZY["xT"], schedule.grid(3, int(start) if schedule.t_max > 1 else start))).isfinite().all()
        )
