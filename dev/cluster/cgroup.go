// The cgroups of a cluster, version 1 or 2: made before the kubelets start, removed when the cluster goes. What is
// in them below a node's own is the kubelet's business.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type cgroupMount struct {
	path string
	v2   bool
	cpus bool // the cpuset controller of version 1, whose groups start without cpus
}

// parseCgroupMounts finds the cgroup hierarchies in the text of /proc/self/mountinfo.
func parseCgroupMounts(mountinfo string) []cgroupMount {
	mounts, seen := []cgroupMount{}, map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 1 || seen[l[4]] || l[3] != "/" {
			continue
		}
		switch r[0] {
		case "cgroup2":
			mounts = append(mounts, cgroupMount{path: l[4], v2: true})
		case "cgroup":
			options := strings.Split(r[len(r)-1], ",")
			m := cgroupMount{path: l[4]}
			for _, o := range options {
				m.cpus = m.cpus || o == "cpuset"
			}
			mounts = append(mounts, m)
		default:
			continue
		}
		seen[l[4]] = true
	}
	return mounts
}

func cgroupMounts() ([]cgroupMount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts := parseCgroupMounts(string(data))
	if len(mounts) == 0 {
		return nil, errors.New("no cgroups are mounted on this machine, and containers need them; mount them at /sys/fs/cgroup")
	}
	return mounts, nil
}

// cgroupVersion says which version the kubelet will use, for people.
func cgroupVersion() string {
	var s syscall.Statfs_t
	if syscall.Statfs("/sys/fs/cgroup", &s) == nil && s.Type == 0x63677270 {
		return "v2"
	}
	return "v1"
}

func (c *cluster) cgroupParent() string { return "/trainyard-" + c.Name }

// makeCgroups makes a group, and those above it, in every hierarchy that the kubelet uses.
func makeCgroups(group string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	only2 := cgroupVersion() == "v2"
	for _, m := range mounts {
		if m.v2 != only2 {
			continue // beside version 1, version 2 has no controllers
		}
		dir := m.path
		for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
			if m.v2 {
				enableControllers(dir)
			}
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("cannot make the cgroup %s: %w", dir, err)
			}
			if m.cpus {
				for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
					if err := copyIfEmpty(filepath.Join(parent, f), filepath.Join(dir, f)); err != nil {
						return err
					}
				}
			}
		}
		if m.v2 {
			enableControllers(dir)
		}
	}
	return nil
}

// enableControllers passes on all controllers that a group of version 2 has. One that cannot be passed on and that
// the kubelet needs, it names itself.
func enableControllers(dir string) {
	data, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, name := range strings.Fields(string(data)) {
		os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0o644)
	}
}

func copyIfEmpty(from, to string) error {
	if have, err := os.ReadFile(to); err == nil && strings.TrimSpace(string(have)) != "" {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// removeCgroups removes a group and all below it from every hierarchy, ending what still runs there.
func removeCgroups(group string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil // none are mounted, so none are left
	}
	deadline := time.Now().Add(15 * time.Second)
	for _, m := range mounts {
		root := filepath.Join(m.path, group)
		for {
			err := removeTree(root)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("cannot remove the cgroup %s: %w", root, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func removeTree(root string) error {
	dirs := []string{}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	sort.Sort(sort.Reverse(sort.StringSlice(dirs))) // the deepest first
	for _, d := range dirs {
		// Whatever runs in the cluster's own groups is the cluster's.
		data, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		for _, text := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
