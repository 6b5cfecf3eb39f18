{{- define "fleet.name" -}}
{{- $name := default .Release.Name .Values.fleetName -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the fleet's name is %q, and may hold lower-case letters, digits and hyphens: set fleetName" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* A StatefulSet's pods carry its name and a hash in a label of 63 characters. */}}
{{- define "fleet.engineName" -}}
{{- printf "%s-engine" (include "fleet.name" . | trunc 45 | trimSuffix "-") -}}
{{- end -}}

{{- define "fleet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lorafleet
{{- end -}}

{{/* What makes a pod an engine of this fleet: the fleet's selector, and those of everything else about engines. */}}
{{- define "fleet.engineLabels" -}}
lorafleet.dev/component: engine
lorafleet.dev/fleet: {{ include "fleet.name" . }}
{{- end -}}

{{/* A Deployment's pods carry its name and two hashes in their own, of 63 characters. */}}
{{- define "fleet.routerName" -}}
{{- printf "%s-router" (include "fleet.name" . | trunc 45 | trimSuffix "-") -}}
{{- end -}}

{{/* What makes a pod a router of this fleet: the operator asks those with the last of them for statistics. */}}
{{- define "fleet.routerLabels" -}}
lorafleet.dev/component: router
lorafleet.dev/fleet: {{ include "fleet.name" . }}
lorafleet.dev/router: {{ include "fleet.name" . }}
{{- end -}}

{{- define "fleet.routerImage" -}}
{{- $given := .Values.router.image -}}
{{- $image := printf "%s:%s" $given.repository (default .Chart.AppVersion $given.tag) -}}
{{- if $given.digest -}}{{ printf "%s@%s" $image $given.digest }}{{- else -}}{{ $image }}{{- end -}}
{{- end -}}

{{- define "fleet.envoyImage" -}}
{{- $given := .Values.router.envoy.image -}}
{{- $image := printf "%s:%s" $given.repository $given.tag -}}
{{- if $given.digest -}}{{ printf "%s@%s" $image $given.digest }}{{- else -}}{{ $image }}{{- end -}}
{{- end -}}

{{- define "fleet.claimName" -}}
{{- if .Values.storage.create -}}
{{- default (printf "%s-adapters" (include "fleet.name" .)) .Values.storage.claimName -}}
{{- else -}}
{{- required "storage.claimName is needed when storage.create is false: name a ReadWriteMany claim of this namespace" .Values.storage.claimName -}}
{{- end -}}
{{- end -}}

{{- define "fleet.baseModel" -}}
{{- required "baseModel.name is needed: the model that adapters were trained for, as their adapter_config.json names it" .Values.baseModel.name -}}
{{- end -}}

{{- define "fleet.model" -}}
{{- default (include "fleet.baseModel" .) .Values.engines.model -}}
{{- end -}}

{{- define "fleet.image" -}}
{{- $image := printf "%s:%s" .Values.engines.image.repository .Values.engines.image.tag -}}
{{- if .Values.engines.image.digest -}}{{ printf "%s@%s" $image .Values.engines.image.digest }}{{- else -}}{{ $image }}{{- end -}}
{{- end -}}
