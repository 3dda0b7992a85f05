#!/bin/sh
# `make build-installer`, `make deploy` and `make undeploy` run this script, for kubectl's current
# cluster. The Makefile describes IMG, COMPONENTS, RESOURCES, ALTERNATIVES, NAMESPACE, POLICIES,
# KUBERNETES and KUBECTL.
#
# InstaSlice is registered last, when its pods are ready, so that no pod is refused if an earlier
# step fails.
set -eu
ALTERNATIVES=${ALTERNATIVES:-}
cd "$(dirname "$0")/.."

DEFAULT=instaslice-system
PART=app.kubernetes.io/part-of=instaslice
REGISTRATION=app.kubernetes.io/component=registration
WEBHOOK=mutatingwebhookconfiguration/instaslice

# Kinds of objects that one set of components may have and another may lack. Secrets are not among
# them, since every set has instaslice-tls, nor are DeviceClasses, which existing claims need.
KINDS="deployments.apps services serviceaccounts configmaps resourcequotas
  poddisruptionbudgets.policy networkpolicies.networking.k8s.io
  clusterroles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io
  validatingadmissionpolicies.admissionregistration.k8s.io
  validatingadmissionpolicybindings.admissionregistration.k8s.io
  certificates.cert-manager.io issuers.cert-manager.io
  servicemonitors.monitoring.coreos.com prometheusrules.monitoring.coreos.com"

fail() {
  echo "make: $*" >&2
  exit 1
}

# --- build

check() {
  [ -n "${IMG:-}" ] || fail "IMG is not set: the image, in a registry that the cluster can pull from"
  sources=0
  for name in $COMPONENTS; do
    [ -d "config/components/$name" ] ||
      fail "there is no component $name; there are: $(ls config/components | tr '\n' ' ')"
    case $name in cert-manager | own-certificates) sources=$((sources + 1)) ;; esac
  done
  [ "$sources" = 1 ] ||
    fail "COMPONENTS=\"$COMPONENTS\" has $sources sources of certificates; name one of cert-manager, own-certificates"
  case " $COMPONENTS " in *" own-certificates "*)
    for file in tls.crt tls.key ca.crt; do
      [ -f "config/components/own-certificates/$file" ] ||
        fail "config/components/own-certificates has no $file; \`make own-certificates\` creates one to try InstaSlice"
    done
    ;;
  esac
  for each in $RESOURCES; do
    case $each in
      ?*/?*=?*) ;;
      *) fail "RESOURCES: $each is not NAME=DEVICECLASS, such as nvidia.com/gpu=gpu.nvidia.com" ;;
    esac
  done
  case $ALTERNATIVES in *[!A-Za-z0-9\ .\;+/-]*)
    fail "ALTERNATIVES: $ALTERNATIVES is not like \"1g.5gb or bigger; 3g.20gb or 3g.40gb\"" ;;
  esac
  if has kubernetes-1.27 && has beside-the-scheduler; then
    fail "kubernetes-1.27 and beside-the-scheduler do not go together"
  fi
}

has() {
  case " $COMPONENTS " in *" $1 "*) ;; *) return 1 ;; esac
}

# Adds the components that this version of Kubernetes needs, and refuses those that are not for it.
for_version() {
  minor=$(printf '%s\n' "$KUBERNETES" | sed -n 's/^v\{0,1\}1\.\([0-9][0-9]*\).*/\1/p')
  [ -n "$minor" ] || fail "KUBERNETES=\"$KUBERNETES\" is not a version, such as 1.36"
  if has beside-the-scheduler && [ "$minor" -lt 36 ]; then
    fail "beside-the-scheduler is for Kubernetes 1.36 and later; this is $KUBERNETES"
  fi
  if has policies; then
    [ "$minor" -ge 30 ] || fail "policies is for Kubernetes 1.30 and later; this is $KUBERNETES"
  elif [ "$minor" -ge 30 ] && [ "$POLICIES" = yes ]; then
    COMPONENTS="$COMPONENTS policies"
  fi
  if [ "$minor" -lt 28 ] && ! has kubernetes-1.27; then
    COMPONENTS="$COMPONENTS kubernetes-1.27"
  fi
}

# The set of components as a label's value; their names together may have over 63 characters.
components_label() {
  printf '%s\n' $COMPONENTS | sort | cksum | cut -d ' ' -f 1
}

kustomization() {
  echo 'resources: [../../config/base]'
  echo 'components:'
  printf -- '- ../../config/components/%s\n' $COMPONENTS
  echo 'labels:'
  echo "- pairs: {instaslice.io/components: \"$(components_label)\"}"
  echo 'patches:'
  if [ "$NAMESPACE" != "$DEFAULT" ]; then
    # The namespace is the user's, so it is neither labelled nor deleted.
    printf '%s\n' '- patch: |' '    $patch: delete' '    apiVersion: v1' \
      '    kind: Namespace' '    metadata:' "      name: $DEFAULT"
  fi
  setting INSTASLICE_RESOURCES "$(echo $RESOURCES | tr ' ' ,)"
  setting INSTASLICE_ALTERNATIVES "$ALTERNATIVES"
}

# A patch that gives the server a setting, unless it is empty.
setting() {
  [ -z "$2" ] || printf '%s\n' '- target: {kind: Deployment, name: instaslice}' '  patch: |' \
    '    - op: add' '      path: /spec/template/spec/containers/0/env/-' \
    "      value: {name: $1, value: '$2'}"
}

# The condition of the webhook on a resource's name, as `instaslice webhook-configuration
# --resource ...` prints it.
IS_OURS="name.startsWith('nvidia.com/mig-')"
is_mapped() {
  [ -z "$RESOURCES" ] && return
  names=$(printf '%s\n' $RESOURCES | sed "s/=.*//; s/.*/'&'/" | sort -u | paste -s -d , | sed 's/,/, /g')
  echo " || name in [$names]"
}

