// The first process of a node, in namespaces of its own (process ids, mounts, network, host name, IPC): it gives the
// node a /proc, /run, /var, /sys and sysctls of its own, then reaps orphans until it is killed. All processes,
// mounts and network devices of the node end with it, whatever way it ends.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const nodeReadyFile = "/run/trainyard-node-ready"

// nodeFolders must exist before the node starts.
var nodeFolders = []string{"config", "var/lib/kubelet", "var/lib/containerd", "var/lib/cni", "var/log", "var/tmp", "var/cache", "sysctl"}

// The kubelet wants these values and would set them for the whole machine. A node sees them as set already.
var fakeSysctls = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// runNodeInit is `cluster internal-node-init DIR NODE PATH...`: the paths are to stay visible below /var and /run.
func runNodeInit(args []string) error {
	if len(args) < 2 || os.Getpid() != 1 {
		return fmt.Errorf("internal-node-init is started by `cluster up` only")
	}
	if err := setUpNode(args[0], args[1], args[2:]); err != nil {
		return fmt.Errorf("setting up the namespaces of %s: %w", args[1], err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for range children {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
	return nil
}

type opened struct {
	path string
	dir  *os.File
}

func (o opened) source() string { return fmt.Sprintf("/proc/self/fd/%d", o.dir.Fd()) }

func setUpNode(clusterDir, name string, keep []string) error {
	dir := filepath.Join(clusterDir, name)
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var kept []opened
	for _, p := range append(keep, clusterDir, filepath.Dir(self)) {
		if p = filepath.Clean(p); hidden(p) {
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			kept = append(kept, opened{p, f})
		}
	}
	cgroups, err := os.Open("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	defer cgroups.Close()
	resolv, err := os.ReadFile(filepath.Join(clusterDir, "config", "resolv.conf"))
	if err != nil {
		return err
	}
	resolvPath := followLink("/etc/resolv.conf")

	if err := mount(filepath.Join(dir, "var"), "/var", "", syscall.MS_BIND); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV); err != nil {
		return err
	}
	os.Remove("/var/run")
	if err := os.Symlink("/run", "/var/run"); err != nil {
		return err
	}
	for _, k := range kept {
		if err := os.MkdirAll(k.path, 0o755); err != nil {
			return err
		}
		if err := mount(k.source(), k.path, "", syscall.MS_BIND|syscall.MS_REC); err != nil {
			return err
		}
	}
	if err := mount("sysfs", "/sys", "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC); err != nil {
		return err
	}
	if err := mount(opened{dir: cgroups}.source(), "/sys/fs/cgroup", "", syscall.MS_BIND|syscall.MS_REC); err != nil {
		return err
	}
	if err := setResolver(resolvPath, filepath.Join(clusterDir, "config", "resolv.conf"), resolv); err != nil {
		return err
	}
	if err := setSysctls(filepath.Join(dir, "sysctl")); err != nil {
		return err
	}
	// Mounts that a kubelet makes reach containers that ask for it, as on a machine of its own.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return err
	}
	return os.WriteFile(nodeReadyFile, nil, 0o644)
}

// hidden says whether the node's own /var and /run cover a path.
func hidden(path string) bool {
	return strings.HasPrefix(path, "/var/") || strings.HasPrefix(path, "/run/")
}

func mount(source, target, kind string, flags uintptr) error {
	if err := syscall.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// followLink resolves /etc/resolv.conf, which is a link into /run on many machines.
func followLink(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

func setResolver(path, source string, text []byte) error {
	if hidden(path) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, text, 0o644)
	}
	if _, err := os.Stat(path); err != nil {
		return nil // a machine without a resolver has nothing to hide
	}
	return mount(source, path, "", syscall.MS_BIND)
}

func setSysctls(dir string) error {
	for name, value := range fakeSysctls {
		if _, err := os.Stat("/proc/sys/" + name); err != nil {
			continue
		}
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, "/proc/sys/"+name, "", syscall.MS_BIND); err != nil {
			return err
		}
	}
	// These belong to the network namespace.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644)
	if os.IsNotExist(err) {
		return fmt.Errorf("the kernel has no br_netfilter, without which services do not work; run `modprobe br_netfilter`")
	}
	return err
}
