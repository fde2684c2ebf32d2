#!/bin/sh
# Creates the virtual environment $VENV with a Python that TensorFlow 2.15.1 has a build for, and installs a requirements file.
set -eu
VENV=${VENV:-.venv}

usable() { "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; }

# Without pip the folder was left half-made, by an interrupted set-up or a Python that lacks ensurepip.
if [ ! -x "$VENV/bin/python" ] || { usable "$VENV/bin/python" && ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then
    found=
    for python in "${PYTHON:-python3}" python3.11 python3.10 python3.9; do
        if usable "$python"; then found=$python; break; fi
    done
    if [ -z "$found" ]; then
        version=$("${PYTHON:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
        echo "error: TensorFlow 2.15.1 needs Python 3.9 to 3.11, and this machine has $version; run \`uv venv --python 3.11 --seed $VENV\` and make again" >&2
        exit 2
    fi
    "$found" -m venv --clear "$VENV" || {
        echo "error: $found cannot make a virtual environment; install its venv package (Debian: python3-venv) and make again" >&2
        exit 2
    }
fi
if ! usable "$VENV/bin/python"; then
    echo "error: $VENV was made with a Python that TensorFlow 2.15.1 has no build for; remove it, run \`uv venv --python 3.11 --seed $VENV\` and make again" >&2
    exit 2
fi
echo "installing $1 into $VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
