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
export CGO_ENABLED=0 GOBIN="$partial"

for name in kube-apiserver kube-controller-manager kube-scheduler; do
  go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes" \
    -o "$partial/$name" "./cmd/$name"
done
go build -ldflags "-s -w" -o "$partial/etcd" go.etcd.io/etcd/server/v3
go install -ldflags "-s -w" "sigs.k8s.io/jobset@v$jobset"
go install -ldflags "-s -w" "sigs.k8s.io/kueue/cmd/kueue@v$kueue"

# What an administrator installs beside the operators: kinds, webhooks and rights.
for module in "jobset@v$jobset" "kueue@v$kueue"; do
  folder=$(go mod download -json "sigs.k8s.io/$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  cp -R "$folder/config" "$partial/${module%@*}-config"
done
chmod -R u+w "$partial"
mv "$partial" "$1"
echo "built in $(($(date +%s) - started)) s: $1"
