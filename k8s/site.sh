#!/bin/sh
# Write k8s/mine/site: k8s/site with your values. They come from the environment:
#   BUCKET   name of the bucket, without gs://
#   IMAGE    where the images are, as REGION-docker.pkg.dev/PROJECT/REPOSITORY
#   PROJECT, REGION   read from IMAGE unless they are given
#   RUN      name of the run, by default `first`
set -eu
cd "$(dirname "$0")"

# check NAME VALUE PATTERN EXPECTED: a value of several lines fits no pattern.
check() {
  line=$(printf %s "$2" | tr '\n' ' ')
  printf %s "$line" | LC_ALL=C grep -Eqx "$3" || {
    printf '%s\n' "k8s/site.sh: $1='$line' can't be used; expected $4." >&2
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
check IMAGE "${IMAGE:-}" '[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+' "a registry and a repository, \
such as us-central1-docker.pkg.dev/my-project/humerus, without a tag"
check PROJECT "${PROJECT:-}" '[a-z][a-z0-9-]{4,28}[a-z0-9]' "the ID of a Google Cloud project; give PROJECT=my-project"
check REGION "${REGION:-}" '[a-z]+-[a-z]+[0-9]+' "a region; give one, such as REGION=us-central1"
# Dataflow's names of jobs, which hold it, have at most 63 characters.
check RUN "${RUN:=first}" '[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?' \
  "at most 40 small letters, digits and dashes"

# In two steps, because a value may contain another one's placeholder: no value has angle brackets.
mkdir -p mine/site
sed -e "s|my-region-docker.pkg.dev/my-project/humerus|<IMAGE>|" -e "s|my-bucket|<BUCKET>|" \
  -e "s|my-project|<PROJECT>|" -e "s|my-region|<REGION>|" -e "s|RUN=first|RUN=<RUN>|" \
  -e "s|<IMAGE>|$IMAGE|" -e "s|<BUCKET>|$BUCKET|" -e "s|<PROJECT>|$PROJECT|" \
  -e "s|<REGION>|$REGION|" -e "s|<RUN>|$RUN|" \
  -e "/^# Places/,/^# values/d" \
  site/kustomization.yaml > mine/site/kustomization.yaml
