// The commands that look at a running cluster or poke at it: status, paths, node, restart, logs, load-image, tool.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// status prints a table and fails unless everything is healthy.
func (c *cluster) status() error {
	all, err := c.components()
	if err != nil {
		return err
	}
	results := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() {
			if c.running(p.name) == 0 {
				results[i] = errors.New("not running")
			} else if p.healthy != nil {
				results[i] = p.healthy()
			}
		})
	}
	wg.Wait()
	fmt.Printf("cluster %s (%s, cgroup %s), since %s\n", c.Name, c.Mode, cgroupVersion(), c.Created.Format(time.DateTime))
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tPID\tSTATE\tADDRESS")
	failed := false
	for i, p := range all {
		pid, text := "-", "healthy"
		if n := c.running(p.name); n != 0 {
			pid = fmt.Sprint(n)
		}
		if results[i] != nil {
			failed = true
			text = "unhealthy: " + firstLine(results[i].Error())
			if pid == "-" {
				text = "not running"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.name, pid, text, p.address)
	}
	t.Flush()
	if failed {
		return errQuiet
	}
	return nil
}

// paths prints KEY=VALUE lines for scripts and tests.
func (c *cluster) paths() error {
	lines := []string{
		"NAME=" + c.Name, "MODE=" + c.Mode, "KUBECONFIG=" + c.kubeconfig(), "API_SERVER=" + c.apiURL(), "AUDIT_LOG=" + c.auditLog(),
		"STATE_DIR=" + c.dir, "LOG_DIR=" + c.file("logs"), "CACHE_DIR=" + c.cache, "CA_CERT=" + c.pki("ca.crt"), "SERVICE_CIDR=" + c.serviceCIDR,
	}
	if c.Mode == modeFull {
		lines = append(lines, "HOST_ADDRESS="+c.bridgeIP, "DNS_ADDRESS="+c.bridgeIP, "POD_CIDR="+c.podCIDR(), "IMAGE="+busyboxImage,
			"CGROUP_PARENT="+c.cgroupParent(), "CONTAINERD_SOCKET=/run/containerd/containerd.sock")
		for _, n := range c.nodes() {
			key := strings.ToUpper(strings.ReplaceAll(n.name, "-", "_"))
			lines = append(lines, key+"_ADDRESS="+n.ip, key+"_POD_CIDR="+n.podCIDR, key+"_VAR="+n.file("var"), key+"_POD_LOGS="+n.file("var/log/pods"))
		}
	}
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

func (c *cluster) list() error {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tMODE\tAPI SERVER\tCHECKOUT")
	for _, s := range allClusters(c.base) {
		other := cluster{state: s, addresses: slotAddresses(s.Slot)}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, s.Mode, other.apiURL(), s.Checkout)
	}
	return t.Flush()
}

func (c *cluster) printTool(name string) error {
	path, err := c.toolPath(name)
	if err != nil {
		return err
	}
	if err := c.buildTools(name); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func (c *cluster) kubectl(args []string) error {
	if err := c.buildTools("kubectl"); err != nil {
		return err
	}
	path := c.mustTool("kubectl")
	return syscall.Exec(path, append([]string{"kubectl", "--kubeconfig", c.kubeconfig()}, args...), os.Environ())
}

func (c *cluster) needNodes(what string) error {
	if c.Mode != modeFull {
		return fmt.Errorf("the cluster %s is a control-plane one and has no nodes for `cluster %s`; a full one has", c.Name, what)
	}
	return needRoot("`cluster " + what + "`")
}

func (c *cluster) loadImages(archives []string) error {
	if err := c.needNodes("load-image"); err != nil {
		return err
	}
	if len(archives) == 0 {
		return errors.New("`cluster load-image` takes the image archives to load; `cluster help` shows how")
	}
	for _, a := range archives {
		jobs := []func() error{}
		for _, n := range c.nodes() {
			jobs = append(jobs, func() error { return c.loadImage(n, a, true) })
		}
		if err := parallel(jobs...); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) nodeCommand(args []string) error {
	if err := c.needNodes("node"); err != nil {
		return err
	}
	if len(args) < 2 || len(args) > 2 && args[0] != "enter" {
		return errors.New("`cluster node` takes stop, start or enter, and a node's name; `cluster help` shows how")
	}
	n, err := c.node(args[1])
	if err != nil {
		return err
	}
	if args[0] == "enter" {
		return c.enter(n, args[2:])
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	switch args[0] {
	case "stop":
		return step("killed the kubelet of "+n.name, func() error { return c.kill(n.name + "/kubelet") })
	case "start":
		api, err := c.api()
		if err != nil {
			return err
		}
		return c.startKubelet(n, api)
	}
	return fmt.Errorf("there is no `cluster node %s`; there are stop, start and enter", args[0])
}

// enter runs a command inside of a node's namespaces, with the tools in its PATH.
func (c *cluster) enter(n *node, command []string) error {
	if len(command) == 0 {
		command = []string{"/bin/sh"}
	}
	pid := c.running(n.name)
	if pid == 0 {
		return fmt.Errorf("%s does not run; `cluster up` starts it", n.name)
	}
	os.Setenv("PATH", c.searchPath())
	os.Setenv("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock")
	os.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	os.Setenv("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "true") // ctr's, of cgroups of version 1
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdin, os.Stdout, os.Stderr, "/"
	if err := inNamespaces(pid, cmd.Start); err != nil {
		return err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1))
	}
	return err
}

// restart kills a component and starts it again.
func (c *cluster) restart(name string) error {
	p, err := c.component(name)
	if err != nil {
		return err
	}
	if c.Mode == modeFull {
		if err := needRoot("`cluster restart`"); err != nil {
			return err
		}
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.kill(name); err != nil {
		return err
	}
	say("  killed %s", name)
	switch {
	case c.isNode(name): // with its containerd, kubelet and kube-proxy
		return c.startAll()
	case filepath.Base(name) == "kubelet":
		api, err := c.api()
		if err != nil {
			return err
		}
		return c.startKubelet(p.node, api)
	}
	return c.start(p)
}

func (c *cluster) component(name string) (*component, error) {
	all, err := c.components()
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, p := range all {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return nil, fmt.Errorf("the cluster %s has no component %q; it has %s", c.Name, name, strings.Join(names, ", "))
}

func (c *cluster) logs(name string) error {
	if _, err := c.component(name); err != nil {
		return err
	}
	fmt.Println(c.logPath(name))
	return nil
}
