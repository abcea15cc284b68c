{{- define "slm-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "slm-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "slm-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "slm-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "slm-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "slm-operator.labels" -}}
{{ include "slm-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: slm-operator
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "slm-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "slm-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "slm-operator.leaseName" -}}
{{- default (include "slm-operator.fullname" .) .Values.leaderElection.leaseName -}}
{{- end -}}

{{/* The reference of an image: {image: its values, appVersion: the tag where none is given}. */}}
{{- define "slm-operator.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .appVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* An upgrade with --reuse-values has the earlier chart's values, without this one. */}}
{{- define "slm-operator.admissionPolicyWanted" -}}
{{- dig "enabled" true (default dict .Values.admissionPolicy) -}}
{{- end -}}

{{/* Labels that Prometheus selects by. */}}
{{- define "slm-operator.monitoringLabels" -}}
{{- dig "labels" dict (.Values.monitoring | default dict) | toYaml -}}
{{- end -}}

{{- define "slm-operator.checksSelection" -}}
{{- dig "checkSelection" false (.Values.monitoring | default dict) -}}
{{- end -}}

{{/* `true` where the admission policy is wanted and the cluster is new enough; what is rendered offline goes by the version alone. */}}
{{- define "slm-operator.admissionPolicy" -}}
{{- $kind := "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- $known := or (.Capabilities.APIVersions.Has $kind) (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) -}}
{{- and (include "slm-operator.admissionPolicyWanted" . | eq "true") $known -}}
{{- end -}}

{{/* `true` on OpenShift, which assigns each namespace its user IDs and refuses others. */}}
{{- define "slm-operator.assignsUsers" -}}
{{- .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
{{- end -}}

{{/* {user: the UID of model pods, nothing where the platform assigns it}. Absent, as after --reuse-values, is `Auto`. */}}
{{- define "slm-operator.runAsUser" -}}
{{- $user := default "Auto" .Values.runtime.runAsUser -}}
{{- if eq (toString $user) "Auto" -}}
{{- $user = ternary "Platform" 65532 (eq (include "slm-operator.assignsUsers" .) "true") -}}
{{- end -}}
{{- dict "user" (ternary nil $user (eq (toString $user) "Platform")) | toYaml -}}
{{- end -}}

{{/* The operator's settings, as slm_operator.settings reads them. */}}
{{- define "slm-operator.settings" -}}
{{- $env := list -}}
{{- range $name, $value := .Values.fetch.env -}}
{{- /* Numbers arrive as floats, and a million as 1e+06. */ -}}
{{- $whole := and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $env = append $env (dict "name" $name "value" ($whole | ternary (int64 $value) $value | toString)) -}}
{{- end -}}
{{- $fetch := dict "env" $env "allowedSources" .Values.fetch.allowedSources -}}
{{- if .Values.fetch.caBundle -}}
{{- $_ := set $fetch "caBundle" .Values.fetch.caBundle -}}
{{- end -}}
{{- /* Absent, as after --reuse-values, is the same as empty. */ -}}
{{- with .Values.fetch.mirrors -}}
{{- $_ := set $fetch "mirrors" . -}}
{{- end -}}
{{- with .Values.fetch.hosts -}}
{{- $_ := set $fetch "hosts" . -}}
{{- end -}}
{{- with .Values.fetch.bytesPerSecond -}}
{{- $_ := set $fetch "bytesPerSecond" (int64 .) -}}
{{- end -}}
{{- $monitoring := dict -}}
{{- with include "slm-operator.monitoringLabels" . | fromYaml -}}
{{- $_ := set $monitoring "labels" . -}}
{{- end -}}
{{- if eq (include "slm-operator.checksSelection" .) "true" -}}
{{- $_ := set $monitoring "checkSelection" true -}}
{{- end -}}
{{- $autoscaling := ternary dict nil (dig "enabled" false (.Values.autoscaling | default dict)) -}}
{{- if kindIs "map" $autoscaling -}}
{{- range $key, $value := dict "prometheus" .Values.autoscaling.prometheusAddress "authentication" .Values.autoscaling.authentication "authModes" .Values.autoscaling.authModes -}}
{{- if $value -}}
{{- $_ := set $autoscaling $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $catalog := dict -}}
{{- range $name, $entry := .Values.catalog | default dict -}}
{{- if $entry.sizeBytes -}}
{{- $entry = merge (dict "sizeBytes" (int64 $entry.sizeBytes)) $entry -}}
{{- end -}}
{{- $_ := set $catalog $name $entry -}}
{{- end -}}
{{- $ranks := dict -}}
{{- range $name, $class := .Values.hardwareClasses -}}
{{- /* Not `default`: 0 is an order like any other. */ -}}
{{- $order := hasKey $class "order" | ternary $class.order 100 -}}
{{- $_ := set $ranks (printf "%06d %s" (int $order) $name) $name -}}
{{- end -}}
{{- $classes := list -}}
{{- range $rank := keys $ranks | sortAlpha -}}
{{- $name := get $ranks $rank -}}
{{- $class := omit (get $.Values.hardwareClasses $name) "order" -}}
{{- /* What runtime.image was built for holds for the classes that run it; a node selector can name one value only. */ -}}
{{- $architectures := $.Values.runtime.architectures | default list -}}
{{- if and (eq (len $architectures) 1) (not $class.image) -}}
{{- $own := dict "kubernetes.io/arch" (first $architectures) -}}
{{- $class = merge (dict "nodeSelector" (mergeOverwrite $own ($class.nodeSelector | default dict))) $class -}}
{{- end -}}
{{- /* A variant of the runtime image that the site has is the image of the classes that can do with it. */ -}}
{{- $variant := $class.variant | default "" -}}
{{- $class = omit $class "variant" -}}
{{- if and (not $class.image) (has $variant ($.Values.runtime.variants | default list)) -}}
{{- $image := merge (dict "repository" (printf "%s-%s" $.Values.runtime.image.repository $variant) "digest" "") (omit $.Values.runtime.image "repository" "digest") -}}
{{- $own := dict "image" (include "slm-operator.image" (dict "image" $image "appVersion" $.Chart.AppVersion)) "provider" $variant -}}
{{- $class = merge $own $class -}}
{{- end -}}
{{- $classes = append $classes (merge (dict "name" $name) $class) -}}
{{- end -}}
{{- $secrets := list -}}
{{- range .Values.runtime.imagePullSecrets -}}
{{- $secrets = append $secrets .name -}}
{{- end -}}
{{- dict
  "runtimeImage" (include "slm-operator.image" (dict "image" .Values.runtime.image "appVersion" .Chart.AppVersion))
  "imagePullPolicy" .Values.runtime.image.pullPolicy
  "imagePullSecrets" $secrets
  "allowedImagePrefixes" .Values.runtime.allowedImagePrefixes
  "allowedServiceAccounts" (.Values.runtime.allowedServiceAccounts | default list)
  "runAsUser" (include "slm-operator.runAsUser" . | fromYaml | dig "user" nil)
  "nodeCache" (dig "path" "" (.Values.nodeCache | default dict) | default nil)
  "classes" $classes
  "fetch" $fetch
  "catalog" $catalog
  "monitoring" $monitoring
  "autoscaling" $autoscaling
  "gateways" (dig "enabled" false (.Values.gateway | default dict))
  "namespaces" .Values.watchNamespaces
  "clusterDomain" .Values.clusterDomain
  "workers" .Values.workers
  "upgradesAtOnce" (.Values.upgradesAtOnce | default 5)
  "resyncSeconds" .Values.resyncSeconds
  "pollSeconds" .Values.pollSeconds
  | toYaml -}}
{{- end -}}

{{/* What the operator may do with SLMDeployments and what belongs to them; Secrets it can only make, ConfigMaps it has to do with
only where it puts the site's CAs beside the models, DaemonSets only where nodes have a directory for models, autoscalers and
routes only where they are offered. */}}
{{- define "slm-operator.rules" -}}
- apiGroups: [slm-operator.io]
  resources: [slmdeployments]
  verbs: [get, list, watch]
- apiGroups: [slm-operator.io]
  resources: [slmdeployments/status]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [deployments, {{ if dig "path" "" (.Values.nodeCache | default dict) }}daemonsets, {{ end }}controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, {{ if .Values.fetch.caBundle }}configmaps, {{ end }}persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, watch, create, patch, delete]
{{- if dig "enabled" false (.Values.autoscaling | default dict) }}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if dig "enabled" false (.Values.gateway | default dict) }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- end -}}
