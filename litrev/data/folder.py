"""The reader's own pictures as a data set: every picture below a folder, cut to squares of one size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from litrev import checks
from litrev.data.images import to_unit


class Pictures(NamedTuple):
    """Images float32 [n, 1 or 3, size, size] in [-1, 1], labels int64 [n], and the names that the labels count."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def images(path: str | Path, size: int = 28, grey: bool = True) -> Pictures:
    """Return all pictures in the folder `path` and the folders in it, in the order of their names.

    Each is turned upright as its EXIF says, cut to the square in its middle, and resized with antialiasing; what is
    transparent becomes white, of an animation the first frame counts, and 16 bits become 8. A picture's class is the
    name of the folder in `path` that holds it, or of `path` itself. Hidden files are passed over; other files that are
    no pictures, or damaged, are left out and counted in one printed line. Raises ValueError where there is no such
    folder, or no picture in it, or for a size that is not a whole number of at least 1.
    """
    checks.whole(size=size)
    checks.flag(grey=grey)
    folder, size = _folder(path), int(size)
    found, names, skipped = [], [], []
    for place in sorted(place.relative_to(folder) for place in folder.rglob("*")):
        if (folder / place).is_file() and not any(part.startswith(".") for part in place.parts):
            try:
                found.append(_square(folder / place, size, "L" if grey else "RGB"))
                names.append(place.parts[0] if len(place.parts) > 1 else folder.resolve().name)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                skipped.append(place.as_posix())
    left_out = f" Files in which Pillow finds no picture: {len(skipped):,}, such as {skipped[0]}." if skipped else ""
    if not found:
        raise ValueError(f"{folder} holds no pictures: put PNG or JPEG files in it.{left_out}")
    if skipped:
        print(f"Pictures read: {len(found):,}.{left_out}")
    classes = tuple(sorted(set(names)))
    pixels = torch.from_numpy(np.stack(found)).reshape(len(found), size, size, -1).permute(0, 3, 1, 2)
    return Pictures(to_unit(pixels.contiguous()), torch.tensor([classes.index(name) for name in names]), classes)


def _folder(path: str | Path) -> Path:
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"path must be the name of a folder with pictures, not {checks.shown(path)}.")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder here (the notebook runs in {Path.cwd()}): give the folder's path.")
    return folder


def _square(file: Path, size: int, mode: str) -> np.ndarray:
    """Return a picture's pixels, uint8 [size, size] or [size, size, 3]; raises what Pillow raises."""
    with Image.open(file) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
            upright = Image.fromarray((np.asarray(upright) // 257).clip(0, 255).astype(np.uint8))
        colours = upright.convert("RGBA")
        paper = Image.new("RGBA", colours.size, "white")
        paper.alpha_composite(colours)
        return np.asarray(ImageOps.fit(paper.convert(mode), (size, size), Image.Resampling.LANCZOS))
