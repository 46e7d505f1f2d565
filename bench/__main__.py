"""Measures this library beside its peers, in CPU time of one thread: tools/bazel run //bench [-- PART] [--write]

speed     training, sampling, memory, imports and the machine's ceiling: 30 minutes, or with --quick 5 (the default)
quality   the Frechet distance after each budget of training from nothing: hours; what is done is kept and not repeated
solver    the Frechet distance by samplers and their steps: 15 minutes
growth    what an image costs in training as images and networks grow: 5 minutes, or with --quick 2
compile   training with torch.compile and without: 10 minutes
profile   where the time of a training step goes, in each precision: 5 minutes
notebooks waiting for first figures and for Run All: 15 minutes on a quiet machine, of all cores
tables    measures nothing, shows what is kept

--write keeps what was measured and puts all tables into bench/README.md, in brief into the README.
"""

import argparse
import json
import os
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path

from bench import children, notebooks, report
from bench.tables import read
from litrev import paths
from tools import pages

UNET, DIT = "litrev U-Net", "litrev DiT"
AZULA, DDP, UNET2D, DIT2D = "azula UNet", "denoising-diffusion-pytorch", "diffusers UNet2DModel", "diffusers DiT"
KDIFF, SMALL = "k-diffusion", "smalldiffusion Unet"

# Its function in subjects.py, and the ceiling it is held against.
NETWORKS = {
    UNET: ("litrev_unet", "conv"),
    DDP: ("lucidrains", "conv"),
    UNET2D: ("diffusers_unet", "conv"),
    AZULA: ("azula_unet", "conv"),
    KDIFF: ("k_diffusion_unet", "conv"),
    SMALL: ("smalldiffusion_unet", "conv"),
    DIT: ("litrev_dit", "matmul"),
    DIT2D: ("diffusers_dit", "matmul"),
}
# Its function in quality.py and that one's first arguments. A peer's first row is as its own training code has it; that
# is meant for longer trainings, so the second has the learning rate 1e-3, and no average that lags behind.
TRIALS = {
    "litrev": ("litrev_recipe", {}),
    DDP: ("peer_recipe", "lucidrains", {}),
    f"{DDP}, lr 1e-3": ("peer_recipe", "lucidrains", {"lr": 1e-3, "ema_every": 1}),
    UNET2D: ("peer_recipe", "diffusers_unet", {}),
    f"{UNET2D}, lr 1e-3": ("peer_recipe", "diffusers_unet", {"lr": 1e-3}),
    AZULA: ("peer_recipe", "azula_unet", {}),
    f"{AZULA}, lr 1e-3": ("peer_recipe", "azula_unet", {"lr": 1e-3}),
    KDIFF: ("peer_recipe", "k_diffusion_unet", {}),
    f"{KDIFF}, lr 1e-3": ("peer_recipe", "k_diffusion_unet", {"lr": 1e-3}),
    SMALL: ("peer_recipe", "smalldiffusion_unet", {}),
    f"{SMALL}, lr 1e-3": ("peer_recipe", "smalldiffusion_unet", {"lr": 1e-3}),
    DIT2D: ("peer_recipe", "diffusers_dit", {}),
    f"{DIT2D}, lr 1e-3": ("peer_recipe", "diffusers_dit", {"lr": 1e-3}),
}
# The recipe with one of its parts taken out; then with what was left out of it put back.
PARTS = {
    "AdamW (lr 2e-3) instead of Muon": {"optimiser": "adamw", "lr": 2e-3},
    "t uniform instead of log-normal noise": {"centre": None},
    "eps instead of v": {"predicts": "eps"},
    "images not standardised": {"standardise": False},
    "twice the batch, half the steps": {"batch": 128},
    "without averaged weights": {"ema": 0.0},
    "without a weaker network that guides": {"guidance": 1.0},
}
TRIALS |= {f"litrev, {part}": ("litrev_recipe", options) for part, options in PARTS.items()}
TRIALS["litrev, with attention"] = ("attentive_recipe",)
TRIALS |= {"litrev, by class": ("by_class",), "litrev, scenes by caption": ("scenes_by_caption",)}
LITREV = "from litrev import data; from litrev.diffusion import denoiser, samplers; from litrev.nets import laptop_unet"
IMPORTS = {
    "torch": "import torch",
    "litrev: networks, samplers, data": LITREV,
    "the same, beyond torch's own (at most 0.3)": f"import torch; before = time.process_time(); {LITREV}",
    "litrev: plots, which bring matplotlib": "from litrev import plots",
    "lab.training": "from lab import training",
    DDP: "import denoising_diffusion_pytorch",
    "diffusers: UNet2DModel, DDPMScheduler": "from diffusers import DDPMScheduler, UNet2DModel",
    "azula: UNet, denoiser, sampler": "from azula import denoise, noise, sample; from azula.nn import unet",
    KDIFF: "import k_diffusion",
    SMALL: "import smalldiffusion",
}
SAMPLERS = [("DDIM", 50), ("DDIM", 18), *(("2M solver", steps) for steps in (8, 12, 18)), ("2M solver with noise", 50)]
FULL = {"sizes": [28, 32], "batch": 128, "rounds": 7, "seconds": 2.0, "evaluations": 5, "imports": 5}
GROWTH = {"millions": [0.4, 1.6, 6.0], "sizes": [28, 32, 48, 64], "batch": 64, "rounds": 5, "seconds": 1.0}
COMPILE = {"networks": [["U-Net", 0.4], ["U-Net", 1.6], ["DiT", 0.4], ["DiT", 1.6]]}
COMPILE |= {"compiled": ["nothing", "network", "network and optimiser"], "batch": 128, "rounds": 5, "seconds": 1.0}
PROFILE = {"millions": [0.4, 1.6], "batch": 128, "rounds": 5, "seconds": 0.5}
QUICK = FULL | {"sizes": [28], "rounds": 2, "seconds": 0.5, "evaluations": 2, "imports": 1}


