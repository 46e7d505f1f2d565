"""Trains the shipped MNIST classifier again and writes it: `tools/bazel run train_classifier`."""

import hashlib
import json
import math
import time

import safetensors.torch
import torch
from torch.nn import functional as F
from tqdm import tqdm

from litrev import data, device, paths
from litrev.quality.classifier import FILE, Classifier, in_batches


def jitter(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Turn (12 degrees), scale (10 %), shear (0.15) and shift (2 pixels) each digit of x [n, 1, 28, 28] at random."""
    n = len(x)
    angle, shear, *scale = (torch.rand(4, n, generator=rng) * 2 - 1) * torch.tensor([[0.21], [0.15], [0.1], [0.1]])
    shift = (torch.rand(2, n, generator=rng) * 2 - 1) * 2 / 14  # affine_grid's unit is half an image
    cos, sin, wide, high = angle.cos(), angle.sin(), 1 + scale[0], 1 + scale[1]
    rows = [wide * cos, -wide * sin + shear, shift[0], high * sin, high * cos, shift[1]]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # + 1: grid_sample fills borders with 0, paper is -1


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int = 0, batch: int = 125) -> Classifier:
    """Train a classifier on images [n, 1, 28, 28] in [-1, 1] and labels [n]; the same weights for the same seed.

    AdamW under a one-cycle learning rate, on jittered digits, with the cross entropy.
    """
    torch.manual_seed(seed)
    rng = device.generator(seed)
    net = Classifier().to(memory_format=torch.channels_last)
    steps = epochs * math.ceil(len(images) / batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    with tqdm(total=steps, ascii=True, mininterval=1) as bar:
        for _ in range(epochs):
            for index in torch.randperm(len(images), generator=rng).split(batch):
                loss = F.cross_entropy(net(jitter(images[index], rng)), labels[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.update()
    return net.eval()


def halve(net: Classifier) -> Classifier:
    """Round the weights to float16, which is how they are shipped, and keep computing in float32."""
    return net.half().float()


def calibrate(net: Classifier) -> None:
    """Fill in what `features` and the Frechet distance need: moments of the training and test set's features."""
    raw = in_batches(net.embedding, data.mnist("train")[0])
    net.mean, net.std = raw.mean(0), raw.std(0)
    test = in_batches(net.features, data.mnist("test")[0]).double()
    net.test_mean, net.test_cov = test.mean(0).float(), test.T.cov().float()


def accuracy(net: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images [n, 1, 28, 28] that `net` labels right."""
    return (in_batches(net, images).argmax(1) == labels).float().mean().item()


def write(net: Classifier, facts: dict) -> None:
    """Write the weights (float16; moments float32) and a JSON file of facts on them beside it, each atomically."""
    moments = {name for name, _ in net.named_buffers(recurse=False)}
    tensors = {k: (v if k in moments or v.dtype == torch.int64 else v.half()) for k, v in net.state_dict().items()}
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    file = paths.data_dir() / FILE
    facts = facts | {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    paths.write_atomically(file, content)
    paths.write_atomically(file.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def main(epochs: int = 12, seed: int = 0) -> None:
    """Train the shipped classifier again and write it."""
    start = time.process_time()
    net = halve(train(*data.mnist("train"), epochs, seed))
    seconds = time.process_time() - start
    calibrate(net)
    right = accuracy(net, *data.mnist("test"))
    facts = {"test_accuracy": round(right, 4), "seed": seed, "epochs": epochs, "cpu_seconds": round(seconds)}
    write(net, facts | {"parameters": sum(p.numel() for p in net.parameters()), "trained_on": device.describe()})
    print(f"test accuracy {right:.2%} after {seconds / 60:.1f} CPU-minutes")


if __name__ == "__main__":
    main()
