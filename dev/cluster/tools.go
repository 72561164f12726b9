// Building the pinned tools and keeping them in the cache. A tool's pins are a go.mod and go.sum under tools/; it is
// built once for all checkouts that have the same pins. What the tools are used for is not known here.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

type tool struct{ module, pkg string }

var tools = map[string]tool{
	"etcd":                    {"etcd", "go.etcd.io/etcd/server/v3"},
	"kube-apiserver":          {"kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"},
	"kube-controller-manager": {"kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	"kube-scheduler":          {"kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"},
	"kube-proxy":              {"kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"},
	"kubelet":                 {"kubernetes", "k8s.io/kubernetes/cmd/kubelet"},
	"kubectl":                 {"kubernetes", "k8s.io/kubernetes/cmd/kubectl"},
	"containerd":              {"containerd", "github.com/containerd/containerd/v2/cmd/containerd"},
	"containerd-shim-runc-v2": {"containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	"ctr":                     {"containerd", "github.com/containerd/containerd/v2/cmd/ctr"},
	"bridge":                  {"cni", "github.com/containernetworking/plugins/plugins/main/bridge"},
	"host-local":              {"cni", "github.com/containernetworking/plugins/plugins/ipam/host-local"},
	"loopback":                {"cni", "github.com/containernetworking/plugins/plugins/main/loopback"},
	"portmap":                 {"cni", "github.com/containernetworking/plugins/plugins/meta/portmap"},
	"coredns":                 {"coredns", "github.com/coredns/coredns"},
	"helm":                    {"helm", "helm.sh/helm/v4/cmd/helm"},
	"kwok":                    {"kwok", "sigs.k8s.io/kwok/cmd/kwok"},
	"versitygw":               {"versitygw", "github.com/versity/versitygw/cmd/versitygw"},
	"stern":                   {"stern", "github.com/stern/stern"},
	"victoria-logs":           {"victorialogs", "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"},
	"vlagent":                 {"victorialogs", "github.com/VictoriaMetrics/VictoriaLogs/app/vlagent"},
}

var (
	controlPlaneTools = []string{"etcd", "kube-apiserver"}
	fullTools         = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
		"containerd", "containerd-shim-runc-v2", "ctr", "bridge", "host-local", "loopback", "portmap", "coredns"}
)

const linkFlags = "-s -w"

// goVersion is part of a tool's key: another compiler makes another tool.
var goVersion = sync.OnceValues(func() (string, error) {
	path, err := exec.LookPath("go")
	if err != nil {
		path = "/usr/local/go/bin/go"
		if _, err := os.Stat(path); err != nil {
			return "", errors.New("the Go compiler (1.26 or newer) is missing, and the cluster's programs are built with it; install it from https://go.dev/dl and put it in the PATH")
		}
		os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/go/bin")
	}
	// Its VERSION file says the same as `go version`, in no time.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(real)), "VERSION")); err == nil {
			return firstLine(string(data)), nil
		}
	}
	out, err := output("", path, "env", "GOVERSION")
	return strings.TrimSpace(out), err
})

// moduleDir is the cache folder of a module's tools; its name changes with the module's pins.
func (c *cluster) moduleDir(module string) (string, error) {
	version, err := goVersion()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(c.src, "tools", module, f))
		if err != nil {
			return "", fmt.Errorf("the pins of %s are missing from this checkout: %w", module, err)
		}
		fmt.Fprintf(h, "%d\n%s", len(data), data)
	}
	fmt.Fprintf(h, "%s\n%s\n%s\n", version, linkFlags, c.versionFlags(module))
	return filepath.Join(c.cache, "tools", fmt.Sprintf("%s-%x", module, h.Sum(nil)[:6])), nil
}

// toolPath is where a tool is, or will be once it is built.
func (c *cluster) toolPath(name string) (string, error) {
	t, ok := tools[name]
	if !ok {
		names := []string{}
		for n := range tools {
			names = append(names, n)
		}
		sort.Strings(names)
		return "", fmt.Errorf("there is no pinned tool %q; there are %s", name, strings.Join(names, ", "))
	}
	dir, err := c.moduleDir(t.module)
	return filepath.Join(dir, "bin", name), err
}

