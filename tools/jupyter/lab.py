"""JupyterLab on the checkout, with the pinned packages: tools/bazel run jupyterlab [-- JupyterLab's own arguments]."""

import json
import os
import sys
from pathlib import Path

from tools.jupyter import kernel

SETTINGS = {
    "ServerApp.ip": "127.0.0.1",  # with Jupyter's token: nobody else on the network or the machine gets in
    "ServerApp.answer_yes": "True",  # Ctrl-C ends server and kernels without a question
    "ServerApp.port_retries": "100",  # the next free port when 8888 is taken
    "KernelSpecManager.allowed_kernelspecs": "python3",
    "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "LabApp.extension_manager": "readonly",  # packages come from the lock
}
PAGE = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # asks for news on each start


def runs_elsewhere(root: Path) -> None:
    """In a checkout that cannot be written, what is trained goes to a cache; a folder that the reader chose stays."""
    if os.environ.get("LITREV_RUNS") or kernel.writable(root / "data" / "runs"):
        return
    runs = next(filter(kernel.writable, (folder / "runs" for folder in kernel.cache(root))), None)
    os.environ["LITREV_RUNS"] = str(runs)
    sentence = (
        f"{root} cannot be written: notebooks run, what you train is kept in {runs}, but edits need a copy of it."
    )
    print(sentence, flush=True)


def main(arguments: list[str]) -> None:
    """`arguments` are those of `jupyter lab` and win over SETTINGS; the first may be a notebook of the checkout."""
    root = kernel.checkout()
    state = kernel.state_folder(root)
    kernel.prepare(root, state)
    runs_elsewhere(root)
    page = state / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(json.dumps(PAGE))
    if os.geteuid() == 0:  # in a container; Jupyter refuses otherwise
        arguments = ["--allow-root", *arguments]
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    os.chdir(root)
    from jupyterlab.labapp import main as serve

    serve([*settings, f"--ServerApp.root_dir={root}", *arguments])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
