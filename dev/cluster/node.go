// A node: its identity, and its processes containerd, kubelet and kube-proxy inside its namespaces. How the
// namespaces are made is nodeinit.go's business, their network network.go's, cgroups cgroup.go's.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

type node struct {
	name    string // node-1: its name in the cluster, its host name, its folder
	number  int
	dir     string
	ip      string
	podCIDR string
	veth    string // the host's end of its cable
	mac     string
	cgroup  string // path below each controller's root
}

func (n *node) file(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (c *cluster) nodes() []*node {
	if c.Mode != modeFull {
		return nil
	}
	nodes := []*node{}
	for i := 1; i <= nodeCount; i++ {
		n := &node{name: fmt.Sprintf("node-%d", i), number: i}
		n.ip, n.podCIDR, n.veth, n.mac = nodeAddresses(c.Slot, i)
		n.dir = c.file(n.name)
		n.cgroup = c.cgroupParent() + "/" + n.name
		nodes = append(nodes, n)
	}
	return nodes
}

func (c *cluster) isNode(name string) bool {
	for i := 1; i <= nodeCount; i++ {
		if name == fmt.Sprintf("node-%d", i) {
			return true
		}
	}
	return false
}

func (c *cluster) node(name string) (*node, error) {
	for _, n := range c.nodes() {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("the cluster %s has no node %q; it has node-1 to node-%d", c.Name, name, nodeCount)
}

// inNode is a path of the node as the host sees it, through the node's first process.
func (c *cluster) inNode(n *node, path string) string {
	return fmt.Sprintf("/proc/%d/root%s", c.running(n.name), path)
}

// nodeInit is the node's first process: all of the node ends with it.
func (c *cluster) nodeInit(n *node) *component {
	self, _ := os.Executable()
	return &component{
		name: n.name, path: self, address: n.ip,
		args:   []string{"internal-node-init", c.dir, n.name, c.cache, c.src},
		flags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		before: func() error { return c.prepareMachine(n) },
		healthy: func() error {
			if pid := c.running(n.name); pid != 0 {
				_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, nodeReadyFile))
				return err
			}
			return fmt.Errorf("%s does not run", n.name)
		},
	}
}

func (c *cluster) containerd(n *node) *component {
	const socket = "/run/containerd/containerd.sock"
	return &component{
		name: n.name + "/containerd", node: n, path: c.mustTool("containerd"), address: socket,
		args: []string{"--config", n.file("config", "containerd.toml")},
		healthy: func() error {
			conn, err := net.DialTimeout("unix", c.inNode(n, socket), time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		},
	}
}

func (c *cluster) kubelet(n *node, api *apiClient) *component {
	return &component{
		name: n.name + "/kubelet", node: n, path: c.mustTool("kubelet"), address: "https://" + n.ip + ":10250", timeout: 90 * time.Second,
		args: []string{
			"--config=" + n.file("config", "kubelet.yaml"), "--kubeconfig=" + c.pki(n.name+".kubeconfig"),
			"--hostname-override=" + n.name, "--node-ip=" + n.ip, "--node-labels=nvidia.com/gpu.present=true", "--v=2",
		},
		healthy: func() error {
			if err := httpHealthy(api.Client, "https://"+n.ip+":10250/healthz")(); err != nil {
				return err
			}
			since := c.pidOf(n.name + "/kubelet").Started
			if limit := time.Now().Add(-20 * time.Second); since.Before(limit) {
				since = limit // a lease that was renewed then is good enough
			}
			return api.nodeReady(n.name, since)
		},
	}
}

func (c *cluster) kubeProxy(n *node) *component {
	url := "http://" + n.ip + ":10256"
	return &component{
		name: n.name + "/kube-proxy", node: n, path: c.mustTool("kube-proxy"), address: url,
		args:    []string{"--config=" + n.file("config", "kube-proxy.yaml")},
		healthy: httpHealthy(&http.Client{Timeout: time.Second}, url+"/healthz"),
	}
}

// prepareMachine removes what an earlier life of the node left, like a machine that was switched off.
func (c *cluster) prepareMachine(n *node) error {
	for _, name := range []string{"containerd", "kubelet", "kube-proxy"} {
		os.Remove(c.pidPath(n.name + "/" + name))
	}
	if err := removeCgroups(n.cgroup); err != nil {
		return err
	}
	for _, d := range nodeFolders {
		if err := os.MkdirAll(n.file(d), 0o755); err != nil {
			return err
		}
	}
	return makeCgroups(n.cgroup)
}

// startMachine starts a node up to its container runtime, which needs no API server.
func (c *cluster) startMachine(n *node) error {
	if err := c.start(c.nodeInit(n)); err != nil {
		return err
	}
	if err := c.attachNode(n, c.running(n.name)); err != nil {
		return err
	}
	if err := c.start(c.containerd(n)); err != nil {
		return err
	}
	return c.loadImage(n, c.baseImages(), false)
}

// startKubelet starts the kubelet and gives the node its GPUs.
func (c *cluster) startKubelet(n *node, api *apiClient) error {
	fresh := c.running(n.name+"/kubelet") == 0
	if err := c.start(c.kubelet(n, api)); err != nil {
		return err
	}
	// A kubelet sets the GPUs to zero when it registers, which may come a moment after its node looks ready.
	checks := 1
	if fresh {
		checks = 8
	}
	for i := range checks {
		if i > 0 {
			time.Sleep(150 * time.Millisecond)
		}
		if err := api.setGPUs(n.name, c.Settings.GPUs); err != nil {
			return fmt.Errorf("cannot give %s its fake GPUs: %w", n.name, err)
		}
	}
	return nil
}