def interleaved(work: dict, rounds: int) -> dict[str, dict]:
    """Return the spread of what each function of `work` answers in each round, A B C A B C: the machine's moods meet
    all alike."""
    answers = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            answers[name].append(function())
    return {name: children.spread(values) for name, values in answers.items()}


def networks(millions: float, size: int, settings: dict) -> tuple[list[dict], str]:
    """Return the measurements of all NETWORKS of about that many parameters on images of that size, each with its
    ceiling, which takes turns with them; and PyTorch's version."""
    with ExitStack() as stack:
        ceiling = stack.enter_context(children.Child("bench.speed:Ceiling"))

        def start(build):
            return stack.enter_context(children.Child("bench.speed:Trainee", build, millions, size, settings["batch"]))

        trainees = {name: start(build) for name, (build, _) in NETWORKS.items()}
        facts = {name: child.call("facts") for name, child in trainees.items()}
        train = {name: partial(child.call, "train", settings["seconds"]) for name, child in trainees.items()}
        limits = {label: partial(ceiling.call, "run", label, settings["seconds"]) for label in ceiling.call("labels")}
        sample = {name: partial(child.call, "sample", settings["evaluations"]) for name, child in trainees.items()}
        found, sampled = (interleaved(work, settings["rounds"]) for work in (limits | train, sample))
        version = ceiling.call("torch_version")

    def row(name, kind):
        own = [found[label] for label in limits if label.startswith(f"{kind} {facts[name]['precision']}")]
        fastest = max(own, key=lambda limit: limit["median"])  # of the memory layouts
        about = {"name": name, "millions": millions, "size": size, "kind": kind, **facts[name]}
        return about | {"train": found[name], "ceiling": fastest, "sample": sampled[name]}

    return [row(name, kind) for name, (_, kind) in NETWORKS.items()], version


