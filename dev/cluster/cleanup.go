// `down`: everything of a cluster goes, found by marks rather than by memory, so that it works after any crash.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// remove ends and deletes everything of the cluster. The caller holds its lock.
func (c *cluster) remove() error {
	// The nodes' first processes take all of the nodes with them; then whatever else carries the cluster's mark.
	if err := killAll(func() map[int]string { return c.marked(func(string) bool { return true }) }); err != nil {
		return err
	}
	if isRoot() {
		if err := removeCgroups(c.cgroupParent()); err != nil {
			return err
		}
		if err := c.removeNetwork(); err != nil {
			return err
		}
		if err := unmountBelow(c.dir); err != nil {
			return err
		}
	}
	return removeAll(c.dir)
}

// removeAll deletes a folder. A namespace that is just dying may hold a mount for a moment more.
func removeAll(dir string) error {
	var err error
	for range 100 {
		if err = os.RemoveAll(dir); err == nil || !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("cannot delete %s: %w", dir, err)
	}
	return nil
}

// unmountBelow ends mounts below a folder, so that deleting it deletes nothing else. None are expected.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	points := []string{}
	for _, line := range bytes.Split(data, []byte("\n")) {
		if f := strings.Fields(string(line)); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	for _, p := range points {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", p, err)
		}
	}
	return nil
}

// down is `cluster down`.
func (c *cluster) down() error {
	if _, err := os.Stat(c.base); errors.Is(err, fs.ErrNotExist) && !c.anything() {
		say("the cluster %s is not up", c.Name)
		return nil
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if !c.anything() {
		say("the cluster %s is not up", c.Name)
	} else if err := step("removed the cluster "+c.Name, c.remove); err != nil {
		return err
	}
	os.Remove(c.lockPath())
	if len(allClusters(c.base)) == 0 {
		os.Remove(filepath.Join(c.base, ".slots.lock"))
		os.Remove(c.base) // only where it is empty
	}
	return nil
}

// anything says whether there is something of the cluster left on the machine.
func (c *cluster) anything() bool {
	if _, err := os.Lstat(c.dir); err == nil {
		return true
	}
	if len(c.marked(func(string) bool { return true })) > 0 {
		return true
	}
	if !isRoot() {
		return false // what follows only root makes
	}
	files, _ := filepath.Glob("/sys/class/net/*/ifalias")
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == c.alias() {
			return true
		}
	}
	mounts, _ := cgroupMounts()
	for _, m := range mounts {
		if _, err := os.Stat(filepath.Join(m.path, c.cgroupParent())); err == nil {
			return true
		}
	}
	return false
}
