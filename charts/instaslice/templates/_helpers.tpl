{{/* The label app.kubernetes.io/name, by which the Service finds its pods. */}}
{{- define "instaslice.name" -}}
{{ .Values.nameOverride | default "instaslice" }}
{{- end }}

{{/* The name of the objects, with which all other names begin. Only the policies keep their own. */}}
{{- define "instaslice.fullname" -}}
{{ .Values.fullnameOverride | default (include "instaslice.name" .) }}
{{- end }}

{{/*
The labels and annotations of an object. Takes a dict: root, component; labels and annotations of the
object's own, which win over the common ones; and suffix, so that the Service does not find a hook's pod.
*/}}
{{- define "instaslice.metadata" -}}
labels:
{{- $usual := dict
  "app.kubernetes.io/name" (print (include "instaslice.name" .root) (.suffix | default ""))
  "app.kubernetes.io/part-of" "instaslice"
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
}}
  {{- toYaml (merge (deepCopy (.labels | default dict)) .root.Values.commonLabels $usual) | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The labels that selectors go by. They can never change. */}}
{{- define "instaslice.selector" -}}
app.kubernetes.io/name: {{ include "instaslice.name" . }}
{{- end }}

{{/* The image, by digest where there is one. */}}
{{- define "instaslice.image" -}}
{{- with .Values.image -}}
{{- $repository := required "image.repository is not set: give the image's name, in a registry that the cluster can pull from" .repository -}}
{{- with $.Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" . $repository -}}
{{- end -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* "true" where InstaSlice asks the API server anything. */}}
{{- define "instaslice.usesAPI" -}}
{{- if or (eq .Values.resourceAPI "auto") .Values.provisionTemplates -}}true{{- end -}}
{{- end }}

{{/* The name of InstaSlice's service account. */}}
{{- define "instaslice.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "instaslice.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The Secret with the certificate. The name follows the host's, because the certificate is for that host. */}}
{{- define "instaslice.secret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "instaslice.fullname" .)) }}
{{- end }}

{{/* The DNS name that the API server calls. */}}
{{- define "instaslice.host" -}}
{{ include "instaslice.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The mapping as INSTASLICE_RESOURCES has it, sorted. */}}
{{- define "instaslice.mapping" -}}
{{- $pairs := list -}}
{{- range $name, $class := .Values.mappedResources -}}
{{- $pairs = append $pairs (printf "%s=%s" $name $class) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end }}

{{/* Kubernetes 1.27 drops matchConditions and sends every pod: failing closed would stop them all. */}}
{{- define "instaslice.failurePolicy" -}}
{{- if semverCompare "<1.28.0-0" .Capabilities.KubeVersion.Version -}}
Ignore
{{- else -}}
{{ .Values.webhook.failurePolicy }}
{{- end -}}
{{- end }}

{{/* How any pod of the chart is placed and run, and with which secrets its image is pulled. */}}
{{- define "instaslice.placement" -}}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The security context of a hook's container: no privileges at all. */}}
{{- define "instaslice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "instaslice.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* "true" where the chart makes the certificate. */}}
{{- define "instaslice.generated" -}}
{{- if eq .Values.tls.source "generated" -}}true{{- end -}}
{{- end }}

{{/*
The Secret that the chart makes once, as a dict of base64: what is in the cluster, or a new one.
Rendered once and kept in .Values, since each rendering would make another.
*/}}
{{- define "instaslice.certificate" -}}
{{- if not (hasKey .Values.tls "made") -}}
{{- $live := lookup "v1" "Secret" .Release.Namespace (include "instaslice.secret" .) -}}
{{- if and $live (index ($live.data | default dict) "ca.crt") -}}
{{- $_ := set .Values.tls "made" (pick $live.data "tls.crt" "tls.key" "ca.crt") -}}
{{- else -}}
{{- $host := include "instaslice.host" . -}}
{{- $days := int .Values.tls.generated.days -}}
{{- $ca := genCA (printf "%s-ca" (include "instaslice.fullname" .)) $days -}}
{{- $pair := genSignedCert $host nil (list $host (printf "%s.cluster.local" $host)) $days $ca -}}
{{- $made := dict "tls.crt" ($pair.Cert | b64enc) "tls.key" ($pair.Key | b64enc) "ca.crt" ($ca.Cert | b64enc) -}}
{{- $_ := set .Values.tls "made" $made -}}
{{- end -}}
{{- end -}}
{{- toYaml .Values.tls.made -}}
{{- end }}

{{/* The CA that the API server trusts, base64; empty if cert-manager adds it. */}}
{{- define "instaslice.caBundle" -}}
{{- if .Values.tls.caBundle -}}
{{ .Values.tls.caBundle | b64enc }}
{{- else if include "instaslice.generated" . -}}
{{ index (include "instaslice.certificate" . | fromYaml) "ca.crt" }}
{{- else if eq .Values.tls.source "secret" -}}
{{- $live := lookup "v1" "Secret" .Release.Namespace (include "instaslice.secret" .) | default dict -}}
{{- required "tls.caBundle is not set, and the Secret has no ca.crt: give the CA that the API server should trust, PEM" (index ($live.data | default dict) "ca.crt") -}}
{{- end -}}
{{- end }}
