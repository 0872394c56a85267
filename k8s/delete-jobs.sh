#!/bin/sh
# Delete the Jobs of an overlay, and wait until their pods are gone. Volumes, buckets and everything
# else stay.
# usage: k8s/delete-jobs.sh OVERLAY
set -eu
kubectl=${KUBECTL:-kubectl}
overlay=${1:-}
namespace=humerus-$overlay

refuse() {
  echo "k8s/delete-jobs.sh: $1" >&2
  exit 2
}

case $overlay in
  "" | -* | *[!a-z0-9-]*) refuse "'$overlay' can't be an overlay; expected a name such as gpu-1." ;;
esac
found=$("$kubectl" get namespace "$namespace" --ignore-not-found --output=name)
if [ -z "$found" ]; then
  applied=$("$kubectl" get namespaces --selector=app.kubernetes.io/part-of=humerus --output=name |
    sed 's|^namespace/humerus-||' | xargs)
  refuse "the cluster has no namespace $namespace; overlays that are applied: ${applied:-none}."
fi

# A JobSet would make its Jobs again. Clusters without the operator don't know the kind.
jobsets=$("$kubectl" api-resources --api-group=jobset.x-k8s.io --output=name)
kinds=${jobsets:+jobsets,}cronjobs,jobs
"$kubectl" --namespace="$namespace" delete "$kinds" --all --cascade=foreground
