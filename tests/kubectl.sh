#!/bin/bash
# Plain kubectl as a person uses it, on the embedded cluster of a podherald that runs: KUBECONFIG names the cluster, KUBECTL
# the program. tests/demo.sh runs this. What takes longer than some seconds has failed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
: "${KUBECTL:?names the program}" "${KUBECONFIG:?names the cluster}"

dir=$(mktemp -d "${TMPDIR:-/tmp}/podherald-kubectl.XXXXXX")
watching=
stop() {
  if [ -n "$watching" ]; then
    kill "$watching" 2>/dev/null || true
    wait "$watching" 2>/dev/null || true
  fi
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

k() { timeout 20 "$KUBECTL" "$@"; }

# expect PATTERN [FILE] : what was said last, or the file, has such a line
expect() { grep -qE -- "$1" "${2:-$dir/said}" || die "kubectl ${last[*]}: no line like '$1' in: $(cat "${2:-$dir/said}")"; }

# says PATTERN ARGUMENTS... : kubectl succeeds and prints such a line
says() {
  local pattern=$1
  shift
  last=("$@")
  k "$@" > "$dir/said" 2>&1 || die "kubectl $* failed: $(cat "$dir/said")"
  expect "$pattern"
}

# refuses PATTERN ARGUMENTS... : kubectl fails and says why
refuses() {
  local pattern=$1
  shift
  last=("$@")
  ! k "$@" > "$dir/said" 2>&1 || die "kubectl $* should have failed, but said: $(cat "$dir/said")"
  expect "$pattern"
}

# shows PATTERN : the watch does, within some seconds
shows() {
  local deadline=$((SECONDS + 10))
  until grep -qE -- "$1" "$dir/watched"; do
    [ "$SECONDS" -lt "$deadline" ] || die "get -w did not show '$1': $(cat "$dir/watched")"
    sleep 0.1
  done
}

# It does not end when it is asked to.
pod=executor-stubborn
cat > "$dir/pod.json" <<Y
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$pod", "labels": {"execution-id": "stubborn"}},
 "spec": {"restartPolicy": "Never", "containers": [{"name": "executor", "image": "busybox",
   "command": ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.2; done"]}]}}
Y

timeout 60 "$KUBECTL" get pods -w --output-watch-events -l execution-id=stubborn > "$dir/watched" &
watching=$!
says "pod/$pod created" create -f "$dir/pod.json"
says "condition met" wait --for=condition=Ready "pod/$pod" --timeout=15s
shows "^(ADDED|MODIFIED) +$pod +1/1 +Running " # it may have begun after the pod

says "^NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE" get pods -o wide
expect "^$pod +1/1 +Running +0 .* embedded "
says "^  uid: [0-9a-f-]{36}$" get pod "$pod" -o yaml
expect "^  phase: Running$"
uid=$(k get pod "$pod" -o 'jsonpath={.metadata.uid}')

cat > "$dir/event.json" <<Y
{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "$pod.noticed"}, "type": "Warning", "reason": "Noticed", "message": "it has been seen",
 "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "$pod", "uid": "$uid"}, "count": 1}
Y
says "created" create -f "$dir/event.json"
says "Warning +Noticed +pod/$pod +it has been seen" get events
says "it has been seen" events --for "pod/$pod"
says "^Status: +Running$" describe pod "$pod"
expect "^Node: +embedded/"
expect "^ +State: +Running$"
expect "Warning +Noticed .* it has been seen$"

says "labeled" label pod "$pod" color=red
says "$pod" get pods -l color=red -o name
says "annotated" annotate pod "$pod" note=x
says "^red$" get pod "$pod" -o 'jsonpath={.metadata.labels.color}{"\n"}'

# What the embedded cluster does not do it says, with what it does.
has_not="accepted media types include: application/json-patch\+json, application/merge-patch\+json; .* no strategic merge patch, no apply"
refuses "$has_not" patch pod "$pod" -p '{"metadata": {"labels": {"x": "1"}}}'
refuses "$has_not" set image "pod/$pod" executor=other
refuses "$has_not" apply --server-side -f "$dir/pod.json"
refuses "$has_not" apply -f "$dir/pod.json"
says "patched" patch pod "$pod" --type=merge -p '{"metadata": {"labels": {"x": "1"}}}'
refuses "has no dry run" delete pod "$pod" --dry-run=server

sed "s/\"$pod\"/\"executor-slip\"/; s/\"command\"/\"comand\"/" "$dir/pod.json" > "$dir/slip.json"
refuses 'unknown field "spec.containers\[0\].comand"' create -f "$dir/slip.json"
says '^Warning: unknown field "spec.containers\[0\].comand"$' create --validate=warn -f "$dir/slip.json"
says "deleted" delete pod executor-slip --now
refuses 'the server doesn.t have a resource type "nopes"' get nopes
refuses 'pods "none" not found' get pod none
refuses 'namespaces "none" not found' -n none create -f "$dir/slip.json" --validate=false

# Its grace is waited for, and not longer.
began=$(date +%s%N)
says "deleted" delete pod "$pod" --grace-period=2
took=$((($(date +%s%N) - began) / 1000000))
if [ "$took" -lt 1900 ] || [ "$took" -gt 10000 ]; then die "a deletion with 2 s of grace took $took ms"; fi
shows "^MODIFIED +$pod +1/1 +Terminating "
shows "^DELETED +$pod "
says "deleted" delete event "$pod.noticed"
echo "kubectl: as it should be"
