#!/bin/sh
# Build the root file system of the image `score` from the Dockerfile, without a registry.
# usage: tests/image/build.sh FOLDER     (as root, with debootstrap and buildah)
# Debian's Python 3.11 stands in for the base image, and an empty folder for Beam's program.
set -eu
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$1.work
rm -rf "$1" "$work"
mkdir -p "$work/beam/opt/apache/beam" "$work/uv"

builder() {
  buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"
}

# commit FOLDER NAME: make an image of a folder's files.
commit() {
  container=$(builder from scratch)
  builder add --quiet "$container" "$1" / > /dev/null
  builder config --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  builder commit --quiet --rm "$container" "$2" > /dev/null
}

packages=python3-minimal,python3-venv,python3-pip,ca-certificates
debootstrap --variant=minbase --include=$packages bookworm "$work/debian" > "$work/debootstrap.log"
ln -sf python3 "$work/debian/usr/bin/python"
commit "$work/debian" localhost/python:3.11
commit "$work/beam" localhost/beam:latest

# Packages come through the machine's own proxy and certificates, if it has any.
echo "native-tls = true" > "$work/uv/uv.toml"
[ -e /etc/pip.conf ] && pip_settings="--volume=/etc/pip.conf:/etc/pip.conf:ro" || pip_settings=
# shellcheck disable=SC2086
builder build --isolation chroot --pull-never --layers=false --target score --tag localhost/score \
  --build-arg PYTHON_IMAGE=localhost/python:3.11 --build-arg BEAM_IMAGE=localhost/beam:latest \
  --volume=/etc/ssl/certs:/etc/ssl/certs:ro --volume="$work/uv:/etc/uv:ro" $pip_settings \
  "$repository"

container=$(builder from --pull-never localhost/score)
cp -a "$(builder mount "$container")" "$1"
rm -rf "$work"
