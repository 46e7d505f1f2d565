"""The data: images as tensors, toys with exact scores, captioned scenes. `data.mnist("train")` is MNIST."""

from litrev.data.images import cifar10, fashion_mnist, mnist, to_pixels, to_unit

__all__ = ["cifar10", "fashion_mnist", "mnist", "to_pixels", "to_unit"]
