#!/usr/bin/env bash
# Installs the client libraries that the interop tests drive, into the target directory.
# Each part is skipped when its stamp, a hash of its sources, is up to date.
# A missing language is reported and passed over, unless CI=true or POLYMQ_INTEROP_REQUIRED=1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target/interop"
out=$(cd "$target/interop" && pwd)
failed=0

sources_hash() {
    (cd "$here/$1" && find . -type f ! -path '*/__pycache__/*' -print0 | sort -z |
        xargs -0 sha256sum; cat "$here/setup.sh") | sha256sum | cut -d' ' -f1
}

setup_python() {
    # Scripts run from the source folder, so only the requirements count.
    rm -rf "$out/venv"
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --require-hashes -r "$here/python/requirements.txt"
}

setup_node() {
    mkdir -p "$out/node"
    cp "$here"/node/*.js "$here"/node/package.json "$here"/node/package-lock.json "$out/node/"
    (cd "$out/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
}

setup_go() {
    mkdir -p "$out/go"
    (cd "$here/go" && go build -mod=readonly -o "$out/go/" ./cmd/...)
}

# Those of another version would stand beside the new ones.
fetch_jars() {
    rm -rf "$2"
    mvn -q -B -Dstyle.color=never -f "$1" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$2"
}

setup_java() {
    mkdir -p "$out/java/classes"
    fetch_jars "$here/java/pom.xml" "$out/java/lib"
    fetch_jars "$here/java/perf-test/pom.xml" "$out/java/perf-test"
    javac --release 17 -cp "$out/java/lib/*" -d "$out/java/classes" "$here"/java/*.java
}

# A program of its own, not a part of the workspace; without optimisation, because it is called
# and not measured.
setup_rust() {
    (cd "$here" && CARGO_TARGET_DIR="$out/rust/build" CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install --quiet --debug --locked --no-default-features --root "$out/rust" \
        --version "=$(<"$here/rust/rabbitmqadmin.version")" rabbitmqadmin)
    rm -rf "$out/rust/build"
}

prepare() {
    local name=$1 tool=$2 stamp want
    stamp=$out/$name.stamp
    if [[ $name == python ]]; then
        want=$(sha256sum "$here/python/requirements.txt" "$here/setup.sh" | sha256sum | cut -d' ' -f1)
    else
        want=$(sources_hash "$name")
    fi
    if [[ -f $stamp && $(<"$stamp") == "$want" ]]; then
        return 0
    fi
    if ! command -v "$tool" >/dev/null; then
        echo "interop: $name clients are missing, because there is no $tool" >&2
        failed=1
        return 0
    fi
    echo "interop: preparing the $name clients"
    rm -f "$stamp"
    if ("setup_$name"); then
        echo "$want" >"$stamp"
    else
        echo "interop: the $name clients could not be prepared" >&2
        failed=1
    fi
}

prepare python python3
prepare node npm
prepare go go
prepare java mvn
prepare rust cargo

if [[ $failed == 1 && (${CI:-} == true || ${POLYMQ_INTEROP_REQUIRED:-} == 1) ]]; then
    exit 1
fi
