{{/* The settings of a router, for both of its containers: what one writes at first the other goes on with. */}}
{{- define "fleet.routerEnvironment" -}}
{{- $router := .Values.router -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- $settings := dict
  "FLEET" (include "fleet.name" .)
  "SESSION_HEADER" $router.sessionHeader
  "STICKY_USER" $router.stickyUser
  "AFFINITY" $router.engineAffinity
  "RESTORE_MODEL" $router.restoreModel
  "LIST_PINNED" $router.listPinned
  "MAX_BODY_BYTES" $router.maxBodySize
  "TRUSTED_HOPS" $router.trustedHops
  "RETRIES" $router.retries
  "MAX_REQUESTS" (int64 $router.maxRequests)
  "HISTOGRAMS" (int64 $router.histograms)
  "REQUEST_TIMEOUT" $router.timeouts.request
  "IDLE_TIMEOUT" $router.timeouts.idle
  "BODY_TIMEOUT" $router.timeouts.body
  "CONNECT_TIMEOUT" $router.timeouts.connect
  "EJECT_AFTER" $router.ejection.after
  "EJECT_TIME" $router.ejection.time
  "EJECT_PERCENT" $router.ejection.percent
  "GRACE" (printf "%ds" (sub (int $router.terminationGracePeriodSeconds) 5))
  "LEAVE" $router.leave
  "LOG_LEVEL" $router.logLevel
-}}
{{- if .Values.apiKey.secretName }}{{- $_ := set $settings "ENGINE_KEY_FILE" "/etc/lorafleet/engine-key/key" }}{{- end }}
{{- if $router.apiKeys.secretName }}
{{- $_ := set $settings "CHECK_KEYS" true }}
{{- $_ := set $settings "CLIENT_KEYS_DIRECTORY" "/etc/lorafleet/client-keys" }}
{{- end }}
{{- if $router.tls.secretName }}{{- $_ := set $settings "TLS_DIRECTORY" "/etc/lorafleet/tls" }}{{- end }}
{{- range $name, $value := $settings }}
- name: LORAFLEET_ROUTER_{{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- with $router.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fleet.routerMounts" -}}
- name: configuration
  mountPath: /run/lorafleet
- name: tmp
  mountPath: /tmp
{{- if .Values.apiKey.secretName }}
- name: engine-key
  mountPath: /etc/lorafleet/engine-key
  readOnly: true
{{- end }}
{{- if .Values.router.apiKeys.secretName }}
- name: client-keys
  mountPath: /etc/lorafleet/client-keys
  readOnly: true
{{- end }}
{{- end -}}

{{- define "fleet.routerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Answered by Envoy itself, without a key. */}}
{{- define "fleet.envoyHealth" -}}
path: /health
port: http
scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.router.tls.secretName "") }}
{{- end -}}
