#!/usr/bin/env bash
# Installs what is missing, builds, runs every test by label, and says how long each label took.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# In this order: what is quick and pure first. tsan is the unit and sim tests of what starts threads, under the thread sanitizer.
LABELS=(unit sim lint cluster install python gpu tsan)

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--no-install] [--all] [--label L]... [--preset P] [--jobs N]

Installs the Debian 12 packages that are missing (as root, or with sudo), builds the release preset, runs its tests
label by label, then those of the unit and sim tests where threads are started once more under the thread sanitizer.
What that and the fuzz targets need is built beside the tests, at the lowest priority. Everything is run before it fails.

  --all          also what takes longer: tests labelled slow or tensorflow, the fuzz targets, and libbasin.so beside TensorFlow
  --label L      only this label (may be repeated): unit sim lint cluster install python gpu tsan tensorflow
                 fuzz tidy
  --preset P     build and run with this preset (dev, asan, tsan, clang) instead, without the pass under tsan
  --jobs N       compilers, and unit and sim tests, at a time (default: one per core); others at most two at a time
  --no-install   install and fetch nothing; tests that would have to are skipped
  --help         print this

Exit code: 0 all passed, 1 something failed (it is named at the end), 2 wrong use or missing packages.
TEXT
}

wrong_use() { echo "run.sh: $* (see --help)" >&2; exit 2; }

install=1 all=0 preset=release jobs=$(nproc) wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=0 ;;
    --all) all=1 ;;
    --label | --preset | --jobs)
      [ $# -ge 2 ] || wrong_use "$1 needs a value"
      case $1 in
        --label) [[ " ${LABELS[*]} tensorflow fuzz tidy " == *" $2 "* ]] || wrong_use "unknown label '$2'"; wanted+=("$2") ;;
        --preset) preset=$2 ;;
        --jobs) [[ $2 =~ ^[1-9][0-9]*$ ]] || wrong_use "--jobs $2: not a number above 0"; jobs=$2 ;;
      esac
      shift ;;
    --help | -h) usage; exit 0 ;;
    *) wrong_use "unknown argument '$1'" ;;
  esac
  shift
done

# shellcheck source=cmake/prepare.sh
. cmake/prepare.sh

