"""The workflows for GitHub's machines: as their schema wants it, pinned, and of the README's own commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
SCHEMA = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]


def steps(file):
    return [step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]]


def test_the_schema_of_github_is_kept_and_can_be_broken(tmp_path):
    assert FILES
    done = subprocess.run([*SCHEMA, *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(FILES[0].read_text().replace("runs-on:", "run-on:"))
    assert subprocess.run([*SCHEMA, broken], capture_output=True).returncode == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_and_may_only_read(file):
    used = [step["uses"] for step in steps(file) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)
    assert yaml.safe_load(file.read_text())["permissions"] == {"contents": "read"}


def test_only_the_job_that_publishes_may_write_and_only_pages():
    jobs = {name: job for file in FILES for name, job in yaml.safe_load(file.read_text())["jobs"].items()}
    allowed = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert allowed == {"deploy": {"pages": "write", "id-token": "write"}}
    assert not [step for step in jobs["deploy"]["steps"] if "run" in step]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_it_runs_is_sh(file):
    for step in steps(file):
        script = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
        assert subprocess.run(["sh", "-n", "-c", script], capture_output=True).stderr == b""


def test_the_commands_of_the_readme_run_on_the_machines_that_are_supported():
    (file,) = (file for file in FILES if file.stem == "tests")
    (job,) = yaml.safe_load(file.read_text())["jobs"].values()
    runners = job["strategy"]["matrix"]["runner"]
    assert all(re.fullmatch(r"macos-(1[4-9]|[2-9]\d)|ubuntu-\d\d\.\d\d(-arm)?", runner) for runner in runners)
    assert any(runner.startswith("macos") for runner in runners) and "ubuntu-24.04" in runners
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    readme = (ROOT / "README.md").read_text()
    assert "tools/bazel run jupyterlab" in readme and "tools/bazel test //..." in readme
    assert "tools/bazel run jupyterlab -- --version" in commands
    assert re.search(r"tools/bazel test .*//\.\.\.$", commands, re.MULTILINE) and 'pip" install -e .' in commands
    kept = [step["with"]["path"] for step in job["steps"] if "actions/cache" in step.get("uses", "")]
    assert "~/.cache/uv" in kept[0]


def test_what_is_published_is_what_the_readme_serves():
    (file,) = (file for file in FILES if file.stem == "pages")
    assert "tools/bazel run survey" in (ROOT / "README.md").read_text()
    assert "tools/bazel build //survey:site" in "".join(step.get("run", "") for step in steps(file))


def test_the_citation_is_as_its_schema_wants_it():
    check = [*SCHEMA[:-1], "vendor.citation-file-format", ROOT / "CITATION.cff"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
