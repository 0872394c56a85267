#!/bin/sh
# Build a Kubernetes control plane, JobSet and Kueue from their Go modules.
# usage: build.sh FOLDER      builds into FOLDER, which must not exist
#        build.sh --version   prints a name for the versions that would be built
set -eu
cd "$(dirname "$0")"
kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes v//p' go.mod)
jobset=0.11.0
kueue=0.14.0

if [ "$1" = --version ]; then
  echo "kubernetes-$kubernetes-jobset-$jobset-kueue-$kueue"
  exit
fi

command -v go > /dev/null || { echo "build.sh: Go is missing; install golang." >&2; exit 1; }
started=$(date +%s)
partial=$1.partial
rm -rf "$partial"
mkdir -p "$partial"
export CGO_ENABLED=0

for name in kube-apiserver kube-controller-manager kube-scheduler; do
  go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes" \
    -o "$partial/$name" "./cmd/$name"
done
go build -ldflags "-s -w" -o "$partial/etcd" go.etcd.io/etcd/server/v3

# build_operator NAME VERSION PACKAGE: builds an operator in its own module, by that module's go.sum.
# Beside the binary lies what an administrator installs: kinds, webhooks and rights.
build_operator() {
  folder=$(go mod download -json "sigs.k8s.io/$1@v$2" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  (cd "$folder" && go build -mod=mod -ldflags "-s -w" -o "$partial/$1" "$3")
  cp -R "$folder/config" "$partial/$1-config"
}
build_operator jobset $jobset .
build_operator kueue $kueue ./cmd/kueue
chmod -R u+w "$partial"
mv "$partial" "$1"
echo "built in $(($(date +%s) - started)) s: $1"
