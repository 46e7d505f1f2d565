"""Repository rules: uv, and environments that uv makes from a lock file.

uv_tool            @NAME//:uv and @NAME//:python, a CPython without packages
python_environment @NAME//:python with the packages of a lock, and requirement() in @NAME//:requirements.bzl
"""

_TWO_HOURS = 7200  # gigabytes over a slow line

_REQUIREMENTS_BZL = '''"""Made from {lock}: the packages that can be asked for."""

_PINNED = {names}

def requirement(name):
    normal = name.lower().replace("_", "-").replace(".", "-")
    if normal not in _PINNED:
        fail("'%s' is not in {lock}: add it to {wanted} and run: tools/bazel run requirements.update" % name)
    return Label("//:" + normal)
'''

_BUILD = """package(default_visibility = ["//visibility:public"])

exports_files(["python"])

[filegroup(name = name, srcs = ["python"]) for name in {names}]
"""

# Packages in the reader's home must not reach the pinned Python; their settings are forgotten by what starts it.
_PYTHON = """#!/bin/sh
# Of lock {lock}: tests, of which this file is an input, run again when it changes.
export PYTHONNOUSERSITE=1
[ -x "{venv}/bin/python" ] || {{
  echo "The Python that this environment was made with is gone: tools/bazel clean --expunge, then run the same command again." >&2
  exit 1
}}
exec "{venv}/bin/python" "$@"
"""

# `!pip install` in a notebook would else find another Python's pip and change that one.
_PIP = """#!/bin/sh
echo "Packages come from the lock: write yours into requirements.in, run tools/bazel run requirements.update, list it in" \\
  "tools/jupyter/BUILD and start JupyterLab again." >&2
exit 1
"""

def _run(rctx, command, sentence):
    """Runs a command with its progress on the terminal; a failure stops the build with what it said and a sentence."""
    result = rctx.execute(command, timeout = _TWO_HOURS, quiet = False)
    if result.return_code != 0:
        rctx.delete("venv")
        fail("\n%s\n%s" % (result.stderr.strip(), sentence))

def _uv_tool_impl(rctx):
    for label in rctx.attr._beside:
        rctx.path(label)  # a change of these makes it anew
    script, pins = rctx.path(rctx.attr._script), rctx.path(rctx.attr._pins)
    _run(rctx, ["sh", script, pins], "Bazel has no uv or no Python to make the project's environment with (see above).")
    rctx.file("BUILD", 'exports_files(["uv", "python"])\n')

uv_tool = repository_rule(
    implementation = _uv_tool_impl,
    attrs = {
        "_beside": attr.label_list(default = [
            "//tools/python:forget_settings.sh",
            "//tools/python:platform.sh",
            "//tools/python:sources.py",
        ]),
        "_pins": attr.label(default = "//tools/python:uv_requirements.txt"),
        "_script": attr.label(default = "//tools/python:get_uv.sh"),
    },
)

def _pinned_names(lock):
    """The names at the left of '==', each once; hashes are indented, comments start with #."""
    lines = [line for line in lock.split("\n") if "==" in line and line[0] not in " #-"]
    return sorted({line.split("==")[0].split("[")[0].strip(): None for line in lines})

def _python_environment_impl(rctx):
    uv, python, lock = rctx.path(rctx.attr._uv), rctx.path(rctx.attr._python), rctx.path(rctx.attr.lock)
    names = _pinned_names(rctx.read(lock))
    rctx.report_progress("installing %d packages" % len(names))
    sentence = "The packages of %s could not be installed (see above); nothing was kept. " % lock.basename
    sentence += "Mend the cause (network, disk space, a changed hash) and run the same command again."
    _run(rctx, [uv, "venv", "--python", python, "venv"], sentence)
    sync = [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", "--python", "venv/bin/python"]
    _run(rctx, sync + [lock], sentence)

    for name in ("venv/bin/pip", "venv/bin/pip3"):
        if not rctx.path(name).exists:
            rctx.file(name, _PIP)
    rctx.file("python", _PYTHON.format(venv = rctx.path("venv"), lock = hash(rctx.read(lock))))
    wanted = lock.basename.replace("_lock.txt", ".in")
    rctx.file("requirements.bzl", _REQUIREMENTS_BZL.format(names = names, lock = lock.basename, wanted = wanted))
    rctx.file("BUILD", _BUILD.format(names = names))

python_environment = repository_rule(
    implementation = _python_environment_impl,
    attrs = {
        "lock": attr.label(mandatory = True),
        "_python": attr.label(default = "@litrev_uv//:python"),
        "_uv": attr.label(default = "@litrev_uv//:uv"),
    },
)
