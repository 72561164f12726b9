{{/* Most helpers take (dict "root" $ "component" "operator"), where the component is also its key in the values. */}}

{{/* At most 42 characters: a StatefulSet's pods carry its name and a hash in a label, which takes 63. */}}
{{- define "trainyard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 42 | trimSuffix "-" }}
{{- else if contains "trainyard" .Release.Name -}}
{{ .Release.Name | trunc 42 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-trainyard" .Release.Name | trunc 42 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "trainyard.componentName" -}}
{{ include "trainyard.fullname" .root }}-{{ .component }}
{{- end }}

{{/* These never change for an installed release: Deployments and StatefulSets refuse it. kubectl-trainyard finds the
collector by name and component. */}}
{{- define "trainyard.selectorLabels" -}}
app.kubernetes.io/name: trainyard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "trainyard.labels" -}}
{{ include "trainyard.selectorLabels" . }}
app.kubernetes.io/part-of: trainyard
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "trainyard.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "trainyard.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "trainyard.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "trainyard.labels" . | nindent 4 }}
  {{- with (index .root.Values .component).serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
# The pods below ask for the token themselves; no other pod gets it by accident.
automountServiceAccountToken: false
{{- end }}

{{- define "trainyard.podMetadata" -}}
{{- $values := index .root.Values .component -}}
{{- with $values.podAnnotations -}}
annotations: {{- toYaml . | nindent 2 }}
{{ end -}}
labels:
  {{- /* Not the chart's version: a new chart alone restarts nothing. */}}
  {{- include "trainyard.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* What the pods of both components have in common. It passes Pod Security "restricted" and can't be weakened by values. */}}
{{- define "trainyard.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "trainyard.componentName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "trainyard.container" -}}
{{- $values := index .root.Values .component -}}
name: {{ .component }}
image: {{ include "trainyard.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args:
  - {{ .component }}
  - --log-format={{ .root.Values.log.format }}
  - --log={{ .root.Values.log.level }}
  {{- with .root.Values.watchNamespace }}
  - --namespace={{ . }}
  {{- end }}
  {{- with .args }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
ports:
  - {name: http, containerPort: 8080}
  {{- if eq .component "collector" }}
  - {name: logs, containerPort: 8081}
  {{- end }}
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
resources: {{- toYaml $values.resources | nindent 2 }}
# The last words of a program that ends by itself appear in `kubectl describe pod`.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/*
A component's permissions on namespaced resources, from (dict "root" $ "component" … "rules" …): a ClusterRole and its
binding, or with watchNamespace a Role and its binding there.
*/}}
{{- define "trainyard.role" -}}
{{- $name := include "trainyard.componentName" . -}}
{{- $prefix := ternary "" "Cluster" (not (empty .root.Values.watchNamespace)) -}}
{{- $metadata := dict "name" $name "labels" (include "trainyard.labels" . | fromYaml) -}}
{{- with .root.Values.watchNamespace }}{{ $_ := set $metadata "namespace" . }}{{ end -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata: {{- toYaml $metadata | nindent 2 }}
rules: {{- .rules | trim | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}RoleBinding
metadata: {{- toYaml $metadata | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $prefix }}Role, name: {{ $name }}}
subjects: {{- include "trainyard.subject" . | nindent 2 }}
{{- end }}

{{- define "trainyard.subject" -}}
- {kind: ServiceAccount, name: {{ include "trainyard.componentName" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}

{{/* Subjects from the values, with the apiGroup that each kind takes. */}}
{{- define "trainyard.subjects" -}}
{{- range . }}
{{- $subject := . -}}
{{- if ne .kind "ServiceAccount" }}{{ $subject = merge (dict "apiGroup" "rbac.authorization.k8s.io") . }}{{ end }}
- {{ toJson $subject }}
{{- end }}
{{- end }}

{{/* A size from the values, such as 4Gi, as a number of bytes. */}}
{{- define "trainyard.bytes" -}}
{{- $text := kindIs "string" . | ternary . (int64 . | toString) -}}
{{- $factors := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Z]i$" $text -}}
{{- mul (trimSuffix $unit $text | int64) (get $factors $unit | default 1 | int64) -}}
{{- end }}
