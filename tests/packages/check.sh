#!/usr/bin/env bash
# Tests packages before they are installed anywhere: check.sh FOLDER, which holds one .deb and one .tar.gz. Looks at what
# the .deb says of itself, unpacks each into an empty folder, and uses it from there.
set -euo pipefail
folder=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
die() { printf 'check.sh: %s\n' "$*" >&2 && exit 1; }
one() { # pattern
  local files
  mapfile -t files < <(compgen -G "$folder/$1")
  [[ ${#files[@]} -eq 1 ]] || die "there must be one $1 in $folder, there are ${#files[@]}"
  printf '%s\n' "${files[0]}"
}
deb=$(one '*.deb')
archive=$(one '*.tar.gz')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

header=$here/../../include/lamella/core/version.h
version=$(sed -nE 's/^#define LAMELLA_VERSION "(.*)"$/\1/p' "$header")
field() { dpkg-deb --field "$deb" "$1"; }
[[ $(field Package) == lamella ]] || die "the package is named $(field Package)"
[[ $(field Version) == "$version" ]] || die "the version is $(field Version), but $header says $version"
depends=", $(field Depends),"
for package in libspdlog-dev libhwy-dev libjpeg-dev libpng-dev zlib1g-dev libc6 'libstdc++6'; do
  [[ $depends =~ ", ${package}"( |,) ]] || die "it must depend on $package; it depends on $(field Depends)"
done
# Nothing outside of /usr, nobody's own files, no path of the machine that built it in what others read.
dpkg-deb --contents "$deb" >"$work/contents"
if grep -vE ' root/root .* \./(usr/.*)?$' "$work/contents"; then die "these do not belong into the package"; fi

mkdir "$work/deb" "$work/archive"
dpkg-deb --extract "$deb" "$work/deb"
tar -xzf "$archive" -C "$work/archive" --strip-components 1
for prefix in "$work/deb/usr" "$work/archive"; do
  for file in lib/liblamella.a lib/cmake/lamella/lamellaConfig.cmake lib/pkgconfig/lamella.pc include/lamella/lamella.h \
    bin/lamella-mobilenet share/lamella/recipes/digits.json share/doc/lamella/copyright; do
    [[ -f $prefix/$file ]] || die "there is no $file in ${prefix#"$work/"}"
  done
  if grep -rlF "$(realpath "$here/../..")" "$prefix"/lib/cmake "$prefix"/lib/pkgconfig "$prefix"/include; then
    die "these name the folder that they were built in"
  fi
  "$here/use.sh" "$prefix"
done
echo "the packages of Lamella $version are good"
