"""A description changes with everything that matters to a run and with nothing else."""

import dataclasses
import enum
import functools
import importlib.util
import json
import sys
import textwrap
import types

import numpy as np
import pytest
import torch
from torch import nn

from lab import fingerprint
from lab.fingerprint import describe, digest
from litrev.diffusion import schedules
from litrev.diffusion.denoiser import from_network
from litrev.nets.laptop_unet import LaptopUNet

BASE = """
    import math
    from dataclasses import dataclass, field
    import torch
    from torch import nn
    from litrev.diffusion import schedules

    noise = schedules.LinearChain(1000)
    SCALE = 3.0
    TABLE = torch.arange(4.0)
    teacher = nn.Linear(2, 2)
    torch.nn.init.ones_(teacher.weight), torch.nn.init.zeros_(teacher.bias)

    class Block(nn.Module):
        width = 4
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, self.width)
        def forward(self, x):
            return helper(self.layer(x))

    @dataclass(frozen=True)
    class Config:
        depth: int = 2
        cache: dict = field(default_factory=dict, compare=False)

    config = Config()

    def helper(x, power=2):
        return x**power / math.pi

    def make(weight):
        def inner(net, batch, generator):
            return weight * net(batch).mean()
        return inner

    inner = make(0.5)

    @torch.no_grad()
    def frozen(x):
        return teacher(x) + config.depth

    def loss(net, batch, generator):
        alpha = noise.alpha(3)
        found = [helper(x) * SCALE for x in batch]
        return inner(net, batch, generator) + frozen(batch) + TABLE.sum() + later(2) + unknown

    later = lambda x: x + 1
    build = Block
"""


def described(tmp_path, *replaced):
    """Describe the loss and the network of a module made of BASE with some text replaced."""
    text = textwrap.dedent(BASE)
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / f"reader{len(list(tmp_path.iterdir()))}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("reader", path)
    module = sys.modules["reader"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: describe(getattr(module, name), name) for name in ("loss", "build")}


SAME = {
    "comment": ("SCALE = 3.0", "SCALE = 3.0  # thrice"),
    "docstring": ("    alpha = noise.alpha(3)", "    'What it does.'\n    alpha = noise.alpha(3)"),
    "layout": ("return weight * net(batch).mean()", "return (\n                weight * net(batch).mean())"),
    "type hints": ("def helper(x, power=2):", "def helper(x: float, power: int = 2) -> float:"),
    "quotes": ("import math", "import math\nfrom pathlib import Path\nunused = Path('/somewhere')"),
    "order": ("later = lambda x: x + 1", "somewhere_else = 5\nlater = lambda x: x + 1"),
    "method's docstring": ("        super().__init__()", "        'Doc.'\n        super().__init__()"),
    "hidden field": ("config = Config()", "config = Config(cache={1: 2})"),
}

