#!/usr/bin/env bash
# make release-check: what a release would hold, and whether it works for somebody who has nothing else.
set -euo pipefail
folder=build/release
rm -rf "$folder"
mkdir -p "$folder"

echo "== building the wheel and the sdist"
"$BIN/python" -m build --outdir "$folder/dist" . >"$folder/build.log" 2>&1 || { tail -n 40 "$folder/build.log"; exit 1; }
"$BIN/twine" check --strict "$folder"/dist/*
"$BIN/towncrier" build --draft --version next >"$folder/notes.md"

version=$("$BIN/tieline" version)
for what in "$folder"/dist/*.tar.gz "$folder"/dist/*.whl; do
    echo "== installing ${what##*/} into an environment of its own"
    fresh=$(realpath "$folder")/environment
    rm -rf "$fresh"
    "$PYTHON" -m venv "$fresh"
    "$fresh/bin/python" -m pip install --quiet --disable-pip-version-check "$what[lab]"
    found=$(cd / && "$fresh/bin/tieline" version)
    [ "$found" = "$version" ] || { echo "${what##*/} says that it is version $found, not $version"; exit 1; }
done

echo "== the lab, from the wheel, in an empty folder"
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
(cd "$empty" && "$fresh/bin/tieline" lab --duration 10)
echo "== version $version can be released"
