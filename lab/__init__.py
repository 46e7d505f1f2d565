"""lab: trains, keeps and records what the notebooks find; it knows nothing of any paper.

`training.fit` trains a network once and for all, `measure.measure` keeps what was measured, `claims` holds it against
the paper. What the papers are about is in `litrev`, which never imports this package.
"""

import sys
import tempfile

# A training run must not end because the terminal's encoding lacks a letter that it prints. Jupyter's streams take all.
for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")

try:
    tempfile.gettempdir()
except OSError:  # on a full disk there is none, but PyTorch, which then only wants to know its name, would not train
    tempfile.tempdir = "/tmp"
