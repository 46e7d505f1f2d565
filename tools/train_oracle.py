"""Trains the network that names digits in captioned scenes again and writes it: `tools/bazel run train_oracle`."""

import hashlib
import json
import time

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from litrev import device, paths
from litrev.data import scenes
from litrev.quality import oracle

STEPS, BATCH, SEED = 700, 256, 0
MOMENTS = 10_000  # scenes of test glyphs that the features' moments are of


def crops(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the crops and digits of n scenes of any type, of training glyphs, under noise of random strength."""
    every = scenes.one_digit()
    rows = every[torch.randint(len(every), (n,), generator=generator)]
    attrs = dict(zip(scenes.KEYS, rows.T, strict=True))
    x, _ = scenes.render(attrs, generator)
    noise = 0.15 * torch.rand(n, 1, 1, 1, generator=generator) * device.randn(x.shape, generator)
    return oracle.read(x + noise).crops, attrs["d"]


def train(steps: int, batch: int, seed: int) -> nn.Sequential:
    """Return a network trained by Adam under a one-cycle learning rate, with label smoothing."""
    torch.manual_seed(seed)
    net, rng = oracle.network(), device.generator(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in tqdm(range(steps), ascii=True, mininterval=5):
        images, digits = crops(batch, rng)
        loss = F.cross_entropy(net(images), digits, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.half().float().eval().requires_grad_(False)  # float16 is how it is shipped


def test_scenes(split: str, n: int) -> scenes.Batch:
    """Return n scenes of test glyphs that are not those of `scenes.evaluation`."""
    return scenes.Scenes(split, glyphs="test").batch(n, device.generator(device.derived_seed(SEED, "moments", split)))


def write(net: nn.Sequential, facts: dict) -> None:
    """Write weights in float16, moments in float32, and the facts on them with the file's sha256 beside it."""
    tensors = {k: v if k in ("mean", "cov") else v.half() for k, v in net.state_dict().items()}
    content = safetensors.torch.save(tensors)
    facts |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    file = paths.data_dir() / oracle.FILE
    paths.write_atomically(file, content)
    paths.write_atomically(file.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def main() -> None:
    """Train, measure the moments, write, then let the oracle as it is loaded say how well it reads real scenes."""
    start = time.process_time()
    net = train(STEPS, BATCH, SEED)
    facts = {"seed": SEED, "steps": STEPS, "batch": BATCH, "cpu_seconds": round(time.process_time() - start)}
    facts |= {"parameters": sum(p.numel() for p in net.parameters()), "trained_on": device.describe()}
    reading = oracle.Oracle(net)
    features = reading.features(test_scenes("seen", MOMENTS).x).double()
    net.mean, net.cov = features.mean(0).float(), features.T.cov().float()
    batches = {split: test_scenes(split, MOMENTS) for split in ("seen", "A", "B")}
    facts["digit_accuracy"] = {split: round(reading.score(b.x, b.attrs)["d"], 4) for split, b in batches.items()}
    write(net, facts)
    print(facts)


if __name__ == "__main__":
    main()
