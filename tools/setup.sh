#!/bin/sh
# `sh tools/setup.sh requirements.txt` creates the virtual environment $VENV, with a Python that TensorFlow 2.15.1 has a
# build for, and installs a requirements file.  Where no such Python is in the PATH, uv finds one or fetches it.
set -eu
VENV=${VENV:-.venv}
NEEDS="TensorFlow 2.15.1 needs Python 3.9 to 3.11"

fail() { echo "error: $*" >&2; exit 2; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; }

# The name of the first Python in the PATH that will do.
find_python() {
    for python in python3 python3.11 python3.10 python3.9; do
        if usable "$python"; then echo "$python"; return; fi
    done
}

# Sets $uv to the user's own uv, or to one from PyPI in a folder that is thrown away.
find_uv() {
    uv=uv
    if command -v uv >/dev/null 2>&1; then return; fi
    throw_away=$(mktemp -d)
    trap 'rm -rf "$throw_away"' EXIT
    uv=$throw_away/bin/uv
    { python3 -m venv "$throw_away" && "$throw_away/bin/python" -m pip install uv; } >/dev/null 2>&1
}

make_venv() {
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && ! rmdir "$VENV" 2>/dev/null; then
        fail "$VENV is there and is no virtual environment; move it away, or set VENV to another folder"
    fi
    python=$(find_python)
    if [ -n "$python" ]; then
        "$python" -m venv --clear "$VENV" || \
            fail "$python cannot make a virtual environment; install its venv package (Debian: python3-venv)" \
                "and make again"
        return
    fi
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
    echo "$NEEDS, and this machine has $version: asking uv for 3.11"
    find_uv || fail "$NEEDS, and this machine has $version;" \
        "run \`uv venv --python 3.11 --seed $VENV\` and make again"
    rm -rf "$VENV"
    "$uv" venv --python 3.11 --seed "$VENV" || \
        fail "$NEEDS, this machine has $version, and uv finds and fetches none; install Python 3.11 and make again"
}

# From what pip writes: a line for each package, on a terminal one line that changes.  Fails where pip did.
show_progress() {
    begin='  %s\n' end=
    if [ -t 1 ]; then begin='\r\033[K  %s' end='\r\033[K'; fi
    while read -r first second third rest; do
        case "$first $second $third" in
            *.metadata*) ;;
            Downloading*) package="${second%%-*} $third $rest"; printf "$begin" "$package" ;;
            "Using cached "*) printf "$begin" "${third%%-*} $rest" ;;
            "Progress "*) [ -z "$end" ] || printf "$begin" "$package, $((100 * second / (${rest:-0} + 1))) %" ;;
            "Installing collected "*) printf "$begin" "unpacking" ;;
            "pip is done") printf "$end"; return 0 ;;
        esac
    done
    printf "$end"
    return 1
}

case $(uname -s) in
    Linux | Darwin) ;;
    *) fail "this needs Linux or macOS; on Windows, work in WSL (\`wsl --install\`)" ;;
esac
# Without pip the folder was left half-made, by an interrupted set-up or a Python that lacks ensurepip.
python=$VENV/bin/python
if [ ! -x "$python" ] || { usable "$python" && ! "$python" -m pip --version >/dev/null 2>&1; }; then make_venv; fi
usable "$VENV/bin/python" || \
    fail "$VENV was made with a Python that TensorFlow 2.15.1 has no build for; move it elsewhere and make again"

requirements=$1 takes=
if [ "$1" = requirements.txt ]; then takes=", on Linux or macOS: 2 GB of disk and some minutes"; fi
if [ "$1" = requirements.txt ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
    gpu=$(nvidia-smi -L 2>/dev/null | sed -n 's/^GPU 0: \(.*\) (UUID.*/\1/p')
    if [ -n "$gpu" ]; then
        requirements=requirements-gpu.txt
        takes=": 7 GB of disk and some minutes"
        echo "nvidia-smi finds $gpu: requirements-gpu.txt, with CUDA and cuDNN, takes the place of requirements.txt"
    fi
fi
echo "installing $requirements into $VENV$takes"
pip() { "$VENV/bin/python" -m pip "$@" --disable-pip-version-check; }
pip install --quiet --upgrade pip
{ pip install --progress-bar raw -r "$requirements" && echo "pip is done"; } | show_progress
