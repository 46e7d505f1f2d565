"""Train where no file may exceed a few bytes, as on a full disk; then again without that limit."""

import resource
import signal

from toy_run import train

from lab import training
from litrev import paths


def names() -> list[str]:
    return sorted(path.name for path in paths.runs_dir().glob("toy-*"))


def main() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing too much fails as on a full disk
    training.CHECKPOINT_SECONDS = -1.0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1000, 4000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        run = train(seed=limit)
        print("\nfull:", run.source, names())
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = train(seed=limit)
    print("\nroom:", again.source, len(names()), bool((run.raw[0].weight == again.raw[0].weight).all()))


if __name__ == "__main__":
    main()
