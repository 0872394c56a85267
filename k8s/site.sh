#!/bin/sh
# Write k8s/mine/site: k8s/site with your values. They come from the environment:
#   BUCKET   name of the bucket, without gs://
#   IMAGE    where the images are, as REGION-docker.pkg.dev/PROJECT/REPOSITORY
#   PROJECT, REGION   read from IMAGE unless they are given
#   RUN      name of the run, by default `first`
set -eu
cd "$(dirname "$0")"

# check NAME VALUE PATTERN EXPECTED
check() {
  echo "$2" | grep -Eqx "$3" || {
    echo "k8s/site.sh: $1='$2' can't be used; expected $4." >&2
    exit 2
  }
}

case ${IMAGE:-} in
  *-docker.pkg.dev/*/*)
    : "${REGION:=${IMAGE%%-docker.pkg.dev/*}}"
    rest=${IMAGE#*/}
    : "${PROJECT:=${rest%%/*}}"
    ;;
esac
check BUCKET "${BUCKET:-}" '[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]' \
  "the name of a bucket, without gs://"
check IMAGE "${IMAGE:-}" '[a-zA-Z0-9.:-]+(/[a-z0-9._-]+)+' "a registry and a repository, such as \
us-central1-docker.pkg.dev/my-project/humerus"
check PROJECT "${PROJECT:-}" '[a-z][a-z0-9:.-]+' "the ID of a Google Cloud project"
check REGION "${REGION:-}" '[a-z0-9-]+' "a region, such as us-central1"
check RUN "${RUN:=first}" '[a-z0-9]([a-z0-9-]*[a-z0-9])?' "small letters, digits and dashes"

mkdir -p mine/site
sed -e "s|my-region-docker.pkg.dev/my-project/humerus|$IMAGE|" -e "s|my-bucket|$BUCKET|" \
  -e "s|my-project|$PROJECT|" -e "s|my-region|$REGION|" -e "s|RUN=first|RUN=$RUN|" \
  -e "/^# Places/,/^# values/d" \
  site/kustomization.yaml > mine/site/kustomization.yaml