// mustTool is toolPath for names and pins that were checked before.
func (c *cluster) mustTool(name string) string {
	path, err := c.toolPath(name)
	if err != nil {
		panic(err)
	}
	return path
}

// searchPath is the PATH of the cluster's processes: its tools, then the system's.
func (c *cluster) searchPath() string {
	dirs := []string{}
	for _, m := range []string{"kubernetes", "containerd", "cni", "etcd", "coredns"} {
		if d, err := c.moduleDir(m); err == nil {
			dirs = append(dirs, filepath.Join(d, "bin"))
		}
	}
	return strings.Join(append(dirs, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ":")
}

// buildTools builds those tools that the cache lacks.
func (c *cluster) buildTools(names ...string) error {
	missing := []string{}
	for _, n := range names {
		path, err := c.toolPath(n)
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := needSpace(goCache(), 12<<30, "to build "+strings.Join(missing, ", ")+" (Go's own caches take most of it)"); err != nil {
		return err
	}
	for i, n := range missing {
		if err := c.buildTool(n, fmt.Sprintf("%d of %d", i+1, len(missing))); err != nil {
			return err
		}
	}
	return nil
}

func goCache() string {
	if d := os.Getenv("GOCACHE"); d != "" {
		return d
	}
	if d, err := os.UserCacheDir(); err == nil {
		return d
	}
	return "/"
}

// buildTool builds one tool under a lock, into a temporary folder that becomes the tool by a rename.
func (c *cluster) buildTool(name, count string) error {
	path := c.mustTool(name)
	dir := filepath.Dir(path)
	lock, err := lockFile(filepath.Dir(dir)+".lock", func() { say("waiting for another build of %s to end …", tools[name].module) })
	if err != nil {
		return fmt.Errorf("cannot use the cache %s (set TRAINYARD_CACHE to another folder): %w", c.cache, err)
	}
	defer lock.Close()
	if _, err := os.Stat(path); err == nil {
		return nil // somebody else built it meanwhile
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, _ := filepath.Glob(filepath.Join(dir, ".build-*")) // of a build that was killed; the lock says that none runs
	for _, o := range old {
		os.RemoveAll(o)
	}
	tmp, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	t := tools[name]
	start := time.Now()
	say("  building %s (%s, once for these pins; minutes where Go's cache is empty) …", name, count)
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags", strings.TrimSpace(linkFlags + " " + c.versionFlags(t.module)), "-o", filepath.Join(tmp, name), t.pkg}
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(c.src, "tools", t.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		text := strings.TrimSpace(string(out))
		if lines := strings.Split(text, "\n"); len(lines) > 15 {
			text = strings.Join(lines[len(lines)-15:], "\n")
		}
		return fmt.Errorf("building %s from %s failed (%v); Go says:\n%s", name, cmd.Dir, err, text)
	}
	if err := os.Rename(filepath.Join(tmp, name), path); err != nil {
		return err
	}
	say("✓ built %s in %s", name, seconds(time.Since(start)))
	return nil
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`)

// versionFlags stamps Kubernetes' version into its programs, which call themselves v0.0.0 otherwise.
func (c *cluster) versionFlags(module string) string {
	if module != "kubernetes" {
		return ""
	}
	data, _ := os.ReadFile(filepath.Join(c.src, "tools", module, "go.mod"))
	m := kubernetesVersion.FindStringSubmatch(string(data))
	if m == nil {
		return ""
	}
	flags := []string{}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X "+pkg+".gitVersion="+m[1], "-X "+pkg+".gitMajor="+m[2], "-X "+pkg+".gitMinor="+m[3], "-X "+pkg+".gitTreeState=clean", "-X "+pkg+".gitCommit=")
	}
	return strings.Join(flags, " ")
}

// needSpace refuses with one sentence where a file system has less than need bytes free.
func needSpace(path string, need uint64, what string) error {
	for {
		var s syscall.Statfs_t
		if err := syscall.Statfs(path, &s); err != nil {
			if parent := filepath.Dir(path); parent != path {
				path = parent
				continue
			}
			return nil
		}
		if free := s.Bavail * uint64(s.Bsize); free < need {
			return fmt.Errorf("the disk that holds %s has %.2f GB free, and %.2f GB are needed %s; free some space and run it again", path, float64(free)/(1<<30), float64(need)/(1<<30), what)
		}
		return nil
	}
}
