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

ROOT = Path(__file__).parent.parent


def wait_for(condition, what, seconds=60):
    """The first true value of condition(), or a failure that says what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come in {seconds} s")


@contextlib.contextmanager
def lab(checkout, *arguments):
    """The running launcher and what it tells of its server (url, port, token)."""
    foreign = {"JUPYTER_CONFIG_DIR": "no/such/folder", "MPLBACKEND": "TkAgg"}
    environment = os.environ | foreign | {"BUILD_WORKSPACE_DIRECTORY": str(checkout), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.jupyter.lab", "--no-browser", *arguments]
    with open(checkout / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        told = wait_for(lambda: list((checkout / ".jupyter" / "runtime").glob("jpserver-*.json")), "the server")
        server = json.loads(told[0].read_text())
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
    file = checkout / ".jupyter" / "runtime" / f"kernel-{model['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
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


def test_without_bazel_it_says_how_to_start(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "BUILD_WORKSPACE_DIRECTORY"}
    command = [sys.executable, "-m", "tools.jupyter.lab"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "Start this with Bazel, which says where the checkout is: tools/bazel run jupyterlab"
