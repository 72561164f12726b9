// The text of all configuration files. Pure rendering: from a cluster's addresses and settings to strings.
package main

import (
	"fmt"
	"strings"
)

// writeConfigs writes the files; what is written is a function of the state alone, so this may be repeated.
func (c *cluster) writeConfigs() error {
	files := map[string]string{"config/audit-policy.yaml": auditPolicy}
	if c.Mode == modeFull {
		files["config/Corefile"] = c.corefile()
		files["config/resolv.conf"] = "nameserver " + c.bridgeIP + "\n"
		for _, n := range c.nodes() {
			files[n.name+"/config/kubelet.yaml"] = c.kubeletConfig(n)
			files[n.name+"/config/kube-proxy.yaml"] = c.proxyConfig(n)
			files[n.name+"/config/containerd.toml"] = c.containerdConfig(n)
			files[n.name+"/config/cni/10-trainyard.conflist"] = c.cniConfig(n)
		}
	}
	for name, text := range files {
		if err := writeFile(c.file(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Who wrote what: tests count the writes of each user. Reads are not logged, nor what the machinery repeats for ever.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  namespaces: [kube-node-lease]
  resources:
  - group: coordination.k8s.io
- level: None
  resources:
  - group: authentication.k8s.io
  - group: authorization.k8s.io
- level: None
  users: ["system:apiserver"]
- level: Metadata
`

func (c *cluster) corefile() string {
	return fmt.Sprintf(`cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    bind %[1]s
    errors
    ready %[1]s:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig %[2]s
        pods verified
        ttl 1
    }
}
# Nothing else exists: a name outside of the cluster is refused at once, not after a time limit.
.:53 {
    bind %[1]s
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, c.bridgeIP, c.pki("coredns.kubeconfig"))
}

func (c *cluster) kubeletConfig(n *node) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: %[1]s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: %[2]s
healthzBindAddress: 127.0.0.1
clusterDomain: cluster.local
clusterDNS: [%[3]s]
resolvConf: %[4]s
tlsCertFile: %[5]s
tlsPrivateKeyFile: %[6]s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[7]s}
authorization: {mode: Webhook}
volumePluginDir: /var/lib/kubelet/volumeplugins
maxPods: 200
podPidsLimit: 4096
serializeImagePulls: false
nodeLeaseDurationSeconds: 20
nodeStatusUpdateFrequency: 5s
containerLogMaxSize: %[8]s
containerLogMaxFiles: %[9]d
containerLogMonitorInterval: %[10]s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionPressureTransitionPeriod: 10s
evictionHard:
  memory.available: 100Mi
  nodefs.available: 200Mi
  nodefs.inodesFree: 10k
  imagefs.available: 200Mi
  imagefs.inodesFree: 10k
`, n.cgroup, n.ip, c.bridgeIP, c.file("config", "resolv.conf"), c.pki(n.name+".crt"), c.pki(n.name+".key"), c.pki("ca.crt"),
		c.Settings.LogMaxSize, c.Settings.LogMaxFiles, c.Settings.LogMonitorInterval)
}

func (c *cluster) proxyConfig(n *node) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
clusterCIDR: %s
bindAddress: %[4]s
healthzBindAddress: %[4]s:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms}
`, c.pki("kube-proxy.kubeconfig"), n.name, c.podCIDR(), n.ip)
}

// podCIDR covers the pods of all nodes and nothing else: 10.X.64.0/22 has .65 and .66.
func (c *cluster) podCIDR() string { return fmt.Sprintf("10.%d.64.0/22", second(c.Slot)) }

func (c *cluster) containerdConfig(n *node) string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd/opt"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%q]
  conf_dir = %q

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
`, pauseImage, strings.TrimSuffix(c.mustTool("bridge"), "/bridge"), n.file("config", "cni"))
}

// No masquerading: a pod is seen with its own address everywhere in the cluster, and there is nowhere else to go.
func (c *cluster) cniConfig(n *node) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "trainyard",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, n.podCIDR)
}
