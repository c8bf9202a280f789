#!/bin/sh
# Usage: tools/venv.sh control|dev
# Finds a Python that can make the virtual environment and hands over to venv.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# A name on PATH may be a launcher for a version that is not there: only running it tells.
usable='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
found=
try() {
    if "$1" -c "$usable" >/dev/null 2>&1; then
        exec "$1" "$here/venv.py" "$group"
    fi
    found="$found
    $1: $("$1" --version 2>&1 | head -n 1) $("$1" -c "$usable" 2>&1 | tail -n 1)"
}

group=${1:?control or dev}
if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
else
    # What the environment was made with before comes first, or two ways to call make would take turns in rebuilding it.
    made_with=$(sed -n 's/^executable = //p' "$here/../.venv/pyvenv.cfg" 2>/dev/null || true)
    if [ -x "$made_with" ]; then try "$made_with"; fi
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1; then try "$name"; fi
    done
    if command -v pyenv >/dev/null 2>&1; then
        for path in "$(pyenv root)"/versions/3.1[123].*/bin/python3; do
            if [ -x "$path" ]; then try "$path"; fi
        done
    fi
fi
cat >&2 <<END
error: no Python for the virtual environment
  wanted: Python 3.11, 3.12 or 3.13 with its venv and ensurepip modules
  found:${found:- none of python3, python3.13, python3.12, python3.11 on PATH}
  remedy: install one (Debian and Ubuntu: apt-get install python3 python3-venv; openEuler and RHEL: dnf install
          python3.11), or name one: make venv PYTHON=/path/to/python3.12
END
exit 1
