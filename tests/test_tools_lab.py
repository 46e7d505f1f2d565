"""The launcher of JupyterLab, started on a checkout of its own as `bazel run jupyterlab` starts it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient
from launchers import HOSTILE, ROOT, launcher

from tools.jupyter import kernel as kernels
from tools.jupyter import lab as labs

# Files of the reader's other Pythons; each would be seen in a kernel or stop the server.
FOREIGN_FILES = {
    ".ipython/profile_default/startup/hostile.py": "foreign = True",
    ".jupyter/jupyter_server_config.py": "c.ServerApp.token = ''",
    ".config/matplotlib/matplotlibrc": "figure.figsize: 1, 1",
    ".matplotlib/matplotlibrc": "figure.figsize: 1, 1",
}


def wait_for(condition, what, seconds=180):
    """The first true value of condition(), or a failure that says what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come in {seconds} s")


def told(files):
    """What the first of some JSON files says; None while there is none, or while it is being written."""
    for file in files:
        with contextlib.suppress(ValueError):
            return json.loads(file.read_text())
    return None


@contextlib.contextmanager
def lab(checkout, *arguments, **variables):
    """The running launcher, among settings for other Pythons, and what it tells of its server (url, port, token)."""
    folder = checkout / "launched"
    home = folder / "home"
    for name, content in FOREIGN_FILES.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(content)
    environment = os.environ | HOSTILE | {"BUILD_WORKSPACE_DIRECTORY": str(checkout), "HOME": str(home)} | variables
    environment.pop("LITREV_RUNS", None)  # what the suite sets for other tests
    command = [launcher(folder, "-m tools.jupyter.lab"), "--no-browser", *arguments]
    with open(checkout / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    state = Path(variables.get("XDG_CACHE_HOME", checkout))
    try:
        server = wait_for(lambda: told(state.glob("**/runtime/jpserver-*.json")), "the server")
        wait_for(lambda: answer(server, "api/status", server["token"]) == 200, "an answer")
        yield process, server
    finally:
        process.kill()
        process.wait()


def request(server, path, token, data=None):
    headers = {"Authorization": f"token {token}"} if token else {}
    url = f"http://127.0.0.1:{server['port']}/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as response:
        return response.status, response.read()


def answer(server, path, token=None):
    """The HTTP status, or None if nobody listens."""
    try:
        return request(server, path, token)[0]
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "litrev").mkdir()
    (tmp_path / "litrev" / "__init__.py").write_text("value = 'as cloned'\n")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


@contextlib.contextmanager
def kernel_of(server, checkout):
    """A client of a kernel that the server started."""
    model = json.loads(request(server, "api/kernels", server["token"], b'{"name": "python3"}')[1])
    name = f"**/runtime/kernel-{model['id']}.json"
    (file,) = wait_for(lambda: told(checkout.glob(name)) and list(checkout.glob(name)), "the kernel")
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels(hb=False)  # on a busy machine a late heartbeat is no death
    client.wait_for_ready(timeout=120)
    try:
        yield client
    finally:
        client.stop_channels()