if [ ${#wanted[@]} = 0 ]; then
  wanted=("${LABELS[@]}")
  [ $all = 1 ] && wanted+=(tensorflow fuzz)
  [ "$preset" = release ] || mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | grep -v '^tsan$')
fi
wants() { [[ " ${wanted[*]} " == *" $1 "* ]]; }

groups=(build data test)
wants fuzz && groups+=(fuzz)
if [ $install = 1 ]; then
  need_debian "${groups[@]}"
  install_packages "${groups[@]}"
  fetch_protobuf
else
  warn_missing_packages "${groups[@]}"
  export BASIN_TEST_NO_INSTALL=1
fi
[ $all = 1 ] && export BASIN_TEST_TENSORFLOW=1

logs=$(mktemp -d)
declare -A beside  # by preset: the process group that builds it beside the tests
trap 'for group in "${beside[@]}"; do kill -- "-$group" 2>/dev/null; done; rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0
table=() failures=()

# built NAME STATUS SECONDS: one line of the table; a failure is named and does not stop the rest.
built() {
  if [ "$2" != 0 ]; then
    failures+=("$1")
    failed=$((failed + 1))
    say "$1 FAILED; going on with what there is"
  fi
  table+=("$(printf '%-16s %6d s' "$1" "$3")")
}

# start_build PRESET TARGET: beside what follows, at the lowest priority: most tests wait much of the time, and leave the
# cores to it.
start_build() {
  set -m
  {
    renice -n 19 "$BASHPID" >/dev/null
    local start=$SECONDS status=0
    configure_and_build "$1" "$jobs" -- "$2" || status=$?
    echo $((SECONDS - start)) >"$logs/seconds-$1"
    exit $status
  } >"$logs/build-$1" 2>&1 </dev/null &
  beside[$1]=$!
  set +m
}

# finish_build PRESET: shows what it has printed and still prints, until it has ended.
finish_build() {
  local status=0
  tail -n +1 -f --pid="${beside[$1]}" "$logs/build-$1"
  wait "${beside[$1]}" || status=$?
  built "build $1" $status "$(cat "$logs/seconds-$1")"
  unset "beside[$1]"
}

# run_tests NAME FOLDER JOBS CTEST-OPTION...: counts what ctest says at its end, and adds one line to the table.
run_tests() {
  local name=$1 folder=$2 parallel=$3 start=$SECONDS log="$logs/$1"
  shift 3
  say "running the tests: $name"
  # An optional wrapper is for the tests alone; ctest passes it on to what it starts.
  "${wrapper[@]}" ctest --test-dir "$folder" -j "$parallel" --output-on-failure --no-tests=ignore "$@" </dev/null 2>&1 |
    tee "$log"
  local status=${PIPESTATUS[0]} total bad omitted
  total=$(sed -nE 's/.* tests failed out of ([0-9]+)$/\1/p' "$log" | tail -n 1)
  bad=$(sed -nE 's/.*, ([0-9]+) tests failed out of [0-9]+$/\1/p' "$log" | tail -n 1)
  omitted=$(grep -cE '\*\*\*Skipped|\*\*\*Not Run \(Disabled\)' "$log")
  total=${total:-0} bad=${bad:-0}
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
    bad=1 total=$((total + 1))
    failures+=("$name: ctest ended with code $status")
  fi
  while read -r test; do
    failures+=("$name: $test")
  done < <(sed -n '/The following tests FAILED:/,$ s/^[[:space:]]*[0-9]* - //p' "$log")
  passed=$((passed + total - bad - omitted)) failed=$((failed + bad)) skipped=$((skipped + omitted))
  table+=("$(printf '%-16s %6d s   %4d tests, %d failed, %d skipped' "$name" $((SECONDS - start)) "$total" "$bad" "$omitted")")
}
wrapper=()

# The main build and its labels.
labels_of_main=()
for label in "${wanted[@]}"; do
  [[ $label == tsan || $label == fuzz ]] || labels_of_main+=("$label")
done
if [ ${#labels_of_main[@]} -gt 0 ]; then
  options=(-DBASIN_TESTS=ON)
  if [ "$preset" = release ]; then
    # One architecture: the others take as long again. (The quickstart may have left the benchmarks out of this folder.)
    options+=(-DCMAKE_CUDA_ARCHITECTURES=90-real -DBASIN_BENCH=ON)
  fi
  wants tidy && options+=(-DBASIN_TIDY=ON)
  targets=(all)
  case " ${labels_of_main[*]} " in
    " lint ") targets=(basin_tests_lint) ;;
    " unit " | " sim ") targets=("basin_tests_${labels_of_main[0]}") ;;
  esac
  start=$SECONDS
  configure_and_build "$preset" "$jobs" "${options[@]}" -- "${targets[@]}"
  built "build $preset" $? $((SECONDS - start))
fi

wants tsan && start_build tsan basin_tests_threads
wants fuzz && start_build fuzz basin_tests_fuzz

if [ ${#labels_of_main[@]} -gt 0 ]; then
  slow=(-LE '^slow$')
  [ $all = 1 ] && slow=()
  for label in "${labels_of_main[@]}"; do
    case $label in
      unit | sim) parallel=$jobs ;;
      gpu) parallel=1 ;;  # they share a device, and some take its memory to the end
      *) parallel=$((jobs < 2 ? jobs : 2)) ;;  # these start many processes of their own, and wait for them much of the time
    esac
    run_tests "$label" "build/$preset" "$parallel" -L "^$label\$" "${slow[@]}"
  done
fi

# The thread sanitizer of gcc 12 needs an address space without too much randomness; newer kernels use more of it.
choose_tsan_wrapper() {
  printf 'int main() { return 0; }\n' >"$logs/trivial.cc"
  g++ -fsanitize=thread "$logs/trivial.cc" -o "$logs/trivial" || return 1
  local try
  for try in 1 2 3 4 5 6 7 8; do
    if ! "$logs/trivial" >/dev/null 2>&1; then
      wrapper=(setarch "$(uname -m)" -R)
      say "the thread sanitizer needs setarch -R on this kernel (try $try)"
      "${wrapper[@]}" "$logs/trivial"
      return
    fi
  done
}
if wants tsan; then
  # The suppressions file is found from the test's folder too, so its path is absolute.
  export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp:second_deadlock_stack=1:history_size=4"
  if choose_tsan_wrapper; then
    finish_build tsan
    run_tests tsan build/tsan "$jobs" -L '^(unit|sim)$' -LE '^(slow|single_threaded)$'
  else
    failures+=("tsan: a trivial program does not run under the thread sanitizer here, with setarch -R neither")
    failed=$((failed + 1))
  fi
  unset TSAN_OPTIONS
  wrapper=()
fi

if wants fuzz; then
  finish_build fuzz
  run_tests fuzz build/fuzz "$jobs" -L '^fuzz$'
fi

echo
say "done"
printf '%s\n' "${table[@]}"
for failure in "${failures[@]}"; do
  echo "FAILED  $failure"
done
ran=$((passed + failed))
if [ $ran = 0 ]; then
  echo "no test ran" >&2
  exit 1
fi
# The whole run as ctest would say it, since each label had a ctest of its own.
echo "$((100 * passed / ran))% tests passed, $failed tests failed out of $ran"
echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
