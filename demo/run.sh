#!/bin/sh
# Shows InstaSlice on a cluster without GPUs: publishes two simulated A100s, creates the three
# workloads of demo/instaslice unchanged, and shows the rewritten pods and their devices.
# Needs kubectl with a context of Kubernetes 1.36 or later, and InstaSlice deployed there.
# Deletes what it created.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
NAMESPACE=instaslice-demo-$$
MARK=app.kubernetes.io/part-of=instaslice-demo
KUBECTL=${KUBECTL:-kubectl}

say() { printf '\n# %s\n' "$*"; }
fail() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }
quietly() { "$@" >/dev/null 2>&1; }
# Prints the command as it could be typed, and runs it.
show() { printf '$ kubectl %s\n' "$*"; "$KUBECTL" "$@"; }

# Checks the requirements before anything is created.
check() {
    command -v "$KUBECTL" >/dev/null || fail "there is no kubectl on PATH; set KUBECTL="
    quietly "$KUBECTL" get --raw /readyz || fail "kubectl reaches no cluster"
    quietly "$KUBECTL" get --raw /apis/resource.k8s.io/v1 ||
        fail "the cluster does not serve resource.k8s.io/v1; it takes Kubernetes 1.36 or later"
    quietly "$KUBECTL" get mutatingwebhookconfiguration instaslice ||
        fail "InstaSlice is not deployed; make deploy"
    # Simulated slices must never mix with real ones.
    test -z "$("$KUBECTL" get resourceslices -o jsonpath='{.items[?(@.spec.driver=="gpu.nvidia.com")].metadata.name}')" ||
        fail "NVIDIA's driver publishes GPUs here; follow demo/instaslice/README.md instead"
    quietly "$KUBECTL" get deviceclass mig.nvidia.com &&
        fail "there is a DeviceClass mig.nvidia.com; follow demo/instaslice/README.md instead"
    test -n "$("$KUBECTL" get nodes -o name)" || fail "the cluster has no node"
}

clean_up() {
    say "The demo deletes what it created"
    # No driver prepares a simulated slice, so a kubelet may still be waiting for it.
    "$KUBECTL" -n "$NAMESPACE" delete deployments,statefulsets,pods --all --grace-period=0 --force \
        >/dev/null 2>&1 || true
    "$KUBECTL" delete namespace "$NAMESPACE" --ignore-not-found --wait=true --timeout=60s || true
    "$KUBECTL" delete resourceslices,deviceclasses -l "$MARK" || true
}

# Waits until the pods that a selector finds are scheduled.
wait_scheduled() {
    quietly "$KUBECTL" -n "$NAMESPACE" wait pod "$@" --for=condition=PodScheduled --timeout=60s ||
        fail "the pods are not scheduled; instaslice doctor says what is wrong"
}

# Waits until a number of pods exist, since controllers create them.
wait_pods() {
    tries=0
    until [ "$("$KUBECTL" -n "$NAMESPACE" get pods -o name | wc -l)" -ge "$1" ]; do
        tries=$((tries + 1))
        [ $tries -le 60 ] || fail "the pods were not created; kubectl -n $NAMESPACE get events"
        sleep 1
    done
}

# Lists objects with custom columns, which the printed command leaves out.
list() {
    printf '$ kubectl -n %s get %s -o custom-columns=...\n' "$NAMESPACE" "$1"
    "$KUBECTL" -n "$NAMESPACE" get "$1" -o "custom-columns=$2"
}

pods() {
    list pods 'POD:.metadata.name,NODE:.spec.nodeName,LIMITS:.spec.containers[*].resources.limits,CLAIMS FROM:.spec.resourceClaims[*].resourceClaimTemplateName'
}

devices() {
    list resourceclaims 'POD:.status.reservedFor[*].name,ASKS FOR:.spec.devices.requests[*].name,HAS:.status.allocation.devices.results[*].device'
}

check
trap clean_up EXIT
trap 'exit 130' INT TERM

say "Two A100 40GB, not cut yet"
cd "$HERE/.."
show apply -f demo/a100s.yaml
quietly "$KUBECTL" create namespace "$NAMESPACE"
test -n "$("$KUBECTL" get resourceslice instaslice-demo-gpu-0 -o jsonpath='{.spec.devices[0].consumesCounters}')" ||
    fail "the cluster has no partitionable devices; Kubernetes 1.36, or the gate DRAPartitionableDevices"

say "The three workloads, as written for MIG manager and the device plugin"
grep -h 'nvidia.com/mig-' demo/instaslice/*.yaml | sort | uniq -c
show -n "$NAMESPACE" apply -f demo/instaslice

say "InstaSlice has rewritten the pods: no limits, a claim for each slice"
wait_pods 4
wait_scheduled --all
pods

say "InstaSlice has created the templates on demand"
show -n "$NAMESPACE" get resourceclaimtemplates -o name

say "Each claim has a device of its profile, placed where it overlaps with no other"
devices

say "A profile that nobody planned: the user just asks for it"
sed -e 's/name: two-profiles/name: new-profile/' -e 's/mig-3g.20gb/mig-1g.10gb/' \
    demo/instaslice/two-profiles.yaml | "$KUBECTL" -n "$NAMESPACE" create -f -
wait_scheduled new-profile
devices

say "Pods that do not fit wait, and their events say why"
show -n "$NAMESPACE" scale deployment inference --replicas=6
wait_pods 9
quietly "$KUBECTL" -n "$NAMESPACE" wait pod -l app=inference \
    --for=jsonpath='{.status.conditions[?(@.type=="PodScheduled")].reason}'=Unschedulable --timeout=5s || true
show -n "$NAMESPACE" get events --field-selector reason=FailedScheduling \
    -o custom-columns=POD:.involvedObject.name,WHY:.message
