"""python_program and python_test: a command of a pinned Python, run in the folder of runfiles (`python -m pytest tests/test_x.py`).

Bazel's own py_* and sh_* rules are not used: they need downloads from Bazel 4 on and are gone in Bazel 9.
"""

_LAUNCHER = """#!/bin/sh
cd "${{TEST_SRCDIR:-$0.runfiles}}/{workspace}" || exit 1
. ./{forget}
python="$PWD/{python}" root="$PWD"
{live}
# Whatever the terminal's encoding is, what cannot be shown is no reason to stop.
export PYTHONPATH="$root" LITREV_ROOT="$root" PYTHONUTF8=1 PYTHONIOENCODING=utf-8:backslashreplace
{exports}
exec "$python" {command} "$@"
"""

_LIVE = """
root=${BUILD_WORKSPACE_DIRECTORY:?Start this with Bazel, which says where the checkout is: tools/bazel run NAME}
cd "${BUILD_WORKING_DIRECTORY:-$root}" || exit 1
"""

def _launcher_impl(ctx):
    launcher = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(launcher, is_executable = True, content = _LAUNCHER.format(
        workspace = ctx.workspace_name,
        forget = ctx.file._forget.short_path,
        python = ctx.file.python.short_path,
        live = _LIVE if ctx.attr.live else "",
        command = " ".join(["'%s'" % ctx.expand_location(word, ctx.attr.data) for word in ctx.attr.command]),
        exports = "\n".join(['export %s="%s"' % item for item in sorted(ctx.attr.exports.items())]),
    ))
    runfiles = ctx.runfiles([ctx.file.python, ctx.file._forget] + ctx.files.data)
    return [DefaultInfo(executable = launcher, runfiles = runfiles)]

_ATTRS = {
    "command": attr.string_list(doc = "what follows `python`; $(rootpath LABEL) is a file of data", mandatory = True),
    "data": attr.label_list(doc = "files the command reads", allow_files = True),
    "exports": attr.string_dict(doc = "environment variables; $X is expanded when the command starts"),
    "live": attr.bool(doc = "run on the checkout itself, where the command was typed, instead of in the runfiles"),
    "python": attr.label(doc = "the Python to use", allow_single_file = True, mandatory = True),
    "_forget": attr.label(default = "//tools/python:forget_settings.sh", allow_single_file = True),
}

python_program = rule(_launcher_impl, attrs = _ATTRS, executable = True)
python_test = rule(_launcher_impl, attrs = _ATTRS, test = True)

# A test has no home, no screen, and as many cores as its neighbours leave it.
TEST_EXPORTS = {
    "HOME": "$TEST_TMPDIR",
    "LITREV_RUNS": "$TEST_TMPDIR/runs",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "$TEST_TMPDIR",
    "OMP_NUM_THREADS": "1",
}

def pytest_test(name, files, data = [], python = "@litrev_test_env//:python", **kwargs):
    """Files of tests/ under one pytest, in an environment that only tests have."""
    python_test(
        name = name,
        command = ["-m", "pytest", "-q", "--color=yes", "-p", "no:cacheprovider"] + ["tests/" + file for file in files],
        data = data + files,
        exports = TEST_EXPORTS,
        python = python,
        **kwargs
    )