def speed(settings: dict) -> dict:
    """Return all that `speed` measures, with its date, machine and settings."""
    rows = []
    for size in settings["sizes"]:
        for millions in (0.4, 1.6):
            print(f"Networks of about {millions} M parameters, {size}x{size} ...", flush=True)
            more, version = networks(millions, size, settings)
            rows += more
    print("Imports ...", flush=True)
    imports = interleaved(
        {name: partial(children.import_seconds, code) for name, code in IMPORTS.items()}, settings["imports"]
    )
    about = {"date": str(date.today()), "machine": children.machine() | {"torch": version}, "settings": settings}
    return about | {"networks": rows, "imports": imports}


def quality(names: list[str], budgets: list[float], seeds: list[int], again: bool, n: int, file: Path) -> None:
    """Train and score what `file` does not hold yet, or `again`; each result is kept as soon as there is one."""
    for budget, seed, name in ((b, s, name) for b in budgets for s in seeds for name in names):
        key = {"name": name, "seconds": budget, "seed": seed, "processor": children.machine()["processor"]}
        if again or not any(key.items() <= result.items() for result in read(file, [])):
            print(f"{name}, {budget:g} s, seed {seed} ...", flush=True)
            function, *arguments = TRIALS[name]
            with children.Child(f"bench.quality:{function}", *arguments, budget, seed) as child:
                result = key | child.call("score", n, 50) | {"date": str(date.today())}
            others = [other for other in read(file, []) if not key.items() <= other.items()]
            write(file, [*others, result])
            found = {name: result[name] for name in ("distance",) if name in result} | result.get("read", {})
            print("    " + ", ".join(f"{what} {value:.3g}" for what, value in found.items()), flush=True)


def samplers(seeds: list[int], n: int) -> list[dict]:
    """Return the Frechet distance of the shared DDPM's samples by each of SAMPLERS, for each seed."""
    with children.Child("bench.solver:Sampler") as child:
        asked = [(name, steps, seed) for seed in seeds for name, steps in SAMPLERS]
        return [{"name": f[0], "steps": f[1], "seed": f[2], **child.call("distance", *f, n)} for f in asked]


def dated(rows: list[dict], settings: dict, version: str) -> dict:
    """Return what was measured with its date, machine, PyTorch's version and settings."""
    machine = children.machine() | {"torch": version}
    return {"date": str(date.today()), "machine": machine, "settings": settings, "rows": rows}


def growth(settings: dict) -> dict:
    """Return what an image costs as images and networks grow, with date, machine and settings."""
    with children.Child("bench.growth:Grid", *(settings[name] for name in ("millions", "sizes", "batch"))) as child:
        rows, version = child.call("measure", settings["rounds"], settings["seconds"]), child.call("torch_version")
    return dated(rows, settings, version)


def profile(settings: dict) -> dict:
    """Return where the time of training steps goes, with date, machine and settings."""
    with children.Child("bench.profiled:Profile", settings["millions"], settings["batch"]) as child:
        rows, version = child.call("measure", settings["rounds"], settings["seconds"]), child.call("torch_version")
    return dated(rows, settings, version)


def compiling(settings: dict) -> dict:
    """Return the CPU seconds of the first step and the speed of networks in training, by what of it is compiled, with
    date, machine and settings."""
    rows = []
    for name, millions in settings["networks"]:
        print(f"{name}, {millions} M parameters ...", flush=True)
        with ExitStack() as stack:
            whats = [
                ("bench.compiled:Trainee", name, millions, part, settings["batch"]) for part in settings["compiled"]
            ]
            trainees = {what[3]: stack.enter_context(children.Child(*what)) for what in whats}
            facts = {part: child.call("facts") for part, child in trainees.items()}
            train = {part: partial(child.call, "train", settings["seconds"]) for part, child in trainees.items()}
            rates = interleaved(train, settings["rounds"])
        rows += [{"name": name, "millions": millions, "compiled": p, **facts[p], "train": rates[p]} for p in trainees]
    (version,) = {row.pop("torch") for row in rows}
    return dated(rows, settings, version)


