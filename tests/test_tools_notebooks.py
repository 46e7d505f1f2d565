"""Running and storing notebooks: what is stored, what is refused, what is found wrong."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import ScriptExporter
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
    cell = notebooks.code_cells(notebook)[0]
    cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    cell.metadata["jupyter"] = {"outputs_hidden": True}
    notebook.metadata["language_info"]["version"] = "3.11.7"
    notebooks.tidy(notebook, "smoke")
    assert cell.metadata == {}
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": notebooks.LANGUAGE,
        "litrev": {"fingerprint": notebooks.fingerprint(notebook), "preset": "smoke"},
    }


def test_tidy_keeps_what_an_author_chose_and_folds_part_two_and_settings_alone():
    notebook = executed("1", "2")
    title, first, second = notebook.cells
    first.metadata |= {"tags": ["guess"], "jupyter": {"source_hidden": True, "outputs_hidden": True}}
    title.metadata[notebooks.COLLAPSED] = True  # an author had folded it to work elsewhere
    part_two = new_markdown_cell("# Part II \u00b7 The laboratory\nWhat follows ...")  # and had unfolded this
    notebook.cells.insert(2, part_two)
    second.metadata["tags"] = ["settings"]
    notebooks.tidy(notebook, "laptop")
    assert first.metadata == {"tags": ["guess"], "jupyter": {"source_hidden": True}}
    assert second.metadata == {"tags": ["settings"], "jupyter": {"source_hidden": True}}
    assert title.metadata == {}
    assert part_two.metadata == {"jp-MarkdownHeadingCollapsed": True}


def test_nbconvert_makes_a_python_file():
    notebook = executed("%%time\na = 1")
    script, about = ScriptExporter().from_notebook_node(notebook)
    assert about["output_extension"] == ".py" and "a = 1" in script
    notebook.metadata["language_info"] = {"name": "python"}
    assert ScriptExporter().from_notebook_node(notebook)[1]["output_extension"] != ".py"
    assert notebooks.output_problems(notebook) == ["its metadata do not say that nbconvert makes a .py of it"]


def stream(name, text):
    return lambda cell: cell.outputs.append(new_output("stream", name=name, text=text))


FAULTS = {
    "not those of the code": lambda cell: cell.update(source="2"),
    "not run from first to last": lambda cell: cell.update(execution_count=7),
    "a traceback: ValueError": lambda cell: cell.outputs.append(new_output("error", ename="ValueError", evalue="")),
    "a warning: UserWarning": stream("stderr", "UserWarning: old"),
    "/home/someone/litrev/data": stream("stdout", "kept in /home/someone/litrev/data"),
    "shows table, which is not shipped": stream("stdout", "table: measured now in 3 s on a CPU."),
    "shows digits, which is not shipped": stream(
        "stdout", "0.5\ndigits: loaded, not trained again (this machine's cache)"
    ),
    "shows old, which is not shipped": stream("stdout", "old: shipped, but litrev.x.y changed since: measuring again."),
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


UNPRINTABLE = "print('a \\u2192 b'); import sys; print('\\u2200', file=sys.stderr)"


def test_what_a_terminal_cannot_print_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    stored, done = execute(tmp_path, notebook_of("'\u2192'", UNPRINTABLE, "1 + 1"))
    assert done.returncode == 0, done.stderr
    assert stored["cells"][2]["outputs"][0]["text"] == ["a \u2192 b\n"]
    assert stored["cells"][3]["outputs"][0]["data"] == {"text/plain": ["2"]}
    assert "a \\u2192 b" in done.stdout and "\\u2200" in done.stdout


VOUCHED = "import os\nos.environ.get('LITREV_VOUCH')"


@pytest.mark.parametrize(("words", "seen"), [([], ""), (["--vouch", "a", "b"], "a b")])
def test_the_kernel_hears_what_is_vouched_for(tmp_path, monkeypatch, words, seen):
    monkeypatch.setenv("LITREV_VOUCH", "left over from another run")
    stored, done = execute(tmp_path, notebook_of(VOUCHED), *words)
    assert done.returncode == 0, done.stderr
    assert stored["cells"][1]["outputs"][0]["data"] == {"text/plain": [repr(seen)]}


def exercise_of(answer):
    """A notebook whose reader writes `add`, with a folded answer, and a last cell that sees what is left of it."""
    notebook = notebook_of(
        "def add(a, b): ...", "print('Right.' if add(1, 2) == 3 else 'Not yet.')", "print(add(1, 2))"
    )
    notebook.cells[1].metadata["tags"], notebook.cells[2].metadata["tags"] = ["yours"], ["check"]
    folded = f"<details>\n\n```python\ndef add(a, b):\n    return {answer}\n```\n</details>"
    notebook.cells.insert(3, new_markdown_cell(folded))
    return notebook


def test_a_test_run_tries_the_folded_answers(tmp_path):
    _, done = execute(tmp_path, exercise_of("a + b"), "--test")
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line in ("Right.", "Not yet.", "None", "3")]
    assert printed == ["Not yet.", "Right.", "None"]  # the cells below see what the reader has written


def test_a_folded_answer_that_its_check_denies_is_found(tmp_path):
    _, done = execute(tmp_path, exercise_of("a - b"), "--test")
    assert done.returncode == 1 and "prints no line that begins with 'Right'" in done.stderr
    assert "return a - b" in done.stderr and "has a cell that failed" in done.stderr


GOOD = """
import torch
from lab.training import fit
from litrev.device import device, randn

def loss(net, batch, generator):
    return (net(batch[0]) - randn((4, 1), generator, batch[0].device)).square().mean()

run = fit(lambda: torch.nn.Linear(2, 1), loss, (torch.ones(8, 2),), name="line", steps=2, batch=4)
assert next(run.net.parameters()).device == device()
print("on", device())
"""


def rehearse(folder, *sources):
    """A test run on the pretended Apple GPU; what was said on stdout and stderr, and the exit status."""
    path = folder / "99_wrong.ipynb"
    nbformat.write(notebook_of(*sources), path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LITREV_RUNS": str(folder / "runs"), "LITREV_DEVICE": "cpu"}
    command = [sys.executable, "-m", "tools.jupyter.execute", str(path), "--test", "--rehearsal"]
    command.append(str(ROOT / "tests" / "mps_rehearsal.py"))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout, done.stderr, done.returncode


def test_what_an_apple_gpu_alone_would_refuse_is_told_from_other_failures(tmp_path):
    left = "print([n for n in globals() if n in ('sys', 'mps_rehearsal', 'install')])"  # by the rehearsal: nothing
    out, error, status = rehearse(tmp_path, left, GOOD, "fine = 1\nrun.net.double()", "print('too far')")
    gpu, cpu = out.split("Once more, on the CPU:")
    assert status == 1 and "[]" in gpu and "line: training" in gpu and "on mps" in gpu and "too far" not in gpu
    assert "fine = 1\nrun.net.double()" in error and "MPS has no torch.float64" in error
    assert "on cpu" in cpu and "too far" in cpu and "On the CPU 99_wrong.ipynb runs through" in error


def test_what_fails_everywhere_is_no_matter_of_the_apple_gpu(tmp_path):
    _, error, status = rehearse(tmp_path, "1 / 0")
    assert status == 1 and error.count("An error occurred while executing") == 2 and "runs through" not in error
    assert "has a cell that failed" in error
