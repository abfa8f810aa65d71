# shellcheck shell=bash
# Sourced by examples/quickstart.sh and tests/run.sh: packages, protobuf's source, configuring and building.
# REQUIRES: bash, `set -u`, and the working directory at the top of the repository.

PROTOBUF_VERSION=3.21.12
SECONDS=0
# Unset in some containers; the shell knows it from the user database.
[ -n "${HOME:-}" ] || HOME=~
export HOME

# say TEXT: one line of progress with the time since the start.
say() { printf '[%3d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

# packages_of GROUP...: their names, one a line.
packages_of() {
  local group
  for group in "$@"; do
    sed -n "s/^$group //p" cmake/debian-packages.txt
  done
}

# missing_packages GROUP...: those that dpkg does not have, one a line.
missing_packages() {
  local package
  for package in $(packages_of "$@"); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

is_debian_12() {
  [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ])
}

# need_debian GROUP...: on another system, prints what would be needed and ends the script with code 2.
need_debian() {
  is_debian_12 && return
  local name
  name=$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-}")
  cat >&2 <<TEXT
This script installs packages on Debian 12 only; this is ${name:-another system}.
Install what these Debian packages hold, then run it again with --no-install:
$(packages_of "$@" | paste -sd' ' | fold -s -w 100 | sed 's/^/  /')
TEXT
  exit 2
}

# as_root COMMAND...: runs it as it is for root, with sudo otherwise.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# install_packages GROUP...: asks apt only for what is missing. Ends the script with code 2 where that cannot be done.
install_packages() {
  local missing log
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} = 0 ]; then
    say "all packages are there"
    return
  fi
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    echo "these packages are missing: ${missing[*]}. Install them as root, or run this script as root." >&2
    exit 2
  fi
  say "installing ${#missing[@]} packages: ${missing[*]}"
  log=$(mktemp)
  if ! { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y \
    --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    echo "apt-get could not install what is missing (its last lines stand above). Mend that, or install the packages" \
      "yourself and use --no-install." >&2
    exit 2
  fi
  rm -f "$log"
}

# warn_missing_packages GROUP...: for --no-install: says what may be missed, and goes on.
warn_missing_packages() {
  is_debian_12 || return 0
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} = 0 ] || say "warning: not installed: ${missing[*]}"
}

# source_lists FOLDER: writes there the machine's own package sources as sources of source packages. Options and
# keys (Signed-By) stay as they are, so the same mirror and the same trust are used.
source_lists() {
  local file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] && sed -E 's/^Types:.*/Types: deb-src/' "$file" >"$1/${file##*/}"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -r "$file" ] && sed -nE 's/^[[:space:]]*deb([[:space:]])/deb-src\1/p' "$file" >"$1/main-${file##*/}"
  done
  return 0
}

# fetch_protobuf: puts the source of protobuf where cmake/Dependencies.cmake looks for it. Without it the build still
# works, with Debian's shared protobuf; then libbasin.so does not bear TensorFlow in the same process.
fetch_protobuf() {
  local cache=$HOME/.cache/basin work
  [ -d "$cache/protobuf-$PROTOBUF_VERSION" ] && return
  say "fetching the source of protobuf $PROTOBUF_VERSION (once, into $cache)"
  mkdir -p "$cache" && work=$(mktemp -d "$cache/fetch.XXXXXX") || return 0
  mkdir -p "$work/parts" "$work/lists/partial" "$work/cache/archives/partial"
  source_lists "$work/parts"
  local options=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/parts"
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
  # The update may complain about a source that has no source packages; whether protobuf came is what counts.
  if (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" source --only-source protobuf) \
    >"$work/log" 2>&1 </dev/null && [ -f "$work/protobuf-$PROTOBUF_VERSION/src/google/protobuf/message_lite.h" ]; then
    # A second run at the same time may have been faster: then its folder stays.
    mv -T "$work/protobuf-$PROTOBUF_VERSION" "$cache/protobuf-$PROTOBUF_VERSION" 2>/dev/null || true
  else
    say "warning: the source of protobuf did not come ($(tail -n 1 "$work/log")); libbasin.so will use Debian's shared one"
  fi
  rm -rf "$work"
}

# configure PRESET [CMAKE-OPTION...]: into build/PRESET, with ccache where there is one.
configure() {
  local preset=$1 options=()
  shift
  if command -v ccache >/dev/null; then
    # Another clone of the same sources compiles to the same objects.
    export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
    options=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  fi
  local log
  log=$(mktemp)
  if cmake --preset "$preset" "${options[@]}" "$@" >"$log" 2>&1; then
    grep -h '^-- Basin:' "$log" || true
    rm -f "$log"
  else
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
}

# configure_and_build PRESET JOBS [CMAKE-OPTION...] -- TARGET...: builds as much as can be built, and fails if a part
# could not.
configure_and_build() {
  local preset=$1 jobs=$2 options=()
  shift 2
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  say "configuring build/$preset"
  configure "$preset" "${options[@]}" || return 1
  say "building $* in build/$preset with $jobs jobs"
  cmake --build "build/$preset" -j "$jobs" --target "$@" -- -k 0 || return 1
  say "built"
}
