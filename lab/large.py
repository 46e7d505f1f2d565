"""Larger networks than the shared bases, for those who have several GPUs: tools/bazel run large -- NAME [--processes N]

Every process has a GPU and a part of each batch (`lab.distributed`). The run is kept like any other, and `load(NAME)`
finds it, in a notebook too. None is shipped, and none was measured: they are the bases with more of everything.
"""

import argparse
from dataclasses import asdict
from functools import partial

import torch
import torch.distributed as dist

from lab import base, captioned, distributed, runs, training
from litrev import checks, data
from litrev.nets.laptop_unet import LaptopUNet
from litrev.nets.mmdit import CaptionMMDiT
from litrev.presets import preset

NAMES = ("ddpm_mnist", "digits_by_class", "scenes_by_caption")


def recipe() -> training.Recipe:
    """The numbers of a training: four times the batch of a base, and 100,000 steps."""
    return training.Recipe(
        steps=preset(laptop=100_000, smoke=6),
        batch=preset(laptop=512, smoke=8),
        lr=4e-3,
        optimiser="muon",
        ema=0.999,
        warmup=0.03,
        clip=1.0,
        weight_decay=0.0,
        seed=0,
    )


def parts(name: str) -> tuple:
    """The function that builds the larger network of a base, its loss and its data, as `fit` takes them: 27M parameters
    for digits, 18M for scenes. Raises ValueError for a name that is none of `NAMES`."""
    checks.choice(NAMES, name=name)
    if name == "scenes_by_caption":
        build = partial(CaptionMMDiT, width=preset(laptop=256, smoke=16), depth=preset(laptop=8, smoke=1), heads=8)
        return build, captioned.flow_loss, captioned.exact_and_partial
    net = partial(LaptopUNet, width=preset(laptop=192, smoke=16), depth=3, middle=preset(laptop=8, smoke=1), heads=0)
    if name == "ddpm_mnist":
        return net, base.simple_loss, (data.mnist("train")[0],)
    return partial(net, classes=base.CLASSES), base.class_loss, data.mnist("train")


def load(name: str) -> runs.Run:
    """The run of a name as it is kept; where there is none, it is trained here and now, by this process alone."""
    return training.fit(*parts(name), name=f"large_{name}", **asdict(recipe()))


def main() -> None:
    """Train a larger network in several processes; each has a GPU, or LITREV_DEVICE=cpu."""
    parser = argparse.ArgumentParser(prog="tools/bazel run large --", description=main.__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--processes", type=int, default=max(1, torch.cuda.device_count()), help="one a GPU, if not set"
    )
    asked = parser.parse_args()
    if dist.is_torchelastic_launched():
        with distributed.processes():
            distributed.fit(*parts(asked.name), recipe(), name=f"large_{asked.name}")
        return
    try:
        distributed.require_devices(asked.processes)
        checks.divisible(processes=asked.processes, batch=recipe().batch)
        distributed.launch("lab.large", [asked.name], asked.processes)
    except (ValueError, RuntimeError) as problem:
        parser.exit(1, f"{problem}\n")


if __name__ == "__main__":
    main()
