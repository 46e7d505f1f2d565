"""jupyterlab(deps) and notebook(name): how notebooks are opened, run and tested."""

load("//tools/python:rules.bzl", "TEST_EXPORTS", "python_program", "python_test")

_PYTHON = "@litrev_env//:python"

def jupyterlab(name, deps):
    """JupyterLab on the source tree. `deps` are the packages that notebooks and litrev may import: requirement("torch"), ..."""
    python_program(
        name = name,
        command = ["-m", "tools.jupyter.lab"],
        data = deps + ["//tools/jupyter:files"],
        python = _PYTHON,
        visibility = ["//visibility:public"],
    )

def notebook(name):
    """For notebooks/NAME.ipynb: :NAME opens it, :NAME.execute runs it and stores its outputs, :NAME_test tries it quickly."""
    path = "%s/%s.ipynb" % (native.package_name(), name)
    python_program(
        name = name,
        command = ["-m", "tools.jupyter.lab", path],
        data = ["//tools/jupyter:files"],
        python = _PYTHON,
    )
    python_program(
        name = name + ".execute",
        command = ["-m", "tools.jupyter.execute", path],
        data = ["//litrev", "//tools/jupyter:files"],
        python = _PYTHON,
    )
    python_test(
        name = name + "_test",
        size = "medium",
        command = ["-m", "tools.jupyter.execute", path, "--test", "--rehearsal", "$(rootpath //tests:mps_rehearsal.py)"],
        data = [name + ".ipynb", "//data", "//lab", "//litrev", "//tests:mps_rehearsal.py", "//tools/jupyter:files"],
        exports = TEST_EXPORTS,
        python = _PYTHON,
    )
