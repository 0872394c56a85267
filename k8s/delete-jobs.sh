#!/bin/sh
# Delete the Jobs of an overlay, with their pods. Volumes, buckets and everything else stay.
# usage: k8s/delete-jobs.sh OVERLAY
set -eu
kubectl=${KUBECTL:-kubectl}
namespace=humerus-$1

# A JobSet would make its Jobs again. Clusters without the operator don't know the kind.
kinds=cronjobs,jobs
if "$kubectl" get crd jobsets.jobset.x-k8s.io > /dev/null 2>&1; then kinds=jobsets,$kinds; fi
"$kubectl" --namespace="$namespace" delete "$kinds" --all
