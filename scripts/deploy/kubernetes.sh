#!/usr/bin/env bash
# Are the manifests valid for Kubernetes, and the configurations in them for Rillway?
#
#   scripts/deploy/kubernetes.sh [BINARY]
#
# The schemas of Kubernetes come with the PyPI package kubernetes-validate, those of the Prometheus operator with the
# npm package @kubernetes-models/prometheus-operator. No cluster is asked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/common.sh
binary=${1:-}

# The oldest and the newest that are checked. An unknown key is an error.
VERSIONS=(1.27 1.37)

venv=$(scripts/setup.sh kubernetes --where)
for version in "${VERSIONS[@]}"; do
  "$venv/bin/kubernetes-validate" --strict --quiet -k "$version" deploy/kubernetes/rillway.yaml deploy/kubernetes/rillway-scaled.yaml
done
done_=("kubernetes-validate accepts the manifests for ${VERSIONS[*]}")

if have kubectl; then
  kubectl kustomize deploy/kubernetes >/dev/null
  done_+=('kustomize builds them')
else
  not_checked 'whether kustomize builds the manifests, because there is no kubectl here'
fi
# A cluster would be fetched as images, which no registry of packages has.
not_checked 'how a cluster runs the manifests, because there is none here'

"$venv/bin/python" scripts/lib/kubernetes.py deploy/kubernetes ${binary:+"$binary"}
done_+=('names, ports, probes and selectors fit each other')
[[ ! $binary ]] || done_+=('rillway check accepts the configurations')

if have npm && have node; then
  crds=$(scripts/setup.sh podmonitor --where)
  "$venv/bin/python" -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))' \
    deploy/kubernetes/podmonitor.yaml | node --input-type=module -e "
      import { readFileSync } from 'node:fs';
      import { PodMonitor } from '$crds/node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor.js';
      new PodMonitor(JSON.parse(readFileSync(0, 'utf8'))).validate();"
  done_+=('the PodMonitor fits the schema of the Prometheus operator')
else
  not_checked 'the PodMonitor, because its schema comes from npm, and there is no npm here'
fi
printf '%s; ' "${done_[@]:0:${#done_[@]}-1}" && echo "${done_[-1]}"
