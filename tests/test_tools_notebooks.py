"""Running and storing notebooks: what is stored, what is refused, what is found wrong."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.jupyter import notebooks

ROOT = Path(__file__).parent.parent


def notebook_of(*sources):
    return new_notebook(cells=[new_markdown_cell("A title"), *(new_code_cell(source) for source in sources)])


def executed(*sources):
    """A notebook as .execute would leave it, without running anything."""
    notebook = notebook_of(*sources)
    for count, cell in enumerate(notebooks.code_cells(notebook), 1):
        cell.execution_count = count
    notebooks.tidy(notebook, "laptop")
    return notebook


def test_fingerprint_is_of_the_code_alone():
    notebook = notebook_of("a = 1", "b = 2\nc = 3")
    same = notebook_of("a = 1   ", "b = 2  \nc = 3\n")
    same.cells[0].source = "Another title"
    notebooks.code_cells(same)[0].outputs = [new_output("stream", text="seen")]
    assert notebooks.fingerprint(notebook) == notebooks.fingerprint(same)
    for other in (notebook_of("a = 1", "b = 2\nc = 4"), notebook_of("a = 1\nb = 2\nc = 3"), notebook_of("a = 1")):
        assert notebooks.fingerprint(notebook) != notebooks.fingerprint(other)


def test_tidy_leaves_no_trace_of_the_run():
    notebook = executed("1")
    notebooks.code_cells(notebook)[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    notebook.metadata["language_info"]["version"] = "3.11.7"
    notebooks.tidy(notebook, "smoke")
    assert notebooks.code_cells(notebook)[0].metadata == {}
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "litrev": {"fingerprint": notebooks.fingerprint(notebook), "preset": "smoke"},
    }


def stream(name, text):
    return lambda cell: cell.outputs.append(new_output("stream", name=name, text=text))


FAULTS = {
    "not those of the code": lambda cell: cell.update(source="2"),
    "not run from first to last": lambda cell: cell.update(execution_count=7),
    "a traceback: ValueError": lambda cell: cell.outputs.append(new_output("error", ename="ValueError", evalue="")),
    "a warning: UserWarning": stream("stderr", "UserWarning: old"),
    "/home/someone/litrev/data": stream("stdout", "kept in /home/someone/litrev/data"),
    "/tmp/x": lambda cell: cell.outputs.append(new_output("display_data", {"text/html": "<b>'/tmp/x'</b>"})),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_fault_of_the_outputs_is_found(sentence):
    notebook = executed("1")
    assert notebooks.output_problems(notebook) == []
    FAULTS[sentence](notebooks.code_cells(notebook)[0])
    (found,) = notebooks.output_problems(notebook)
    assert sentence in found


def test_links_and_pictures_are_no_private_paths():
    notebook = executed("1")
    data = {"text/html": "<a href='https://x.org/home/page'>", "image/png": "iVBOR /tmp/0", "text/plain": "a/var/b"}
    notebooks.code_cells(notebook)[0].outputs = [new_output("display_data", data)]
    assert notebooks.output_problems(notebook) == []


def test_smoke_outputs_are_not_for_git():
    notebook = executed("1")
    notebooks.tidy(notebook, "smoke")
    assert notebooks.output_problems(notebook) == ["the outputs are of the preset 'smoke', not 'laptop'"]


def test_faults_of_the_form_are_found():
    notebook = executed("\n".join(["pass"] * 20))
    notebook.cells[0].source = "word " * 1500 + "$a + b$ ```code``` <b>"
    assert notebooks.words(notebook) == 1500
    assert notebooks.form_problems(notebook, 1_500_000) == []
    notebook.cells[0].source = "word " * 1499
    notebooks.code_cells(notebook)[0].source += "\npass"
    assert len(notebooks.form_problems(notebook, 1_500_001)) == 3


def test_a_store_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    notebooks.store(notebook_of("1"), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        notebooks.store(notebook_of("2"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def execute(folder, notebook, *arguments):
    """Runs the tool on a notebook in a checkout of its own; the notebook as it then lies there, and what was said."""
    path = folder / "notebooks" / "00_try.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(copy.deepcopy(notebook), path)
    environment = os.environ | {"BUILD_WORKSPACE_DIRECTORY": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.jupyter.execute", "notebooks/00_try.ipynb", *arguments]
    cwd = folder if "--test" in arguments else ROOT
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    return json.loads(path.read_text()), done


PROGRESS = "for k in range(3):\n    print(f'\\r{k} of 2', end='', flush=True)\nprint()"


def test_execute_stores_outputs_and_says_how_far_it_is(tmp_path):
    (tmp_path / "litrev").mkdir()
    (tmp_path / "litrev" / "__init__.py").write_text("name = 'of this checkout'")
    preset = "import os; print(os.environ['LITREV_PRESET'], os.environ['LITREV_ROOT'] == os.path.dirname(os.getcwd()))"
    notebook = notebook_of(PROGRESS, "import litrev\nlitrev.name", preset)
    stored, done = execute(tmp_path, notebook, "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    progress, name, chosen = [cell["outputs"] for cell in stored["cells"][1:]]
    assert progress == [{"name": "stdout", "output_type": "stream", "text": ["2 of 2\n"]}]
    assert name[0]["data"] == {"text/plain": ["'of this checkout'"]}
    assert chosen[0]["text"] == ["smoke True\n"]
    assert stored["metadata"]["litrev"] == {"fingerprint": notebooks.fingerprint(notebook), "preset": "smoke"}
    assert "[2/3] import litrev" in done.stdout and "1 of 2" in done.stdout
    assert [path.name for path in (tmp_path / "notebooks").iterdir()] == ["00_try.ipynb"]


def test_a_cell_that_fails_is_shown_and_nothing_is_stored(tmp_path):
    notebook = notebook_of("1", "1 / 0", "3")
    stored, done = execute(tmp_path, notebook)
    assert done.returncode == 1 and "[3/3]" not in done.stdout
    assert "1 / 0" in done.stderr and "ZeroDivisionError" in done.stderr
    assert all(cell.get("outputs", []) == [] for cell in stored["cells"])


def test_ctrl_c_reaches_the_cell(tmp_path):
    wait = "import os\nimport signal\ntry:\n    os.kill({pid}, signal.SIGINT)\n    signal.pause()\n"
    wait += "except KeyboardInterrupt:\n    print('kept what there was')\n    raise"
    _, done = execute(tmp_path, notebook_of(wait.format(pid="os.getppid()")))
    assert done.returncode == 1 and "kept what there was" in done.stdout
    assert "notebooks/00_try.ipynb was interrupted; the file is as it was." in done.stderr


def test_a_notebook_that_changes_meanwhile_is_left_alone(tmp_path):
    edit = "text = open('00_try.ipynb').read()\nopen('00_try.ipynb', 'w').write(text.replace('before', 'after'))"
    stored, done = execute(tmp_path, notebook_of("'before'", edit))
    assert done.returncode == 1 and "was changed while it ran" in done.stderr
    assert stored["cells"][1]["source"] == ["'after'"] and stored["cells"][1]["outputs"] == []


def test_a_test_run_stores_nothing_and_names_the_slowest_cells(tmp_path):
    stored, done = execute(tmp_path, notebook_of("import time\ntime.sleep(1)", "2"), "--test")
    assert done.returncode == 0, done.stderr
    assert stored["cells"][1]["outputs"] == [] and stored["cells"][1]["execution_count"] is None
    slowest = done.stdout.split("The slowest cells:")[1]
    assert slowest.index("[1] import time") < slowest.index("[2] 2")
