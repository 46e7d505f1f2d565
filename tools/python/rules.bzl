"""python_program and python_test: a command of a pinned Python, run in the folder of runfiles (`python -m pytest tests/test_x.py`).

Bazel's own py_* and sh_* rules are not used: they need downloads from Bazel 4 on and are gone in Bazel 9.
"""

_LAUNCHER = """#!/bin/sh
cd "${{TEST_SRCDIR:-$0.runfiles}}/{workspace}" || exit 1
export PYTHONPATH="$PWD" LITREV_ROOT="$PWD"
{exports}
exec "{python}" {command} "$@"
"""

def _launcher_impl(ctx):
    launcher = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(launcher, is_executable = True, content = _LAUNCHER.format(
        workspace = ctx.workspace_name,
        python = ctx.file.python.short_path,
        command = " ".join(["'%s'" % ctx.expand_location(word, ctx.attr.data) for word in ctx.attr.command]),
        exports = "\n".join(['export %s="%s"' % item for item in sorted(ctx.attr.exports.items())]),
    ))
    runfiles = ctx.runfiles([ctx.file.python] + ctx.files.data)
    return [DefaultInfo(executable = launcher, runfiles = runfiles)]

_ATTRS = {
    "command": attr.string_list(doc = "what follows `python`; $(rootpath LABEL) is a file of data", mandatory = True),
    "data": attr.label_list(doc = "files the command reads", allow_files = True),
    "exports": attr.string_dict(doc = "environment variables; $X is expanded when the command starts"),
    "python": attr.label(doc = "the Python to use", allow_single_file = True, mandatory = True),
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

def pytest_test(name, data = [], **kwargs):
    """tests/NAME.py under pytest, in the environment that only tests have."""
    python_test(
        name = name,
        command = ["-m", "pytest", "-q", "--color=yes", "-p", "no:cacheprovider", "tests/%s.py" % name],
        data = data + [name + ".py"],
        exports = TEST_EXPORTS,
        python = "@litrev_test_env//:python",
        **kwargs
    )
