#!/bin/sh
# Write k8s/mine/OVERLAY: an overlay of k8s/overlays with your site, and with more components.
# usage: k8s/overlay.sh OVERLAY [COMPONENT...]
set -eu
cd "$(dirname "$0")"

# The order in which components are listed, because some change what others have made.
order="spot storage-gcs-fuse storage-pvc storage-pvc-shared jobset kueue nightly"

refuse() {
  echo "k8s/overlay.sh: $1" >&2
  exit 2
}

overlays=$(ls overlays)
[ $# -gt 0 ] || refuse "no overlay is named; expected one of: $(echo $overlays)."
overlay=$1
shift
# The folder of this name is deleted and written again, so only known names are taken.
[ -d "overlays/$overlay" ] && echo "$overlays" | grep -Fxq -e "$overlay" ||
  refuse "'$overlay' is no overlay; expected one of: $(echo $overlays)."

storage=
# Several components may stand in one argument, separated by spaces or commas.
set -- $(echo "$*" | tr , ' ')
for component in "$@"; do
  case " $order " in
    *" $component "*) ;;
    *) refuse "'$component' is not offered; expected some of: $order." ;;
  esac
  reason=$(awk -v c="$component" -v o="$overlay" \
    '$1 == c && "," $2 "," ~ "," o "," { sub(/^[^ ]+ [^ ]+ /, ""); print }' refused)
  [ -z "$reason" ] || refuse "$component doesn't go with $overlay: $reason."
  case $component in
    storage-*)
      [ "${storage:-$component}" = "$component" ] ||
        refuse "$storage and $component exclude each other: name one of them."
      storage=$component
      ;;
  esac
done

rm -rf "mine/$overlay"
mkdir -p mine
cp -R "overlays/$overlay" "mine/$overlay"
file=mine/$overlay/kustomization.yaml
{
  echo "# Made by k8s/overlay.sh, which overwrites it. Put your changes in another folder of k8s/mine."
  if [ -d mine/site ]; then sed 's|\.\./\.\./site$|../site|' "overlays/$overlay/kustomization.yaml"
  else cat "overlays/$overlay/kustomization.yaml"; fi
  for component in $order; do
    case " $* " in *" $component "*) echo "  - ../../components/$component" ;; esac
  done
} > "$file"
if [ ! -d mine/site ] && grep -q '/site$' "$file"; then
  echo "k8s/overlay.sh: bucket and images are placeholders: run \`make k8s-site\`, then this again." >&2
fi
