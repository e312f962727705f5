#!/usr/bin/env bash
# Builds llama-server out of the source package of the very llama-cpp-python that is installed, outside the tree.
#
#   PYTHON=.venv/bin/python benchmarks/speed/build_llama_server.sh [FOLDER]
#
# FOLDER (default: a folder in the user's cache) takes sources and build; the last line printed is the path of the
# binary, for `peers.py --llama-server`. Same llama.cpp, same compiler flags (-march=native) and no GPU, so that row (d)
# differs from the others by the server alone. Needs cmake, a C++ compiler and, once, PyPI (or SDIST=FILE.tar.gz);
# about 10 minutes on two cores. No page, no HTTPS, nothing fetched while building.
set -euo pipefail

python=${PYTHON:-python3}
version=$("$python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/medorchestra/llama-server-$version}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
binary=$folder/build/bin/llama-server

if [[ ! -x $binary ]]; then
    sdist=${SDIST:-}
    if [[ -z $sdist ]]; then
        "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$folder" \
            "llama-cpp-python==$version" >&2
        sdist=$folder/llama_cpp_python-$version.tar.gz
    fi
    tar -xzf "$sdist" -C "$folder"
    source=$folder/llama_cpp_python-$version/vendor/llama.cpp
    if [[ ! -d $source/tools/server ]]; then
        echo "$sdist holds no llama.cpp with tools/server" >&2
        exit 1
    fi
    cmake -S "$source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >&2
    cmake --build "$folder/build" --target llama-server --parallel "$(nproc)" >&2
fi
"$binary" --version >&2
echo "$binary"
