#!/bin/sh
# Leaves two links in the current folder: uv (0.8 or newer) and python (a CPython that the pinned packages support).
# Usage: sh get_uv.sh REQUIREMENTS, the file that pins uv and its hashes.
set -u
pins=$1

say() { echo "litrev: $*" >&2; }

recent_uv() { # the uv on PATH, if it is 0.8 or newer
  version=$(uv --version 2>/dev/null | sed -n 's/^uv \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  # shellcheck disable=SC2086
  set -- $version
  [ $# -eq 2 ] && { [ "$1" -gt 0 ] || [ "$2" -ge 8 ]; } && command -v uv
}

pip_install() { # a Debian python3 may have pip without venv, or the other way round
  for python in python3 /usr/bin/python3 python; do
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip --version >/dev/null 2>&1 || continue
    say "installing uv with $python"
    "$python" -m venv bootstrap >&2 && bootstrap/bin/python -m pip install -q --require-hashes -r "$pins" >&2 && return 0
    rm -rf bootstrap
    "$python" -m pip install -q --require-hashes --target bootstrap -r "$pins" >&2 && return 0
    rm -rf bootstrap
  done
  return 1
}

if found=$(recent_uv); then
  ln -s "$found" uv
elif pip_install; then
  ln -s bootstrap/bin/uv uv
else
  say "uv could not be installed. Check the network; install uv (https://docs.astral.sh/uv) or Python with pip" \
    "(Debian: apt-get install python3-venv; macOS: xcode-select --install), then run the same command again."
  exit 1
fi

# uv looks on PATH, in pyenv's and its own folders, and downloads a CPython as the last resort.
wanted='>=3.11,<3.15'
./uv python find "$wanted" >/dev/null 2>&1 || ./uv python install 3.13 >&2
if ! python=$(./uv python find "$wanted" 2>/dev/null); then
  say "no CPython $wanted was found and none could be downloaded." \
    "Install Python 3.13 (macOS: brew install python@3.13; Debian: apt-get install python3), then run the same command again."
  exit 1
fi
ln -s "$python" python
say "using $(./uv --version) and $("$python" --version) ($python)"
