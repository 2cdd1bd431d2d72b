{{- define "postroom.name" -}}
{{ printf "%s-%s" .root.Release.Name .part | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "postroom.selector" -}}
app.kubernetes.io/name: postroom
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "postroom.labels" -}}
{{ include "postroom.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "postroom.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Pod of one part: root, part, values of the part, command, port, live and ready. */}}
{{- define "postroom.pod" -}}
{{- $files := .values.secretFiles | default .root.Values.secretFiles -}}
{{- $certificates := .root.Values.certificates -}}
metadata:
  labels:
    {{- include "postroom.labels" . | nindent 4 }}
  annotations:
    # New settings are a new pod.
    checksum/settings: {{ .root.Values.settings | toJson | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  # Kubernetes would otherwise give every pod FLOWER_PORT=tcp://… for a service that is called so.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ .root.Values.user }}
    runAsGroup: {{ .root.Values.user }}
    fsGroup: {{ .root.Values.user }}
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "postroom.selector" $ | nindent 10 }}
    {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .part }}
      image: {{ include "postroom.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: {{ .command | toJson }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      envFrom:
        - configMapRef: {name: {{ include "postroom.name" (dict "root" .root "part" "settings") }}}
      env:
        {{- range $variable, $key := $files }}
        - {name: {{ $variable }}, value: {{ printf "/run/secrets/postroom/%s" $key | quote }}}
        {{- end }}
        {{- range $variable, $value := .env }}
        - {name: {{ $variable }}, value: {{ $value | quote }}}
        {{- end }}
      ports:
        - {name: http, containerPort: {{ .port }}}
      startupProbe:
        httpGet: {path: {{ .live }}, port: http}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: {{ .live }}, port: http}
        periodSeconds: 15
        timeoutSeconds: 10
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: {{ .ready }}, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: secrets, mountPath: /run/secrets/postroom, readOnly: true}
        {{- if or $certificates.secret $certificates.configMap }}
        - {name: certificates, mountPath: /run/certificates, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    - name: secrets
      secret:
        secretName: {{ .values.secret | default .root.Values.secret }}
        defaultMode: 0440
        items:
          {{- range $variable, $key := $files }}
          - {key: {{ $key }}, path: {{ $key }}}
          {{- end }}
    {{- if $certificates.secret }}
    - name: certificates
      secret: {secretName: {{ $certificates.secret }}, defaultMode: 0440}
    {{- else if $certificates.configMap }}
    - name: certificates
      configMap: {name: {{ $certificates.configMap }}}
    {{- end }}
{{- end }}

{{/* Deployment and budget of a part. */}}
{{- define "postroom.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "postroom.name" . }}
  labels:
    {{- include "postroom.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  minReadySeconds: 5
  strategy:
    {{- toYaml .strategy | nindent 4 }}
  selector:
    matchLabels:
      {{- include "postroom.selector" . | nindent 6 }}
  template:
    {{- include "postroom.pod" . | nindent 4 }}
{{- end }}

{{- define "postroom.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "postroom.name" . }}
  labels:
    {{- include "postroom.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "postroom.selector" . | nindent 6 }}
{{- end }}

{{/* What every worker answers probes with. */}}
{{- define "postroom.worker" -}}
env: {POSTROOM_METRICS_PORT: "9400", POSTROOM_METRICS_HOST: 0.0.0.0}
port: 9400
live: /livez
ready: /readyz
# A new one is ready before an old one ends: no gap.
strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
{{- end }}
