// Which ports and subnets a cluster has. Each cluster holds a slot, a small number, and everything that must differ
// between clusters on one machine is computed from it. Nothing here starts or configures anything.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	slotsFull         = 64  // each has a /16 out of 10.64.0.0/10
	slotsControlPlane = 900 // these need three ports only
	firstPort         = 21000
	portsPerSlot      = 4
	nodeCount         = 2
)

// addresses of a slot: the host's end of the bridge carries the control plane, each node and its pods a subnet.
type addresses struct {
	etcdPort, etcdPeerPort, apiPort int

	bridge      string // name of the bridge
	bridgeIP    string
	nodePrefix  string // of the bridge, e.g. 10.64.0.0/24
	serviceCIDR string
	serviceIP   string // kubernetes.default
	clusterCIDR string // all of the above and the pods
}

func slotAddresses(slot int) addresses {
	port := firstPort + slot*portsPerSlot
	x := second(slot)
	return addresses{
		etcdPort: port, etcdPeerPort: port + 1, apiPort: port + 2,
		bridge:      fmt.Sprintf("ty%d", slot),
		bridgeIP:    fmt.Sprintf("10.%d.0.1", x),
		nodePrefix:  fmt.Sprintf("10.%d.0.0/24", x),
		serviceCIDR: fmt.Sprintf("10.%d.128.0/20", x),
		serviceIP:   fmt.Sprintf("10.%d.128.1", x),
		clusterCIDR: fmt.Sprintf("10.%d.0.0/16", x),
	}
}

// second is the second number of a slot's addresses. Control-plane clusters have slots beyond the full ones' and no
// network, so that theirs may repeat.
func second(slot int) int { return 64 + slot%slotsFull }

// nodeAddresses are those of node n (from 1) of a slot.
func nodeAddresses(slot, n int) (ip, podCIDR, veth, mac string) {
	x := second(slot)
	return fmt.Sprintf("10.%d.0.%d", x, 10+n), fmt.Sprintf("10.%d.%d.0/24", x, 64+n),
		fmt.Sprintf("ty%dn%d", slot, n), fmt.Sprintf("02:74:79:%02x:00:%02x", slot, n)
}

// chooseSlot returns the first slot below limit that no cluster holds and that is free on the machine.
func chooseSlot(limit int, taken map[int]bool, free func(int) bool) (int, error) {
	for s := range limit {
		if !taken[s] && free(s) {
			return s, nil
		}
	}
	return 0, fmt.Errorf("all %d places for clusters on this machine are taken; `cluster list` shows the clusters, and `cluster --name NAME down` ends one", limit)
}

// slotFree asks the machine: the ports can be bound, and (full clusters) nothing has an address in the subnets.
func slotFree(slot int, full bool) bool {
	a := slotAddresses(slot)
	for _, port := range []int{a.etcdPort, a.etcdPeerPort, a.apiPort} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	if !full {
		return true
	}
	_, ours, _ := net.ParseCIDR(a.clusterCIDR)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && overlap(n, ours) {
			return false
		}
	}
	_, err = os.Stat("/sys/class/net/" + a.bridge)
	return err != nil
}

func overlap(a, b *net.IPNet) bool { return a.Contains(b.IP) || b.Contains(a.IP) }

// allClusters reads the state files of this user's clusters.
func allClusters(base string) []state {
	var all []state
	files, _ := filepath.Glob(filepath.Join(base, "*", "state.json"))
	for _, f := range files {
		var s state
		if data, err := os.ReadFile(f); err == nil && json.Unmarshal(data, &s) == nil && s.Name == filepath.Base(filepath.Dir(f)) {
			all = append(all, s)
		}
	}
	return all
}

// allocate gives a new cluster its slot and writes its state; done under one lock for all clusters.
func (c *cluster) allocate(mode string) error {
	lock, err := lockFile(filepath.Join(c.base, ".slots.lock"), nil)
	if err != nil {
		return err
	}
	defer lock.Close()
	taken := map[int]bool{}
	for _, s := range allClusters(c.base) {
		taken[s.Slot] = true
	}
	limit := slotsControlPlane
	if mode == modeFull {
		limit = slotsFull
	}
	slot, err := chooseSlot(limit, taken, func(s int) bool {
		// Control-plane clusters leave the places that full ones need to them.
		return (mode == modeFull || s >= slotsFull) && slotFree(s, mode == modeFull)
	})
	if err != nil {
		return err
	}
	c.Mode, c.Slot, c.Created = mode, slot, time.Now().UTC().Truncate(time.Second)
	c.addresses = slotAddresses(slot)
	c.known = true
	return c.writeState()
}
