#!/bin/sh
# Proves on a running full cluster what the README promises of one: pods on both nodes, names, services, logs, exec,
# a real OOM kill, GPUs, Pod Security, a node that is lost and comes back. Takes about 90 s and changes nothing for good.
#   dev/cluster/selftest.sh [--name NAME]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cl() { "$here/cluster" $name "$@"; }
name=
[ $# -lt 2 ] || name="$1 $2"
k() { cl kubectl -n selftest "$@"; }
fail() { echo "FAIL: $*" >&2; exit 1; }
ok() { echo "ok: $*"; }
# (wget has no -T here: Debian's static busybox crashes on it.)
until_true() { # SECONDS WHAT COMMAND...
	end=$(($(date +%s) + $1)); what=$2; shift 2
	until "$@" >/dev/null 2>&1; do [ "$(date +%s)" -lt $end ] || fail "$what"; sleep 0.2; done
}
phase() { [ "$(k get pod "$1" -o 'jsonpath={.status.phase}')" = "$2" ]; }
ready() { [ "$(k get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = "$2" ]; }

cl status >/dev/null || fail "the cluster is not healthy"
cl kubectl delete namespace selftest --ignore-not-found >/dev/null
cl kubectl create namespace selftest >/dev/null
cl kubectl label namespace selftest pod-security.kubernetes.io/enforce=restricted >/dev/null
until_true 20 "no service account" k get serviceaccount default
pod() { # NAME NODE MEMORY COMMAND
	cat <<YAML
---
apiVersion: v1
kind: Pod
metadata: {name: $1, labels: {app: selftest}}
spec:
  nodeName: $2
  hostname: $1
  subdomain: gang
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: localhost/busybox:dev
    command: [sh, -c, '$4']
    resources: {limits: {memory: $3, cpu: 200m}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
YAML
}
{
	pod one node-1 64Mi 'echo hello from one; exec sleep 1000'
	pod two node-2 64Mi 'while :; do printf "HTTP/1.0 200 OK\r\n\r\nhello" | nc -l -p 8080; done'
	pod oom node-1 32Mi 'head -c 200m /dev/zero | tail -c 150m; sleep 1; exit 3'
	pod code node-2 32Mi 'exit 7'
	cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {name: gang}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: selftest}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: selftest}, ports: [{port: 80, targetPort: 8080}]}
YAML
} | k apply -f - >/dev/null
k wait --for=condition=Ready pod/one pod/two --timeout=30s >/dev/null || fail "pods do not start: $(k get pods -o wide)"
ok "pods run on both nodes, under Pod Security restricted"

until_true 10 "no names of a headless service" k exec one -- nslookup two.gang.selftest.svc.cluster.local
k exec two -- nslookup one.gang.selftest.svc.cluster.local >/dev/null || fail "no name from the other node"
ok "names of a headless service, across nodes"
address=$(k get pod two -o 'jsonpath={.status.podIP}')
[ "$(k exec one -- timeout 5 wget -qO- "http://$address:8080")" = hello ] || fail "no traffic between nodes"
ok "traffic between pods on different nodes"
[ "$(k logs one)" = "hello from one" ] || fail "kubectl logs"
ok "kubectl logs and exec"
ca=/var/run/secrets/kubernetes.io/serviceaccount
k exec one -- sh -c "test -s $ca/token && nc -w 5 kubernetes.default 443 </dev/null" || fail "kubernetes.default is not reached from a pod"
# busybox has no TLS that the API server accepts, so kubectl speaks it, in the network of the pod.
id=$(k get pod one -o 'jsonpath={.status.containerStatuses[0].containerID}')
pid=$(cl node enter node-1 ctr tasks list | awk -v id="${id#containerd://}" '$1 == id {print $2}')
token=$(k exec one -- cat $ca/token)
cl node enter node-1 nsenter -t "$pid" -n kubectl --server "https://$(k get service -n default kubernetes -o 'jsonpath={.spec.clusterIP}')" \
	--token "$token" --certificate-authority "$(cl paths | sed -n 's/^CA_CERT=//p')" auth whoami | grep -q system:serviceaccount:selftest:default ||
	fail "kubernetes.default does not know a pod's token"
ok "kubernetes.default from a pod"
if k exec one -- timeout 20 wget -qO- http://example.com 2>/dev/null; then fail "there is an internet?"; fi
ok "a name outside of the cluster fails at once"

until_true 40 "no OOM kill: $(k get pod oom -o 'jsonpath={.status.containerStatuses}')" phase oom Failed
[ "$(k get pod oom -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}')" = OOMKilled ] || fail "not OOMKilled: $(k get pod oom -o 'jsonpath={.status}')"
until_true 20 "no exit" phase code Failed
[ "$(k get pod code -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}')" = 7 ] || fail "exit code"
ok "OOMKilled and exit codes"
logs=$(cl paths | sed -n 's/^NODE_1_POD_LOGS=//p')
grep -q 'stdout F hello from one' "$logs"/selftest_one_*/main/0.log || fail "no kubelet log file in $logs"
ok "kubelet log files under $logs"
grep -q '"verb":"create".*"resource":"pods"' "$(cl paths | sed -n 's/^AUDIT_LOG=//p')" || fail "no audit log"
ok "audit log"

cat <<YAML | k apply -f - >/dev/null
apiVersion: v1
kind: Pod
metadata: {name: gpu}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: localhost/busybox:dev
    command: ["true"]
    resources: {limits: {nvidia.com/gpu: 8}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
YAML
until_true 20 "no pod with 8 GPUs: $(k describe pod gpu | tail -3)" phase gpu Succeeded
ok "a pod with 8 nvidia.com/gpu"
k run pull --image=localhost/absent:1 --restart=Never --overrides='{"spec":{"securityContext":{"runAsNonRoot":true,"runAsUser":1000,"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"pull","image":"localhost/absent:1","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}' >/dev/null
pullfails() { k get pod pull -o 'jsonpath={.status.containerStatuses[0].state.waiting.reason}' | grep -qE 'ErrImagePull|ImagePullBackOff'; }
until_true 10 "a missing image is not told fast" pullfails
ok "a missing image fails fast"

if [ "${SELFTEST_NODES:-yes}" = yes ]; then
	before=$(date +%s)
	cl node stop node-2
	until_true 60 "node-2 stays Ready" ready node-2 Unknown
	ok "node-2 is NotReady $(($(date +%s) - before)) s after its kubelet was killed"
	k exec one -- timeout 5 wget -qO- "http://$address:8080" | grep -q hello || fail "the container on node-2 ended with the kubelet"
	ok "its containers run on"
	before=$(date +%s)
	cl node start node-2
	until_true 30 "node-2 does not come back" ready node-2 True
	[ "$(k get node node-2 -o 'jsonpath={.status.allocatable.nvidia\.com/gpu}')" = 8 ] || fail "no GPUs after the kubelet's start"
	ok "node-2 is Ready again, with its GPUs, after $(($(date +%s) - before)) s"
fi
cl kubectl delete namespace selftest >/dev/null
ok "all done"
