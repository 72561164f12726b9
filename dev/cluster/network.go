// The network: one bridge a cluster in the host's namespace, a cable (veth) from it to each node, and routes. All
// iptables rules are in the nodes' namespaces, and the host forwards nothing.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func ip(lines ...string) error {
	_, err := output(strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
	return err
}

func deviceExists(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name)
	return err == nil
}

// ensureBridge makes the bridge, whose address the API server and CoreDNS have.
func (c *cluster) ensureBridge() error {
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		output("", "modprobe", "br_netfilter") // where that fails, the node says what is missing
	}
	if deviceExists(c.bridge) {
		data, _ := os.ReadFile("/sys/class/net/" + c.bridge + "/ifalias")
		if strings.TrimSpace(string(data)) != c.alias() {
			return fmt.Errorf("the network device %s exists and is not of the cluster %s; `cluster down` and `cluster up` choose another", c.bridge, c.Name)
		}
		out, _ := output("", "ip", "-4", "-o", "addr", "show", "dev", c.bridge)
		if strings.Contains(out, " "+c.bridgeIP+"/") {
			return nil
		}
		if err := ip("link del " + c.bridge); err != nil {
			return err
		}
	}
	return ip(
		fmt.Sprintf("link add %s address 02:74:79:%02x:01:00 type bridge", c.bridge, c.Slot),
		fmt.Sprintf("link set %s alias %s up", c.bridge, c.alias()),
		fmt.Sprintf("addr add %s/24 dev %s", c.bridgeIP, c.bridge),
	)
}

// attachNode connects a node that is not connected yet. pid is the node's first process.
func (c *cluster) attachNode(n *node, pid int) error {
	if deviceExists(n.veth) {
		out, err := output("", "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-4", "-o", "addr", "show", "dev", "eth0")
		if err == nil && strings.Contains(out, " "+n.ip+"/") {
			return nil
		}
		if err := ip("link del " + n.veth); err != nil {
			return err
		}
	}
	// Fixed hardware addresses: the others' tables stay right when a node starts anew.
	if err := ip(
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %d", n.veth, n.mac, pid),
		fmt.Sprintf("link set %s master %s alias %s up", n.veth, c.bridge, c.alias()),
	); err != nil {
		return err
	}
	inside := []string{
		"link set lo up",
		"link set eth0 up",
		fmt.Sprintf("addr add %s/24 dev eth0", n.ip),
		// Service addresses are rewritten on the way out, but a route must exist before that.
		fmt.Sprintf("route replace %s via %s", c.serviceCIDR, c.bridgeIP),
	}
	for _, other := range c.nodes() {
		if other != n && other.name != n.name {
			inside = append(inside, fmt.Sprintf("route replace %s via %s", other.podCIDR, other.ip))
		}
	}
	if _, err := output(strings.Join(inside, "\n")+"\n", "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-batch", "-"); err != nil {
		return err
	}
	host := []string{fmt.Sprintf("route replace %s via %s", n.podCIDR, n.ip)}
	if n.number == 1 { // the host reaches services through the first node
		host = append(host, fmt.Sprintf("route replace %s via %s", c.serviceCIDR, n.ip))
	}
	return ip(host...)
}

// removeNetwork deletes every device that carries the cluster's alias; routes and the other ends go with them.
func (c *cluster) removeNetwork() error {
	files, _ := filepath.Glob("/sys/class/net/*/ifalias")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(data)) != c.alias() {
			continue
		}
		device := filepath.Base(filepath.Dir(f))
		if err := ip("link del " + device); err != nil && deviceExists(device) {
			return err
		}
	}
	return nil
}
