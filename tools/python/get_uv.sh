#!/bin/sh
# Leaves two commands in the current folder: uv (0.8 or newer) and python (a CPython that the pinned packages support).
# Usage: sh get_uv.sh REQUIREMENTS, the file that pins uv and its hashes; forget_settings.sh, platform.sh and sources.py
# lie beside it.
set -u
pins=$1
here=$(dirname "$pins")

say() { echo "litrev: $*" >&2; }

sh "$here/platform.sh" || exit 1
. "$here/forget_settings.sh"
export PYTHONNOUSERSITE=1

recent_uv() { # the uv on PATH, if it is 0.8 or newer
  version=$(UV_NO_CONFIG=1 uv --version 2>/dev/null | sed -n 's/^uv \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  # shellcheck disable=SC2086
  set -- $version
  [ $# -eq 2 ] && { [ "$1" -gt 0 ] || [ "$2" -ge 8 ]; } && command -v uv
}

pip() { # pip of the Python $1, which reads none of its files: only where packages come from is taken over from them
  (
    eval "$("$1" "$here/sources.py" pip)"
    export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1
    "$1" -m pip install -q --require-hashes -r "$pins" ${2:+--target "$2"} >&2
  )
}

pip_install() { # a Debian python3 may have pip without venv, or the other way round
  for python in python3 /usr/bin/python3 python; do
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip --version >/dev/null 2>&1 || continue
    say "installing uv with $python"
    "$python" -m venv bootstrap >&2 && pip bootstrap/bin/python && return 0
    rm -rf bootstrap
    pip "$python" bootstrap && return 0
    rm -rf bootstrap
  done
  return 1
}

if found=$(recent_uv); then
  ln -s "$found" uv.real
elif pip_install; then
  ln -s bootstrap/bin/uv uv.real
else
  say "uv could not be installed (see above). Check the network; install uv (https://docs.astral.sh/uv) or Python 3.8 or" \
    "newer with pip (Debian: apt-get install python3-venv; macOS: xcode-select --install), then run the same command again."
  exit 1
fi

# uv looks on PATH, in pyenv's and its own folders, and downloads a CPython as the last resort. An environment of the
# reader's is not looked into, and a Python of another processor (Rosetta's, a 32-bit one) or without the global lock
# has no wheels.
wanted='>=3.11,<3.15'
fits='import platform, sys, sysconfig
sys.exit(sys.implementation.name != "cpython" or sys.maxsize < 2**32 or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
         or sys.platform == "darwin" and platform.machine() != "arm64")'
find_python() {
  python=$(UV_NO_CONFIG=1 ./uv.real python find --system "$@" "$wanted" 2>/dev/null) && "$python" -c "$fits" 2>/dev/null
}
if ! find_python; then
  ./uv.real python install 3.13 >&2 || UV_NO_CONFIG=1 ./uv.real python install 3.13 >&2
  if ! find_python --managed-python; then
    say "no CPython $wanted for this processor was found and none could be downloaded." \
      "Install Python 3.13 (macOS: brew install python@3.13; Debian: apt-get install python3), then run the same command again."
    exit 1
  fi
fi
ln -s "$python" python

# What calls uv gets one that heeds nothing but where packages come from.
"$python" "$here/sources.py" uv uv.toml
cp "$here/forget_settings.sh" .
quoted=$(printf %s "$PWD" | sed "s/'/'\\\\''/g")
cat >uv <<END
#!/bin/sh
. '$quoted/forget_settings.sh'
export UV_CONFIG_FILE='$quoted/uv.toml'
exec '$quoted/uv.real' "\$@"
END
chmod +x uv
say "using $(./uv --version) and $("$python" --version) ($python)"
