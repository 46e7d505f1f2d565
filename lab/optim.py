"""How `fit` moves weights: AdamW, Muon with its orthogonal steps, the learning rate's course, the average's decay."""

import torch
from torch import Tensor, nn

from litrev import checks

THIN = 16  # matrices narrower than this (an image going in or out, depthwise kernels) gain nothing from Muon


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Replace the singular values of each matrix by numbers near 1 (0.7 to 1.2), keeping its singular vectors.

    Newton-Schulz iteration X <- a X + b (X X^T) X + c (X X^T)^2 X on X = M / |M|_F; shapes [n, rows, cols] -> the same;
    a matrix of zeros stays zero. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    checks.floats("n rows cols", matrices=matrices)
    checks.whole(0, steps=steps)
    if matrices.shape[-2] > matrices.shape[-1]:  # X X^T is smallest when X is wide
        return orthogonalise(matrices.mT, steps).mT
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-20)
    gram = x @ x.mT
    total = eye = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    for _ in range(
        steps
    ):  # each step is X <- P X: follow only the small matrix X X^T <- P X X^T P, multiply X once at the end
        p = 3.4445 * eye - 4.7750 * gram + 2.0315 * gram @ gram
        total, gram = p @ total, p @ gram @ p
    return total @ x


class Muon(torch.optim.Optimizer):
    """Descend along the orthogonalised momentum: W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, cols)) orthogonalise(m).

    A kernel [out, in, k, k] counts as the matrix [out, in k k]. The factor gives the step the root mean square that one
    of AdamW has, so that one learning rate serves both (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4).
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        checks.number(0, lr=lr, weight_decay=weight_decay)
        checks.number(0, below=1, momentum=momentum)
        params = list(params) if hasattr(params, "__iter__") else [params]
        if not params or not all(isinstance(p, Tensor) and p.ndim > 1 for p in params):
            raise ValueError("Muon moves matrices and kernels: give it a list of tensors of two or more axes.")
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Take one step for all matrices; those of equal shape go through the iteration together, which is faster."""
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.flatten(1).shape, []).append(p)
            for shape, params in alike.items():
                updates = orthogonalise(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view(p.shape), alpha=size)

    def _momentum(self, p: Tensor, beta: float) -> Tensor:
        """Return the matrix beta m + (1 - beta) g (Nesterov's look ahead) after m <- beta m + (1 - beta) g."""
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - beta)
        return p.grad.lerp(buffer, beta).flatten(1)


def _is_matrix(module: nn.Module, p: Tensor) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and p.ndim > 1 and min(p.flatten(1).shape) >= THIN


def optimisers(net: nn.Module, name: str, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together move all trainable parameters of `net`; `name` is 'adamw' or 'muon'.

    With 'muon', the weights of linear and convolution layers whose smaller side is at least 16 go to Muon; everything
    else (biases, norms, embeddings, thin first and last layers) goes to AdamW.
    """
    checks.kind(nn.Module, "a network", net=net)
    checks.choice(("adamw", "muon"), name=name)
    checks.number(0, lr=lr, weight_decay=weight_decay)
    pairs = {p: module for module in net.modules() for p in module.parameters(recurse=False) if p.requires_grad}
    matrices = [p for p, module in pairs.items() if name == "muon" and _is_matrix(module, p)]
    rest = [p for p in pairs if not any(p is m for m in matrices)]
    found = [Muon(matrices, lr, weight_decay=weight_decay)] if matrices else []
    return found + ([torch.optim.AdamW(rest, lr, weight_decay=weight_decay, fused=True)] if rest else [])


def rate(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate at step 0, ..., steps - 1: it rises for `warmup` of them, then falls."""
    checks.whole(steps=steps)
    checks.whole(0, steps - 1, step=step)
    checks.number(0, 1, warmup=warmup)
    rise = max(1.0, warmup * steps)
    return min((step + 1) / rise, (steps - step) / max(1.0, steps - rise))


def decay(step: int, ema: float) -> float:
    """Return the weight of the old average at step n = 0, 1, ...: min(ema, (1 + n) / (10 + n)), short at first."""
    checks.whole(0, step=step)
    checks.number(0, 1, ema=ema)
    return min(ema, (1 + step) / (10 + step))


def get_state(found: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return everything the optimisers remember as named tensors: `<optimiser>.<parameter>.<entry>`."""
    states = [(i, j, o.state[p]) for i, o in enumerate(found) for j, p in enumerate(_params(o))]
    return {f"{i}.{j}.{entry}": value for i, j, state in states for entry, value in state.items()}


def set_state(found: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Give the optimisers back what `get_state` returned, in the memory layout of their parameters.

    The fused AdamW walks parameter and state side by side in memory: channels_last weights need such a state.
    """
    for name, value in tensors.items():
        i, j, entry = name.split(".")
        p = _params(found[int(i)])[int(j)]
        like = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value, device=p.device)
        found[int(i)].state[p][entry] = like.copy_(value)


def _params(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]