# The mapped resources as the policies have them: a CEL map.
NOTHING_MAPPED="dyn({'':''})"
mapping() {
  printf '%s\n' $RESOURCES | sed "s/\(.*\)=\(.*\)/'\1':'\2'/" | paste -s -d , | sed 's/,/, /g'
}

build() {
  # First, so that an interrupted or refused build leaves no older installation.
  rm -rf dist/install.yaml dist/kustomize
  check
  for_version
  mkdir -p dist/kustomize
  kustomization >dist/kustomize/kustomization.yaml
  $KUBECTL kustomize dist/kustomize >dist/kustomize/all.yaml
  # The alerts' runbooks are pages of the project; without its address they have no URL.
  runbooks=/runbook_url:/d
  [ -z "$PROJECT_URL" ] || runbooks="s|runbook_url: |&$PROJECT_URL/blob/v$VERSION/|"
  sed -e "$runbooks" -e "s|image: instaslice:latest\$|image: $IMG|" -e "s|$DEFAULT|$NAMESPACE|g" \
    -e "s~$IS_OURS~&$(is_mapped)~g" -e "s~$NOTHING_MAPPED~dyn({$(mapping)})~" \
    dist/kustomize/all.yaml >dist/kustomize/install.yaml
  mv dist/kustomize/install.yaml dist/install.yaml
  echo "dist/install.yaml: $IMG with $COMPONENTS, in namespace $NAMESPACE, for Kubernetes $KUBERNETES"
}

# --- deploy

reach() {
  said=$($KUBECTL get --raw /version --request-timeout=20s 2>&1) ||
    fail "kubectl reaches no cluster: $(echo "$said" | tail -n 1)"
}

# The version of the cluster: "1.36". Providers write a minor version of "36+".
server_version() {
  reach
  KUBERNETES=$(echo "$said" | tr -d ' \n' | sed 's/.*"major":"\([0-9]*\)[^"]*","minor":"\([0-9]*\).*/\1.\2/')
}

# Waits until the registered webhook has a caBundle; cert-manager takes a second or two.
await_ca() {
  tries=$CA_TRIES
  while [ -z "$($KUBECTL get "$WEBHOOK" -o 'jsonpath={.webhooks[0].clientConfig.caBundle}')" ]; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then
      $KUBECTL delete "$WEBHOOK"
      fail "the API server did not get InstaSlice's CA in time (is cert-manager's cainjector running?); InstaSlice is not registered"
    fi
    sleep 1
  done
}

# Prints those of KINDS that the cluster serves, separated by commas.
served() {
  known=$($KUBECTL api-resources --verbs=delete -o name 2>/dev/null || true)
  for kind in $KINDS; do
    echo "$known" | grep -qxF "$kind" && printf '%s,' "$kind"
  done | sed 's/,$//'
}

# Deletes InstaSlice's objects that a selector matches, except those of Helm.
delete() {
  $KUBECTL delete "$(served)" --namespace "$NAMESPACE" --ignore-not-found \
    --selector "$PART,app.kubernetes.io/managed-by!=Helm$1" 2>&1 | grep -v '^No resources found' || true
}

deploy() {
  check
  server_version
  build
  if [ "$NAMESPACE" != "$DEFAULT" ]; then
    $KUBECTL get namespace "$NAMESPACE" >/dev/null 2>&1 || $KUBECTL create namespace "$NAMESPACE"
  fi
  $KUBECTL apply --filename dist/install.yaml --selector "${REGISTRATION%=*}!=${REGISTRATION#*=}"
  $KUBECTL --namespace "$NAMESPACE" rollout status deployment/instaslice --timeout "$TIMEOUT" || {
    $KUBECTL --namespace "$NAMESPACE" get pods --selector "$PART" || true
    fail "its pods did not become ready within $TIMEOUT; the webhook was neither registered nor changed"
  }
  $KUBECTL apply --filename dist/install.yaml --selector "$REGISTRATION"
  await_ca
  delete ",instaslice.io/components!=$(components_label)"
  case " $COMPONENTS " in *" cert-manager "*) ;; *)
    # cert-manager leaves the Secrets of its Certificates.
    $KUBECTL --namespace "$NAMESPACE" delete secret instaslice-ca --ignore-not-found ;;
  esac
}

undeploy() {
  reach
  # First, so that no pod is refused while the rest is deleted.
  $KUBECTL delete "$WEBHOOK" --ignore-not-found
  delete ""
  if [ "$NAMESPACE" = "$DEFAULT" ]; then
    $KUBECTL delete namespace "$NAMESPACE" --ignore-not-found
  else
    $KUBECTL --namespace "$NAMESPACE" delete secret instaslice-tls instaslice-ca --ignore-not-found
    echo "namespace $NAMESPACE stays: it may hold other objects"
  fi
}

: "${PROJECT_URL:=}" "${VERSION:=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' instaslice/__init__.py)}"
: "${RESOURCES:=}" "${NAMESPACE:=$DEFAULT}" "${KUBECTL:=kubectl}" "${COMPONENTS:=cert-manager}"
# The newest version, for a build that names none.
: "${POLICIES:=yes}" "${KUBERNETES:=1.37}"
# How long to wait for the pods, and for the CA (in seconds).
: "${TIMEOUT:=3m}" "${CA_TRIES:=60}"
command -v "${KUBECTL%% *}" >/dev/null || fail "${KUBECTL%% *} is not on PATH"
case $1 in
  build | deploy | undeploy) "$1" ;;
  *) fail "usage: deploy.sh build|deploy|undeploy" ;;
esac