def waiting(names: list[str], waits: list[str], busy: bool, root: Path, keep: Path | None) -> list[dict]:
    """Return how long a reader waits for each notebook under each setting, besides what is kept; each result goes to
    the file `keep`, if any, as soon as there is one. A notebook that cannot be measured is left out, and why is said.
    """
    rows = report.results(root)["notebooks"]
    for name, setting in ((name, setting) for name in names for setting in waits):
        print(f"{name}, waits: {setting}{', beside other work' if busy else ''} ...", flush=True)
        try:
            new = notebooks.waiting(name, root, setting, busy)
        except RuntimeError as problem:
            print(problem, flush=True)
            continue
        key = {what: new[what] for what in ("name", "processor", "waits", "busy")}
        rows = [*(old for old in rows if not key.items() <= old.items()), new]
        print("    " + ", ".join(f"{what} {new[what]:g} s" for what in ("start", "figure", "all", "cpu")), flush=True)
        if keep:
            write(keep, rows)
    return rows


def latest(measured: list[dict], new: dict) -> list[dict]:
    """Return what is kept, with one measurement of a processor: its new one."""
    return [*(old for old in measured if old["machine"]["processor"] != new["machine"]["processor"]), new]


def write(file: Path, content) -> None:
    """Replace a JSON file, all at once."""
    paths.write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    root = Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY") or paths.root())
    parts = ["speed", "quality", "solver", "growth", "profile", "compile", "notebooks", "tables"]
    parser = argparse.ArgumentParser("bench", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=parts, default="speed")
    parser.add_argument("--quick", action="store_true", help="speed, growth: fewer, shorter measurements; speed: 28x28")
    parser.add_argument(
        "--trials", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="NAME", help="quality: these only"
    )
    parser.add_argument("--seconds", nargs="+", type=float, default=[300.0, 600.0], help="quality: budgets of CPU time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--again", action="store_true", help="quality: also what is kept already")
    every = notebooks.names(root)
    parser.add_argument("--notebooks", nargs="+", choices=every, default=every, metavar="NAME", help="these only")
    parser.add_argument("--busy", action="store_true", help="notebooks: beside a spinning process for each core")
    parser.add_argument(
        "--waits", nargs="+", choices=notebooks.WAITS, default=["launcher"], help="notebooks: how threads wait"
    )
    parser.add_argument("--write", action="store_true", help="keep the results, and update the pages")
    options = parser.parse_args(arguments)
    found, file = report.results(root), root / "bench" / "results" / f"{options.part}.json"
    if options.part == "speed":
        found["speed"] = latest(found["speed"], speed(QUICK if options.quick else FULL))
    if options.part == "quality":
        quality(options.trials, options.seconds, options.seeds, options.again, 1000, file)
        found = report.results(root)
    if options.part == "solver":
        found["solver"] = samplers([0, 1, 2], 1000)
    if options.part == "growth":
        found["growth"] = latest(found["growth"], growth(GROWTH | {"rounds": 1} if options.quick else GROWTH))
    if options.part == "profile":
        found["profile"] = latest(found["profile"], profile(PROFILE))
    if options.part == "compile":
        found["compile"] = latest(found["compile"], compiling(COMPILE))
    if options.part == "notebooks":
        keep = file if options.write else None
        found["notebooks"] = waiting(options.notebooks, options.waits, options.busy, root, keep)
    print(report.markdown(found, root))
    if options.write:
        if options.part in found:
            write(file, found[options.part])
        if found["growth"]:
            from bench import figure  # matplotlib, and torch, which no child's memory is to begin with

            figure.draw(report.newest_first(found["growth"])[0]["rows"], root / "bench" / "growth.png")
        pages.write(root)


if __name__ == "__main__":
    main()
