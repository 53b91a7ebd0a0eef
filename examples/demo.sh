#!/bin/sh
# The README's demo: example 01 in a scratch copy, so that it can be run again and again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/hybridrag-demo.XXXXXX")
chmod 711 "$scratch" # as root, the server runs under another account, and its data shall stay in here
cp -r "$here/01-json-to-postgres/." "$scratch"
rm -rf "$scratch/state"
cd "$scratch"

finish() {
    hybridrag backend stop pg --quiet >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() {
    printf '\n$ hybridrag'
    for word in "$@"; do
        case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    hybridrag "$@"
}

say plan --out move.plan
say apply move.plan
say apply --auto-approve
say status
say verify archive
printf '\n$ hybridrag query archive "Who restores manuscripts at Café Réunion?" --context-only | head -n 12\n'
hybridrag query archive "Who restores manuscripts at Café Réunion?" --context-only | cut -c 1-150 | head -n 12
printf '\nThe JSON files are untouched; LightRAG now works on Postgres. This was a scratch copy: run it again any time.\n'
