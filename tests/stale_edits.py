"""Edits litrev's files one after the other, as a reader with autoreload does, and prints what `fit` and `measure` did.

Run by test_stale.py with a copy of litrev and lab in the folder that is the only argument.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import torch
from IPython.extensions.autoreload import superreload

from lab.measure import measure
from lab.training import fit
from litrev import data
from litrev.device import randn
from litrev.diffusion import grids, guidance, samplers
from litrev.diffusion.denoiser import clip_x0, from_network, given
from litrev.diffusion.schedules import LinearChain
from litrev.nets.laptop_unet import LaptopUNet
from litrev.quality import metrics

CHAIN = LinearChain(100)
ROOT = Path(sys.argv[1])
UNET, DENOISER = "litrev/nets/laptop_unet.py", "litrev/diffusion/denoiser.py"
SAMPLERS, SCHEDULES = "litrev/diffusion/samplers.py", "litrev/diffusion/schedules.py"
SEEN = {}  # all that was loaded before: autoreload moves the code in it along
EDITS = {  # what is edited: the file, the old text, the new one
    "nothing": ("litrev/paths.py", "import os", "import os"),
    # changes of what is computed
    "activation": (UNET, "F.silu(self.conv1(h))", "torch.tanh(self.conv1(h))"),
    "time embedding": ("litrev/nets/blocks.py", "angles.sin(), angles.cos())", "angles.cos(), angles.sin())"),
    "schedule": (SCHEDULES, "(self.first, self.last, self.T", "(self.first, 1.05 * self.last, self.T"),
    "times off by one": (SCHEDULES, "_as_index(t, self.T).double() - 1", "_as_index(t, self.T).double()"),
    "added noise": ("litrev/diffusion/process.py", "alpha * x0 + sigma * eps", "alpha * x0 - sigma * eps"),
    "noise generator": ("litrev/device.py", "torch.randn(shape, gen", "1.1 * torch.randn(shape, gen"),
    "prediction": (DENOISER, "(alpha * xt - sigma * out) / norm", "(alpha * xt + sigma * out) / norm"),
    "clipping's default": (DENOISER, "low=-1.0, high=1.0", "low=-2.0, high=2.0"),
    "sampler": (SAMPLERS, "alpha_s, sigma_s = _levels(denoiser.schedule, s)", "alpha_s, sigma_s = 0.9, 0.1"),
    "guidance": ("litrev/diffusion/guidance.py", "condition[name], nothing[name]", "nothing[name], condition[name]"),
    "grid": ("litrev/diffusion/grids.py", "end=None, rho=7.0", "end=None, rho=3.0"),
    "metric": ("litrev/quality/metrics.py", "directions: int = 256", "directions: int = 16"),
    "data": ("litrev/data/images.py", ".div_(127.5)", ".div_(128)"),
    # changes of nothing that is computed
    "comment": (UNET, "skip, x = x, self.shrink(x)", "skip, x = x, self.shrink(x)  # down"),
    "docstring": (SAMPLERS, '"""DDIM\'s sampler:', '"""The sampler of DDIM:'),
    "layout": (UNET, "x = self.conv_out(channel_norm(x))", "x = self.conv_out(\n                channel_norm(x))"),
    "local name": (SAMPLERS, "x0_weight", "weight_of_x0"),
    "type hint": ("litrev/device.py", "def randn(shape, gen", "def randn(shape: tuple, gen"),
    "helper's name": (SAMPLERS, "_levels(", "_alpha_and_sigma("),
    "unused function": (SAMPLERS, "def final(", "def unused(x):\n    return x\n\n\ndef final("),
}


def build():
    return LaptopUNet(width=16, depth=1, middle=1, heads=1, classes=2)


def loss(net, batch, generator):
    x0, label = batch
    t = torch.randint(1, CHAIN.T + 1, (len(x0),), generator=generator)
    eps = randn(x0.shape, generator)
    return (net(CHAIN.add_noise(x0, t, eps), CHAIN.network_time(t).float(), label=label) - eps).square().mean()


def sampled(net, label):
    guided = guidance.classifier_free(clip_x0(from_network(net, CHAIN, "v")), 2.0, null={"label": 2})
    xT = randn((4, 1, 8, 8), torch.Generator().manual_seed(0))
    x = samplers.final(samplers.ddim(given(guided, label=label), xT, grids.karras_grid(CHAIN, 3, 80, 3)))
    rng = torch.Generator().manual_seed(0)
    x = x + samplers.final(samplers.ancestral(given(guided, label=label), xT, [3, 1, 0], rng))
    real = data.to_unit(torch.arange(256).to(torch.uint8).reshape(4, 64))
    return {"distance": metrics.sliced_wasserstein(x.flatten(1), real)}


def everything():
    """Run both and say what happened: (was the network trained, was it measured, what was printed)."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        labels = torch.arange(8) % 2
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        run = fit(build, loss, (images, labels), name="toy", steps=100, batch=8, lr=2e-2)
        measure(sampled, run.net, labels[:4], name="toy_distance")
    text = said.getvalue()
    return run.source == "trained now", "measured now" in text, text


def edited(file, old, new):
    """Write an edit, reload the module, run both; put everything back, reload, and run both again."""
    path, module = ROOT / file, sys.modules[file.removesuffix(".py").replace("/", ".")]
    before = path.read_text()
    assert old in before, f"{file} no longer holds {old!r}"
    path.write_text(before.replace(old, new))
    superreload(module, old_objects=SEEN)
    changed = everything()
    path.write_text(before)
    superreload(module, old_objects=SEEN)
    return changed, everything()


def main():
    first = everything()
    assert first[:2] == (True, True), first
    print(json.dumps({name: edited(*edit) for name, edit in EDITS.items()}))


main()
