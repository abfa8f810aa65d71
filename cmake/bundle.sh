#!/usr/bin/env bash
# bundle.sh CONTENT VERSION FOLDER ARCHIVE: lays out what CONTENT lists ("folder: path" a line) in FOLDER, adds the shared
# libraries that it needs, and packs FOLDER (as its last name) into ARCHIVE. The same files give the same bytes.
set -euo pipefail
export LC_ALL=C
umask 022
unset LD_LIBRARY_PATH LD_PRELOAD

BYTES_MAX=$((60 * 1024 * 1024))
# What belongs to glibc comes from the machine: it must fit the machine's loader and its name services.
GLIBC='^(ld-linux-.*|lib(anl|BrokenLocale|c|c_malloc_debug|dl|m|memusage|mvec|nsl|nss_.*|pcprofile|pthread|resolv|rt|thread_db|util))\.so(\.[0-9]+)?$'
# What comes with the driver or with CUDA is loaded at run time where it is there; nothing may need it to start.
CUDA='^lib(cu|nv|npp)[A-Za-z_-]*\.so'

fail() { echo "bundle.sh: $*" >&2; exit 1; }
[ $# = 4 ] || fail "usage: bundle.sh CONTENT VERSION FOLDER ARCHIVE"
content=$1 version=$2 folder=$3 archive=$4
for tool in patchelf zstd objdump ldd; do
  command -v "$tool" >/dev/null || fail "$tool is missing; on Debian 12: apt-get install patchelf zstd binutils"
done

is_elf() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(head -c 4 "$1" | tr -d '\0')" = $'\177ELF' ]; }

# elf_files FOLDER: the programs and libraries below it, one a line.
elf_files() {
  local file
  find "$1" -type f | sort | while read -r file; do ! is_elf "$file" || echo "$file"; done
}

# needed_libraries: "name path" of each library that $needed tells of, which has its address too, another one in each program.
needed_libraries() { sed -nE 's/^\s*(\S+) => (\S+) \(0x.*/\1 \2/p' "$needed" | sort -u; }

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"

# 1. What is listed; of the programs and libraries also where their libraries lie.
needed=$(mktemp)
trap 'rm -f "$needed"' EXIT
while IFS= read -r line; do
  [ -n "$line" ] || continue
  place=$folder/${line%%: *} path=${line#*: }
  [ -e "$path" ] || fail "$path is listed in $content, but it is not there"
  mkdir -p "$place"
  cp -RP "$path" "$place/"
  ! is_elf "$path" || ldd "$path" >>"$needed"
done <"$content"
find "$folder" \( -name __pycache__ -o -name '*.pyc' \) -prune -exec rm -rf {} +

# 2. The libraries: copied under the name that they are asked for.
if grep 'not found' "$needed" >&2; then
  fail "these libraries are not on this machine (above)"
fi
needed_libraries | while read -r name path; do
  [[ ! $name =~ $GLIBC ]] || continue
  [[ ! $name =~ $CUDA ]] || fail "a program needs $name to start; load it at run time instead (dlopen), if it is there"
  [ -e "$folder/lib/$name" ] || cp -L "$path" "$folder/lib/$name"
done

# 3. Everything finds its libraries beside itself, also when the libraries need each other: RUNPATH is not inherited.
elf_files "$folder" | while read -r file; do
  chmod u+w "$file"
  patchelf --set-rpath '$ORIGIN/../lib' "$file"
done

# 4. The licences of the libraries, as their packages bring them.
if command -v dpkg-query >/dev/null; then
  needed_libraries | while read -r name path; do
    [ -e "$folder/lib/$name" ] || continue
    # /lib is a link to /usr/lib; the package may know the file by either name.
    real=$(realpath "$path")
    package=$(dpkg-query -S "$real" "${real#/usr}" 2>/dev/null | head -n 1 | cut -d: -f1) || true
    [ -n "$package" ] && [ -f "/usr/share/doc/$package/copyright" ] || continue
    mkdir -p "$folder/licenses"
    cp -L "/usr/share/doc/$package/copyright" "$folder/licenses/$package.txt"
  done
fi
chmod -R u=rwX,go=rX "$folder"

# 5. BUNDLE: what a launcher must know before it sends this anywhere. The digest is over one line a file, sorted by path:
# "f MODE SHA256 PATH" or "l TARGET PATH".
glibc=$(elf_files "$folder" | xargs -d '\n' objdump -p | sed -nE 's/.* GLIBC_ABI_DT_RELR$/2.36/p; s/.* GLIBC_([0-9.]+)$/\1/p' |
  sort -uV | tail -n 1)
digest=$(cd "$folder" && find . \( -type f -o -type l \) ! -path ./BUNDLE -printf '%y %P\n' | sort -k 2 | while read -r kind path; do
  if [ "$kind" = l ]; then
    echo "l $(readlink "$path") $path"
  else
    echo "f $(stat -c %a "$path") $(sha256sum <"$path" | cut -d' ' -f1) $path"
  fi
done | sha256sum | cut -d' ' -f1)
printf '{"version": "%s", "digest": "%s", "machine": "%s", "glibc": "%s"}\n' "$version" "$digest" "$(uname -m)" "$glibc" \
  >"$folder/BUNDLE"

# 6. Packed so that nothing of this machine shows: order, times, owners, modes. A number of threads that is fixed: it
# decides where zstd cuts its input.
tar -C "$(dirname "$folder")" --sort=name --mtime=@0 --owner=root:0 --group=root:0 --format=gnu -cf - "$(basename "$folder")" |
  zstd -q -19 --long=24 -T2 -f -o "$archive.part"
bytes=$(stat -c %s "$archive.part")
if [ "$bytes" -gt $BYTES_MAX ]; then
  du -k "$folder"/*/* | sort -rn | head -n 5 >&2
  fail "$archive would have $bytes bytes, more than $BYTES_MAX; the largest parts stand above (KiB before compression)"
fi
mv "$archive.part" "$archive"
echo "$archive: $bytes bytes, digest ${digest:0:8}, needs glibc $glibc"