DIFFERENT = {
    "code": ("noise.alpha(3)", "noise.alpha(4)"),
    "global number": ("SCALE = 3.0", "SCALE = 3.00001"),
    "type of a number": ("SCALE = 3.0", "SCALE = 3"),
    "global tensor": ("torch.arange(4.0)", "torch.arange(4.0) + 1e-6"),
    "tensor's dtype": ("torch.arange(4.0)", "torch.arange(4.0, dtype=torch.float64)"),
    "library object": ("LinearChain(1000)", "LinearChain(999)"),
    "library class": ("LinearChain(1000)", "CosineChain(1000)"),
    "function of a function": ("/ math.pi", "/ math.e"),
    "default": ("power=2", "power=3"),
    "closure": ("make(0.5)", "make(0.25)"),
    "under a decorator": ("teacher(x) +", "teacher(x) -"),
    "decorator": ("@torch.no_grad()", "@torch.enable_grad()"),
    "weights of a network": ("zeros_(teacher.bias)", "ones_(teacher.bias)"),
    "dataclass": ("Config()", "Config(depth=3)"),
    "lambda": ("x + 1", "x + 2"),
    "method": ("helper(self.layer(x))", "helper(-self.layer(x))"),
    "class attribute": ("width = 4", "width = 5"),
    "base class": ("class Block(nn.Module)", "class Block(nn.Sequential)"),
    "name that is defined now": ("later = lambda", "unknown = 1\nlater = lambda"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_not_matter_changes_nothing(tmp_path, change):
    assert digest(described(tmp_path)) == digest(described(tmp_path, change))


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_what_matters_changes_the_description(tmp_path, change):
    assert digest(described(tmp_path)) != digest(described(tmp_path, change))


def test_a_description_is_json_and_holds_no_path(tmp_path):
    text = json.dumps(described(tmp_path))
    assert json.loads(text) == described(tmp_path)
    assert str(tmp_path) not in text


class Colour(enum.Enum):
    red = 1


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a",)
    a: int


@functools.lru_cache
def cached(x):
    return x


def keyword(x, *, y=3):
    return x + y


VALUES = [
    None,
    True,
    1,
    1.0,
    -0.5,
    float("inf"),
    1j,
    "1",
    b"1",
    ...,
    range(3),
    range(4),
    slice(1, 2),
    [1, 2],
    [2, 1],
    {1, 2},
    {"a": 1},
    {1: 1},
    np.float32(1),
    np.arange(3),
    torch.arange(3, dtype=torch.int32),
    torch.zeros(2, 3),
    torch.zeros(3, 2),
    torch.zeros(()),
    torch.zeros(0),
    torch.float32,
    torch.bfloat16,
    torch.channels_last,
    torch.Size([1, 2, 3]),
    Colour.red,
    Slotted(1),
    Slotted(2),
    types.SimpleNamespace(a=5),
    np,
    torch,
    nn.Linear,
    nn.SiLU(),
    nn.functional.silu,
    torch.sin,
    torch.Tensor.add,
    np.add,
    len,
    cached,
    keyword,
    functools.partial(keyword, y=3),
    functools.partial(keyword, y=4),
    schedules.LinearChain(10).alpha,
    schedules.LinearChain(11).alpha,
    schedules.LinearChain(10).sigma,
]


def test_different_values_have_different_descriptions():
    digests = [digest(describe(value, "value")) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert digests == [digest(describe(value, "value")) for value in VALUES]


def test_equal_values_have_equal_descriptions():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert describe(x, "x") == describe(x.to(memory_format=torch.channels_last), "x")
    assert describe(x, "x") == describe(x.mT.contiguous().mT, "x")
    z = torch.complex(x, -x)
    assert describe(z, "z") == describe(torch.complex(x, x).conj(), "z")  # a view that only notes the other sign
    assert describe(-x, "x") == describe(torch.complex(x, x).conj().imag, "x")
    assert describe({"a": 1, "b": 2}, "x") == describe({"b": 2, "a": 1}, "x")
    assert describe({3, 1, 2}, "x") == describe({1, 2, 3}, "x")
    assert describe(torch.device("cpu"), "x") == describe(torch.device("meta"), "x")


def test_what_has_no_lasting_value_is_named_with_the_way_to_it():
    file = open(__file__)  # noqa: SIM115 - the open file is what cannot be described

    def loss(net):
        return [file, net]

    with file, pytest.raises(ValueError, match=r"loss\.closure\.file is a _io\.TextIOWrapper, which cannot be part"):
        describe(loss, "loss")
    with pytest.raises(ValueError, match="torch._C.Generator"):
        describe([torch.Generator()], "data")
    with pytest.raises(ValueError, match="ndarray"):
        describe(np.array([object()]), "data")


def test_code_without_source_and_ambiguous_code_are_refused():
    scope = {}
    exec("def loss(x): return x", scope)
    with pytest.raises(ValueError, match="source of loss is not to be found"):
        describe(scope["loss"], "loss")
    both = (lambda x: x, lambda x: x + 1)
    with pytest.raises(ValueError, match="several functions start on one line"):
        describe(both[0], "loss")


def test_functions_that_call_each_other_are_described_once(tmp_path):
    (tmp_path / "mutual.py").write_text("def a(n): return b(n - 1)\ndef b(n): return a(n) + a(n)\n")
    spec = importlib.util.spec_from_file_location("mutual", tmp_path / "mutual.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = describe(module.a, "a")
    assert found["globals"]["b"]["globals"]["a"] == "see a"


def network():
    torch.manual_seed(0)
    return nn.Sequential(LaptopUNet(width=16, depth=1, middle=1, heads=1), nn.Dropout(0.1)).eval()


def scaled(net):
    for weight in net.parameters():
        weight.data.mul_(3)  # `data` leaves the weights' version counters as they are


def one_weight(net):
    net[0].conv_in.weight.data[0, 0, 0, 0] += 1e-6


def setting(net):
    net[0].middle[0].attention.heads = 2


def hook(net):
    net[0].register_forward_hook(lambda module, arguments, answer: 2 * answer)


def pre_hook(net):
    net.register_forward_pre_hook(lambda module, arguments: arguments)


def replaced_method(net):
    net[0].forward = lambda x, time: x


def replaced_part(net):
    net[0].up[0] = nn.Identity()


def training(net):
    net.train()


def swapped(net):
    net[0].conv_in.weight.data = net[0].conv_in.weight.data.flip(0)


def buffer(net):
    net.register_buffer("mean", torch.zeros(1))


CHANGES = [scaled, one_weight, setting, hook, pre_hook, replaced_method, replaced_part, training, swapped, buffer]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_network_counts_as_what_it_computes_now(change):
    net = network()
    before = describe(net, "net")
    assert describe(network(), "net") == before == describe(net, "net")
    change(net)
    assert describe(net, "net") != before
    denoisers = [from_network(made, schedules.LinearChain(10), "v") for made in (network(), net)]
    assert digest(describe(denoisers[0], "d")) != digest(describe(denoisers[1], "d"))


def test_a_replaced_method_of_a_schedule_counts():
    plain, other, used = (schedules.LinearChain(10) for _ in range(3))
    object.__setattr__(other, "alpha", lambda t: torch.ones(()))
    used.alpha(3)  # fills what is cached beside the fields
    assert describe(plain, "chain") == describe(used, "chain") != describe(other, "chain")


def test_litrev_counts_by_name_wherever_it_stands(monkeypatch):
    described = [describe(value, "it") for value in (LaptopUNet, from_network, schedules.LinearChain(10), schedules)]
    for value in (LaptopUNet, from_network, schedules.LinearChain):
        monkeypatch.setattr(value, "__module__", "litrev.elsewhere.file")
    monkeypatch.setitem(from_network.__globals__, "__name__", "litrev.elsewhere.file")
    monkeypatch.setattr(schedules, "__name__", "litrev.elsewhere.schedules")
    assert [describe(value, "it") for value in (LaptopUNet, from_network, schedules.LinearChain(10), schedules)] == (
        described
    )
    assert "diffusion" not in json.dumps(described) and "nets" not in json.dumps(described)


def test_settings_of_a_network_that_its_weights_do_not_show_count():
    a, b = nn.LayerNorm(4, eps=1e-5), nn.LayerNorm(4, eps=1e-3)
    assert describe(a, "net") != describe(b, "net")
    assert describe(nn.Dropout(0.1).train(), "net") != describe(nn.Dropout(0.1).eval(), "net")


def test_the_last_bits_of_a_number_do_not_count():
    """The mean of MNIST by one and by two threads."""
    assert describe(-0.7386789917945862, "x") == describe(-0.7386791110038757, "x")
    assert describe(0.3, "x") == 0.3 != describe(0.300001, "x")


def test_the_last_bits_of_float64_do_not_count():
    """They differ between processors, and must not orphan a shipped run; a difference of 1e-6 does count."""
    table = torch.linspace(0.1, 1, 1000, dtype=torch.float64)
    described = describe(table, "table")
    assert describe(table * (1 + 3e-16), "table") == described
    assert describe(table * (1 + 1e-6), "table") != described


CELL = """
%precision 3
def build():
    # one layer
    return nn.Linear(2, width)


class Block(nn.Module):
    def forward(self, x):
        return width * x


scale = lambda x: width * x
"""


def test_code_of_notebook_cells_counts_like_that_of_files(tmp_path, monkeypatch):
    """Cells have no file, magics that are no Python, and run again under the same names with other content."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}), user_ns={"nn": nn, "width": 3})
    (tmp_path / "cell.py").write_text("from torch import nn\nwidth = 3\n" + CELL.replace("%precision 3", ""))
    spec = importlib.util.spec_from_file_location("cell", tmp_path / "cell.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert shell.run_cell(CELL, store_history=True).success
    for name in ("build", "Block", "scale"):
        assert describe(shell.user_ns[name], name) == describe(getattr(module, name), name)
    assert shell.run_cell(CELL.replace("width * x", "width / x"), store_history=True).success
    assert describe(shell.user_ns["build"], "it") == describe(module.build, "it")
    assert describe(shell.user_ns["scale"], "it") != describe(module.scale, "it")
    assert describe(shell.user_ns["Block"], "it") != describe(module.Block, "it")


WRAPPED = {
    "time": "%%time\n\ndef loss(x):\n    # what it is\n    return x * width",
    "time around a lambda": "%%time\nloss = lambda x: x * width",
    "one line": "%time loss = lambda x: x * width",
    "capture": "%%capture\ndef loss(x):\n    return x * width",
    "profile": "%%prun -q\ndef loss(x):\n    return x * width",
    "two": "%%time\n%%time\ndef loss(x):\n    return x * width",
    "decorated": "%%time\n@torch.no_grad()\ndef loss(x):\n    return x * width",
}


@pytest.mark.parametrize("cell", WRAPPED.values(), ids=WRAPPED)
def test_code_under_a_magic_counts_like_code_in_a_cell(tmp_path, monkeypatch, cell):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.user_ns |= {"width": 3, "torch": torch}
    plain = "\n".join(line.removeprefix("%time ") for line in cell.splitlines() if not line.startswith("%%"))
    found = []
    for text in (plain, cell, cell.replace("x * width", "x / width"), cell):
        assert shell.run_cell(text, store_history=True).success
        found.append(digest(describe(shell.user_ns["loss"], "loss")))
    InteractiveShell.clear_instance()
    assert found[0] == found[1] == found[3] != found[2]


def test_what_nobody_reads_is_not_printed():
    old, new = {"modules": "Linear(2, 3)\n" * 20, "lr": 1}, {"modules": "Linear(2, 4)\n" * 20, "lr": 2}
    assert fingerprint.differences(old, new) == ["lr was 1 and is now 2", "modules has changed"]
