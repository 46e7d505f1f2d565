"""Makes data/mnist from the four gzipped IDX files of the MNIST database: tools/bazel run make_mnist -- FOLDER."""

import gzip
import hashlib
import lzma
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from litrev import paths
from litrev.data import images


def recompress(source: Path, name: str) -> None:
    """Write `name` of the folder `source` to data/mnist as xz, after checking that it is the original."""
    raw = gzip.decompress((source / f"{name}.gz").read_bytes())
    if hashlib.sha256(raw).hexdigest() != images.MNIST_SHA256[name]:
        raise SystemExit(f"{source / name}.gz is not the original MNIST file: fetch it again.")
    packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    paths.write_atomically(images.mnist_file(name), packed)
    print(f"{name}.xz  {len(packed):>9,} bytes  sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for file_name in images.MNIST_SHA256:
        recompress(Path(sys.argv[1]), file_name)
