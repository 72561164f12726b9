// `up`: the order in which a cluster comes to be. Each step finds out by itself whether there is something to do, so
// that the same code starts a cluster, repairs a half-dead one and leaves a healthy one alone.
package main

import (
	"fmt"
	"os"
	"time"
)

func (c *cluster) up(mode string, change func(*settings)) error {
	begun := time.Now()
	if mode == modeFull {
		if err := needRoot("`cluster up`"); err != nil {
			return err
		}
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.readState(); err != nil && !os.IsNotExist(err) { // again, now that nobody else writes it
		return err
	}
	if c.known && c.Mode != mode {
		return fmt.Errorf("the cluster %s is up as a %s one; run `cluster down` first, or give the other one another --name", c.Name, c.Mode)
	}
	if err := c.prepare(mode); err != nil {
		return err
	}
	if !c.known {
		if c.anything() { // left by a crash before there was a state
			if err := c.remove(); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return err
		}
		c.Settings = defaultSettings()
		if err := c.allocate(mode); err != nil {
			return err
		}
	}
	old := c.Settings
	change(&c.Settings)
	if err := c.writeState(); err != nil {
		return err
	}
	if err := c.makeCertificates(); err != nil {
		return err
	}
	if err := c.writeConfigs(); err != nil {
		return err
	}
	if c.Settings != old { // kubelets read their settings when they start
		for _, n := range c.nodes() {
			if err := c.kill(n.name + "/kubelet"); err != nil {
				return err
			}
		}
	}
	for range 3 {
		if err := c.startAll(); err != nil {
			return err
		}
		if c.allRun() { // nothing was dying while it was looked at
			break
		}
	}
	say("✓ the %s cluster %s is up after %s: export KUBECONFIG=%s", c.Mode, c.Name, seconds(time.Since(begun)), c.kubeconfig())
	return nil
}

// prepare makes sure of disk, system programs, tools and images; none of it belongs to one cluster.
func (c *cluster) prepare(mode string) error {
	need, names := uint64(3<<30), fullTools
	if mode != modeFull {
		need, names = 1<<28, controlPlaneTools // its state may lie in a small tmpfs
	}
	if err := needSpace(c.base, need, "to run a cluster"); err != nil {
		return err
	}
	if mode == modeFull {
		if err := installPackages(); err != nil {
			return err
		}
	}
	if err := c.buildTools(names...); err != nil {
		return err
	}
	if mode == modeFull {
		return c.makeBaseImages()
	}
	return nil
}

// startAll starts what does not run: nodes up to their containerd beside etcd and the API server, then the rest.
func (c *cluster) startAll() error {
	control, err := c.controlPlane()
	if err != nil {
		return err
	}
	if c.Mode != modeFull {
		for _, p := range control {
			if err := c.start(p); err != nil {
				return err
			}
		}
		return nil
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	if err := c.ensureBridge(); err != nil {
		return fmt.Errorf("cannot make the cluster's bridge %s: %w", c.bridge, err)
	}
	jobs := []func() error{func() error {
		for _, p := range control[:2] {
			if err := c.start(p); err != nil {
				return err
			}
		}
		return nil
	}}
	for _, n := range c.nodes() {
		jobs = append(jobs, func() error { return c.startMachine(n) })
	}
	if err := parallel(jobs...); err != nil {
		return err
	}
	jobs = nil
	for _, p := range control[2:] {
		jobs = append(jobs, func() error {
			if p.name == "coredns" {
				if err := api.grantCoreDNS(); err != nil {
					return err
				}
			}
			return c.start(p)
		})
	}
	for _, n := range c.nodes() {
		jobs = append(jobs, func() error { return c.startKubelet(n, api) }, func() error { return c.start(c.kubeProxy(n)) })
	}
	jobs = append(jobs, func() error { return waitServiceAccount(api) })
	return parallel(jobs...)
}

// waitServiceAccount waits for what a first pod needs beside a node.
func waitServiceAccount(api *apiClient) error {
	var err error
	for range 600 {
		if err = api.get("/api/v1/namespaces/default/serviceaccounts/default", nil); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the controller manager made no default service account within 60 s: %w", err)
}

func (c *cluster) allRun() bool {
	all, err := c.components()
	for _, p := range all {
		if c.running(p.name) == 0 {
			return false
		}
	}
	return err == nil
}

// components are all processes of the cluster.
func (c *cluster) components() ([]*component, error) {
	all, err := c.controlPlane()
	if err != nil || c.Mode != modeFull {
		return all, err
	}
	api, err := c.api()
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes() {
		all = append(all, c.nodeInit(n), c.containerd(n), c.kubelet(n, api), c.kubeProxy(n))
	}
	return all, nil
}