def result(client, code):
    """What a cell prints."""
    printed = []
    client.execute_interactive(code, timeout=60, output_hook=lambda msg: printed.append(msg["content"].get("text", "")))
    return "".join(printed).strip()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_lab_from_start_to_ctrl_c(checkout):
    with lab(checkout) as (process, server), kernel_of(server, checkout) as client:
        assert server["url"].startswith("http://127.0.0.1:") and Path(server["root_dir"]) == checkout
        assert len(server["token"]) >= 32
        assert answer(server, "api/contents") == 403
        assert answer(server, "api/contents", server["token"]) == 200
        specs = json.loads(request(server, "api/kernelspecs", server["token"])[1])
        assert list(specs["kernelspecs"]) == ["python3"]
        page = request(server, "lab", server["token"])[1].decode()
        assert "apputils-extension:announcements" in page.split('"disabledExtensions"')[1].split("]")[0]

        assert result(client, "import sys; print(sys.executable)") == sys.executable
        assert result(client, "import os; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])") == "1"
        assert "inline" in result(client, "import matplotlib.pyplot; print(matplotlib.get_backend())")
        assert result(client, "import litrev; print(litrev.__file__)") == str(checkout / "litrev" / "__init__.py")
        assert result(client, "print(litrev.value)") == "as cloned"
        assert (
            result(client, "!python -c 'import litrev, sys; print(litrev.value, sys.prefix)'")
            == f"as cloned {sys.prefix}"
        )
        assert (
            result(client, "print('foreign' in globals(), matplotlib.rcParams['figure.figsize'][0] > 1)")
            == "False True"
        )
        assert result(client, "print([value for value in os.environ.values() if value.startswith('/no/')])") == "[]"
        assert result(client, "import pathlib; print(pathlib.Path('log').open().encoding)") == "utf-8"
        (checkout / "litrev" / "__init__.py").write_text("value = 'after an edit'\n")
        assert result(client, "print(litrev.value)") == "after an edit"

        kernel = int(result(client, "print(os.getpid())"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        wait_for(lambda: gone(kernel), "the end of the kernel", 10)


def test_a_busy_port_is_no_obstacle(checkout):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with lab(checkout, f"--port={taken}") as (_, server):
            assert server["port"] != taken


def test_a_checkout_that_cannot_be_written_opens_all_the_same(checkout, tmp_path_factory):
    """What cannot be made, here because files are in the way, is made in the reader's cache."""
    cache = tmp_path_factory.mktemp("cache")
    (checkout / ".jupyter").touch()
    (checkout / "data").touch()
    with lab(checkout, XDG_CACHE_HOME=str(cache)) as (_, server), kernel_of(server, cache) as client:
        (runs,) = cache.glob("litrev/*/runs")
        assert result(client, "import os; print(os.environ['LITREV_RUNS'])") == str(runs)
        assert result(client, "import litrev; print(litrev.value)") == "as cloned"
    said = (
        f"{checkout} cannot be written: notebooks run, what you train is kept in {runs}, but edits need a copy of it."
    )
    assert said in (checkout / "log").read_text()


def refuse(folder):
    """os.chmod of a file system that knows no permissions, below `folder`."""
    chmod = os.chmod

    def refusing(path, *rest, **more):
        if str(path).startswith(str(folder)):
            raise PermissionError(1, "Operation not permitted")
        return chmod(path, *rest, **more)

    return refusing


def test_jupyters_files_are_where_they_can_be_private(tmp_path, monkeypatch):
    root, cache = tmp_path / "root", tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert kernels.state_folder(root) == root / ".jupyter"
    monkeypatch.setattr(os, "chmod", refuse(root))
    assert kernels.state_folder(root).is_relative_to(cache / "litrev")
    assert kernels.state_folder(root) != kernels.state_folder(tmp_path / "another" / "root"), "one for each checkout"
    monkeypatch.setattr(os, "chmod", refuse(""))
    assert kernels.state_folder(root) == root / ".jupyter", "nowhere is better, so Jupyter is told to do without"
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        kernels.prepare(root, root / ".jupyter")
        assert os.environ["JUPYTER_ALLOW_INSECURE_WRITES"] == "true"
    monkeypatch.setattr(kernels, "writable", lambda folder: False)
    with pytest.raises(RuntimeError, match="XDG_CACHE_HOME"):
        kernels.state_folder(root)


def test_a_folder_for_runs_that_the_reader_chose_stays(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").touch()
    monkeypatch.setenv("LITREV_RUNS", "/chosen")
    labs.runs_elsewhere(tmp_path)
    assert os.environ["LITREV_RUNS"] == "/chosen" and not capsys.readouterr().out


def test_without_bazel_it_says_how_to_start(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "BUILD_WORKSPACE_DIRECTORY"}
    command = [sys.executable, "-m", "tools.jupyter.lab"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "Start this with Bazel, which says where the checkout is: tools/bazel run jupyterlab"
