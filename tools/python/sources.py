"""Where the reader's pip and uv get packages from, as told by their own files; nothing else of these is heeded.

`python sources.py pip` prints variables for pip (sh code); `python sources.py uv FILE` writes a uv.toml, in which pip's
index stands if uv's own files name none. Any Python from 3.8 on runs the first, from 3.11 on the second.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PIP = ["index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy"]
PIP += ["keyring-provider", "use-feature", "timeout", "default-timeout", "retries", "cache-dir"]
UV = ["index", "index-url", "extra-index-url", "find-links", "no-index", "index-strategy", "keyring-provider"]
UV += [
    "native-tls",
    "system-certs",
    "allow-insecure-host",
    "offline",
    "cache-dir",
    "http-proxy",
    "https-proxy",
    "no-proxy",
]


def pip_settings() -> dict:
    """{'index-url': ..., ...} of pip's files and variables; what stands for `pip install` comes before the rest."""
    command = [sys.executable, "-m", "pip", "-vvv", "config", "list"]  # -v: a file may ask for silence
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([a-z-]+)=(.+)$", told, re.MULTILINE):
            if name in PIP:
                found[name] = ast.literal_eval(value)
    return found


def uv_settings() -> dict:
    """The settings in UV of the file that UV_CONFIG_FILE names, else of the reader's uv.toml and the machine's."""
    import tomllib

    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files = ["/etc/uv/uv.toml", f"{home}/uv/uv.toml"]
    if chosen := os.environ.get("UV_CONFIG_FILE"):
        files = [chosen]
    found = {}
    for file in filter(os.path.isfile, files):
        try:
            told = tomllib.loads(Path(file).read_text("utf-8"))
        except (OSError, ValueError) as error:
            print(f"litrev: {file} is left out, for it cannot be read ({error}).", file=sys.stderr)
            continue
        for table in (told, told.get("pip", {})):
            found.update({name: value for name, value in table.items() if name in UV})
    return found


def toml(value) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def main(tool: str, *arguments: str) -> None:
    if tool == "pip":
        for name, value in pip_settings().items():
            print(f"export PIP_{name.upper().replace('-', '_')}={shlex.quote(value)}")
        return
    settings = uv_settings()
    mirror = pip_settings().get("index-url")
    if mirror and not {"index", "index-url"} & set(settings):
        settings["index-url"] = mirror
    os.umask(0o077)  # an address may hold a password
    Path(arguments[0]).write_text("".join(f"{name} = {toml(value)}\n" for name, value in settings.items()), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
