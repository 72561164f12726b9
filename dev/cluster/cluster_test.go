package main

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func testCluster(t *testing.T, mode string, slot int) *cluster {
	t.Helper()
	c := &cluster{base: t.TempDir(), cache: t.TempDir(), src: "."}
	c.state = state{Name: "test", Mode: mode, Slot: slot, Settings: defaultSettings()}
	c.dir = filepath.Join(c.base, "test")
	c.addresses = slotAddresses(slot)
	return c
}

func TestSlotsDoNotOverlap(t *testing.T) {
	ports, nets := map[int]int{}, []*net.IPNet{}
	for slot := range slotsControlPlane {
		a := slotAddresses(slot)
		for _, p := range []int{a.etcdPort, a.etcdPeerPort, a.apiPort} {
			if other, taken := ports[p]; taken {
				t.Fatalf("slots %d and %d share port %d", other, slot, p)
			}
			if p > 32000 {
				t.Fatalf("slot %d: port %d is one that the kernel gives to clients", slot, p)
			}
			ports[p] = slot
		}
		_, n, err := net.ParseCIDR(a.serviceCIDR)
		if err != nil || !n.IP.IsPrivate() {
			t.Fatalf("slot %d: service network %s: %v", slot, a.serviceCIDR, err)
		}
		if slot >= slotsFull {
			continue
		}
		_, all, _ := net.ParseCIDR(a.clusterCIDR)
		for _, other := range nets {
			if overlap(all, other) {
				t.Fatalf("slot %d overlaps another", slot)
			}
		}
		nets = append(nets, all)
		within := []string{a.bridgeIP, a.serviceIP}
		for i := 1; i <= nodeCount; i++ {
			ip, pods, veth, _ := nodeAddresses(slot, i)
			within = append(within, ip, strings.TrimSuffix(pods, "/24"))
			if len(veth) > 15 || len(a.bridge) > 15 {
				t.Fatalf("device names may have 15 bytes: %s", veth)
			}
		}
		for _, ip := range within {
			if !all.Contains(net.ParseIP(ip)) {
				t.Fatalf("slot %d: %s is not in %s", slot, ip, a.clusterCIDR)
			}
		}
	}
}

func TestPodNetworkCoversTheNodesOnly(t *testing.T) {
	c := testCluster(t, modeFull, 5)
	_, pods, err := net.ParseCIDR(c.podCIDR())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes() {
		_, own, _ := net.ParseCIDR(n.podCIDR)
		if !pods.Contains(own.IP) || pods.Contains(net.ParseIP(n.ip)) {
			t.Errorf("%s: pods %s, address %s, all pods %s", n.name, n.podCIDR, n.ip, c.podCIDR())
		}
	}
	if pods.Contains(net.ParseIP(c.serviceIP)) || pods.Contains(net.ParseIP(c.bridgeIP)) {
		t.Error("the pods' network covers more than pods")
	}
}

func TestChooseSlot(t *testing.T) {
	free := func(s int) bool { return s != 1 }
	for _, test := range []struct {
		taken map[int]bool
		want  int
		fails bool
	}{
		{map[int]bool{}, 0, false},
		{map[int]bool{0: true}, 2, false}, // 1 is not free
		{map[int]bool{0: true, 2: true, 3: true}, 0, true},
	} {
		got, err := chooseSlot(4, test.taken, free)
		if (err != nil) != test.fails || got != test.want {
			t.Errorf("taken %v: got %d, %v", test.taken, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, path := range []string{"/work/main", "/home/x/main", "/home/Jörg Müller/My Very Long Checkout Name", "/", "/x/---", "/work/a.b_c"} {
		name := defaultName(path)
		if !nameRule.MatchString(name) || seen[name] {
			t.Errorf("%s: name %q", path, name)
		}
		seen[name] = true
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a/b", "..", "a b", strings.Repeat("a", 21)} {
		if nameRule.MatchString(bad) {
			t.Errorf("%q is taken for a name", bad)
		}
	}
}

func TestArguments(t *testing.T) {
	o, err := parseArguments([]string{"--name", "x", "up", "--control-plane", "--container-log-max-size=1Mi", "--container-log-max-files", "3", "--gpus", "4"})
	if err != nil || o.name != "x" || !o.controlPlane || !slices.Equal(o.args, []string{"up"}) {
		t.Fatalf("%+v, %v", o, err)
	}
	s := defaultSettings()
	for _, f := range o.change {
		f(&s)
	}
	if s != (settings{LogMaxSize: "1Mi", LogMaxFiles: 3, LogMonitorInterval: "10s", GPUs: 4}) {
		t.Errorf("%+v", s)
	}
	o, err = parseArguments([]string{"node", "enter", "node-1", "ls", "--name", "y"})
	if err != nil || o.name != "" || len(o.args) != 6 {
		t.Errorf("a command's own flags must stay: %+v, %v", o, err)
	}
	o, err = parseArguments([]string{"kubectl", "get", "pods", "-A"})
	if err != nil || len(o.args) != 4 {
		t.Errorf("kubectl's own flags must stay: %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"up", "--no-such"}, {"up", "--name"}, {"up", "--gpus", "many"}} {
		if _, err := parseArguments(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestCgroupMounts(t *testing.T) {
	const v1 = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:31 /docker/x /elsewhere rw,relatime - cgroup cgroup rw,cpuset
`
	got := parseCgroupMounts(v1)
	want := []cgroupMount{{path: "/sys/fs/cgroup/cpu,cpuacct"}, {path: "/sys/fs/cgroup/cpuset", cpus: true}, {path: "/sys/fs/cgroup/systemd"}, {path: "/sys/fs/cgroup/unified", v2: true}}
	if !slices.Equal(got, want) {
		t.Errorf("v1: %+v", got)
	}
	got = parseCgroupMounts("25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
	if !slices.Equal(got, []cgroupMount{{path: "/sys/fs/cgroup", v2: true}}) {
		t.Errorf("v2: %+v", got)
	}
}

func TestControllersArePassedOn(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o644)
	enableControllers(dir)
	// In a real group each write adds one controller; in this plain file the last one stands.
	if data, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); string(data) != "+pids" {
		t.Errorf("got %q", data)
	}
}

func TestConfigsAreComplete(t *testing.T) {
	c := testCluster(t, modeFull, 7)
	c.Settings.LogMaxSize = "1Mi"
	if err := c.writeConfigs(); err != nil {
		t.Fatal(err)
	}
	count := 0
	filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		data, _ := os.ReadFile(path)
		if strings.Contains(string(data), "%!") || strings.Contains(string(data), "\t") || len(data) == 0 {
			t.Errorf("%s is not well formed:\n%s", path, data)
		}
		return nil
	})
	if count != 3+4*nodeCount {
		t.Errorf("%d files", count)
	}
	n := c.nodes()[1]
	kubelet := c.kubeletConfig(n)
	for _, want := range []string{"containerLogMaxSize: 1Mi", "cgroupRoot: /trainyard-test/node-2", "clusterDNS: [10.71.0.1]", "failCgroupV1: false"} {
		if !strings.Contains(kubelet, want) {
			t.Errorf("the kubelet's configuration lacks %q", want)
		}
	}
	var cni struct{ Plugins []struct{ Type string } }
	if err := json.Unmarshal([]byte(c.cniConfig(n)), &cni); err != nil || len(cni.Plugins) != 2 {
		t.Errorf("CNI: %v", err)
	}
}

func TestCertificatesServeTheirAddresses(t *testing.T) {
	c := testCluster(t, modeFull, 3)
	if err := c.makeCertificates(); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	ca, _ := os.ReadFile(c.pki("ca.crt"))
	pool.AppendCertsFromPEM(ca)
	etcdPool := x509.NewCertPool()
	etcdCA, _ := os.ReadFile(c.pki("etcd-ca.crt"))
	etcdPool.AppendCertsFromPEM(etcdCA)
	for name, hosts := range map[string][]string{
		"apiserver": {"127.0.0.1", c.bridgeIP, c.serviceIP, "kubernetes.default.svc"},
		"node-1":    {c.nodes()[0].ip}, "kube-scheduler": {c.bridgeIP},
	} {
		pair, err := tls.LoadX509KeyPair(c.pki(name+".crt"), c.pki(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: h}); err != nil {
				t.Errorf("%s for %s: %v", name, h, err)
			}
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: etcdPool}); err == nil {
			t.Errorf("%s opens etcd", name)
		}
	}
	info, err := os.Stat(c.kubeconfig())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(c.pki("ca.crt"))
	if err := c.makeCertificates(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(c.pki("ca.crt")); !bytes.Equal(before, after) {
		t.Error("a second call made new certificates")
	}
}

func TestImageArchive(t *testing.T) {
	data, err := imageArchive([]byte("program"), []string{"sh", "sleep", "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err) // an archive without its end is a truncated one
		}
		names = append(names, h.Name)
	}
	if len(names) != 2+1+2*2 { // index and layout, the layer, two configs and manifests
		t.Errorf("%v", names)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	os.WriteFile(path, data, 0o644)
	key, digests, err := archiveContent(path)
	if err != nil || len(digests) != 2 || len(key) != 64 {
		t.Errorf("%s %v %v", key, digests, err)
	}
	again, _ := imageArchive([]byte("program"), []string{"sh", "sleep", "busybox"})
	if !bytes.Equal(data, again) {
		t.Error("the same content makes another archive")
	}
}

func TestLayerIsWhole(t *testing.T) {
	layer, err := busyboxLayer([]byte("program"), []string{"sh"})
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	r := tar.NewReader(bytes.NewReader(layer))
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(r); int64(len(body)) != h.Size {
			t.Errorf("%s is cut", h.Name)
		}
		last = h.Name
	}
	if last != "etc/passwd" {
		t.Errorf("the last file is %q", last)
	}
}

func TestProcessesAreFoundByMarkAndStartTime(t *testing.T) {
	c := testCluster(t, modeControlPlane, 0)
	p := &component{name: "etcd", path: "/bin/sleep", args: []string{"100"}}
	exited, err := c.launch(p)
	if err != nil {
		t.Fatal(err)
	}
	pid := c.running("etcd")
	if pid == 0 {
		t.Fatal("not running")
	}
	if found := c.marked(func(n string) bool { return n == "etcd" }); found[pid] != "etcd" {
		t.Errorf("found %v", found)
	}
	// Another process's number in the pid file is not believed.
	other, _ := json.Marshal(pidFile{PID: os.Getpid(), Start: "1"})
	os.WriteFile(c.pidPath("etcd"), other, 0o644)
	if got := c.running("etcd"); got != 0 {
		t.Errorf("a stranger (%d) is taken for etcd", got)
	}
	if err := killAll(func() map[int]string { return c.marked(func(string) bool { return true }) }); err != nil {
		t.Fatal(err)
	}
	<-exited
	if found := c.marked(func(string) bool { return true }); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
}

func TestFailureShowsTheLog(t *testing.T) {
	c := testCluster(t, modeControlPlane, 0)
	p := &component{name: "etcd", path: "/bin/sh", args: []string{"-c", "echo the port is taken >&2; exit 3"}, healthy: func() error { return errors.New("no") }}
	err := c.start(p)
	if err == nil || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), c.logPath("etcd")) || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}

func TestSentences(t *testing.T) {
	full := sentence(fmt.Errorf("cannot write x: %w", syscall.ENOSPC))
	if !strings.HasPrefix(full, "the disk is full") {
		t.Errorf("%s", full)
	}
	if err := needSpace("/", 1<<62, "to test"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if err := needSpace(filepath.Join(t.TempDir(), "not", "there"), 1, "to test"); err != nil {
		t.Errorf("%v", err)
	}
	got := missingPackages(func(p string) bool { return p != "runc" && p != "busybox" })
	if !slices.Equal(got, []string{"runc", "busybox-static"}) {
		t.Errorf("%v", got)
	}
}

func TestImportedNames(t *testing.T) {
	got := importedNames("unpacking localhost/a:1 (sha256:0123)...done\nlocalhost/b:2   saved\n")
	if !slices.Contains(got, "localhost/a:1") || !slices.Contains(got, "localhost/b:2") {
		t.Errorf("%v", got)
	}
}

func TestToolsHavePins(t *testing.T) {
	c := testCluster(t, modeFull, 0)
	for name := range tools {
		if path, err := c.toolPath(name); err != nil || filepath.Base(path) != name {
			t.Errorf("%s: %s, %v", name, path, err)
		}
	}
	for _, n := range append(fullTools, controlPlaneTools...) {
		if _, ok := tools[n]; !ok {
			t.Errorf("no tool %s", n)
		}
	}
	if !strings.Contains(c.versionFlags("kubernetes"), "gitVersion=v1.") {
		t.Errorf("Kubernetes' version is not found: %q", c.versionFlags("kubernetes"))
	}
	if _, err := c.toolPath("vim"); err == nil {
		t.Error("there is no tool vim")
	}
}
