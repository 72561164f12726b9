// Where a cluster keeps its files, what it is called, and its state.json. It holds no logic of any component.
//
// Everything of one cluster lies in one folder, so that `down` has one thing to remove. The folder's path is short
// because unix sockets below it may have 107 bytes at most.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	modeFull         = "full"
	modeControlPlane = "control-plane"
)

// state is what is remembered of a cluster between two runs of this program.
type state struct {
	Name     string    `json:"name"`
	Mode     string    `json:"mode"`
	Slot     int       `json:"slot"`
	Checkout string    `json:"checkout"`
	Created  time.Time `json:"created"`
	Settings settings  `json:"settings"`
}

// settings are what `up` has flags for.
type settings struct {
	LogMaxSize         string `json:"containerLogMaxSize"`
	LogMaxFiles        int    `json:"containerLogMaxFiles"`
	LogMonitorInterval string `json:"containerLogMonitorInterval"`
	GPUs               int    `json:"gpusPerNode"`
}

func defaultSettings() settings {
	return settings{LogMaxSize: "10Mi", LogMaxFiles: 5, LogMonitorInterval: "10s", GPUs: 8}
}

// cluster is one cluster on this machine, running or not.
type cluster struct {
	state
	addresses
	base  string // the folder of all clusters of this user
	dir   string // the folder of this one
	cache string
	src   string // dev/cluster of the checkout
	known bool   // state.json was there
}

func isRoot() bool { return os.Geteuid() == 0 }

// baseDir is where all clusters of this user lie.
func baseDir() string {
	if isRoot() {
		return "/var/lib/trainyard"
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = "/tmp"
	}
	return filepath.Join(run, fmt.Sprintf("trainyard-%d", os.Getuid()))
}

// makeBase makes the base folder and refuses one that belongs to somebody else (it may lie in /tmp).
func makeBase(base string) error {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return fmt.Errorf("cannot make %s for the clusters' state: %w", base, err)
	}
	info, err := os.Lstat(base)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user; set XDG_RUNTIME_DIR to a folder of your own", base)
	}
	return nil
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// defaultName derives a cluster's name from its checkout's path: the last part that says something, and a hash.
func defaultName(checkout string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(checkout)))
	word := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(checkout)), "-")
	if len(word) > 14 {
		word = word[:14]
	}
	word = strings.Trim(word, "-")
	if word == "" {
		return "ty-" + sum[:4]
	}
	return word + "-" + sum[:4]
}

// openCluster finds the cluster that is meant; it changes nothing.
func openCluster(name string) (*cluster, error) {
	src := os.Getenv("TRAINYARD_CLUSTER_SOURCE")
	if src == "" {
		return nil, errors.New("run this program through the script dev/cluster/cluster of a checkout, which tells it where the pinned modules are")
	}
	checkout := filepath.Dir(filepath.Dir(src))
	if name == "" {
		name = os.Getenv("TRAINYARD_CLUSTER")
	}
	if name == "" {
		name = defaultName(checkout)
	}
	if !nameRule.MatchString(name) {
		return nil, fmt.Errorf("%q is no name for a cluster: 1 to 20 small letters, digits and dashes are", name)
	}
	c := &cluster{base: baseDir(), cache: os.Getenv("TRAINYARD_CACHE"), src: src}
	c.dir = filepath.Join(c.base, name)
	c.Name, c.Checkout = name, checkout
	err := c.readState()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return c, err
}

func (c *cluster) readState() error {
	data, err := os.ReadFile(c.file("state.json"))
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil || s.Name != c.Name {
		return nil // half a file from a kill at a bad moment: as if it was never there
	}
	c.state, c.known = s, true
	c.addresses = slotAddresses(s.Slot)
	return nil
}

func (c *cluster) writeState() error {
	data, _ := json.MarshalIndent(c.state, "", "  ")
	return writeFile(c.file("state.json"), append(data, '\n'), 0o644)
}

// file is a path in the cluster's folder.
func (c *cluster) file(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *cluster) kubeconfig() string { return c.file("kubeconfig") }
func (c *cluster) auditLog() string   { return c.file("logs", "audit.log") }

// alias marks network devices as this cluster's, so that `down` finds them without a state file.
func (c *cluster) alias() string { return "trainyard:" + c.Name }

// writeFile replaces a file as a whole: a kill in the middle leaves the old one.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.tmp%d", path, os.Getpid())
	if err := os.WriteFile(tmp, data, mode); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// lockFile takes an exclusive lock, waiting for it. Holders may remove the file, so what was locked must still be it.
func lockFile(path string, waiting func()) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("cannot open the lock %s: %w", path, err)
		}
		fd := int(f.Fd())
		if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			if waiting != nil {
				waiting()
				waiting = nil
			}
			if err := syscall.Flock(fd, syscall.LOCK_EX); err != nil {
				f.Close()
				return nil, fmt.Errorf("cannot lock %s: %w", path, err)
			}
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}

// lock keeps two commands from changing one cluster at the same time.
func (c *cluster) lock() (*os.File, error) {
	if err := makeBase(c.base); err != nil {
		return nil, err
	}
	return lockFile(c.lockPath(), func() { say("waiting for another command on the cluster %s to end …", c.Name) })
}

func (c *cluster) lockPath() string { return filepath.Join(c.base, "."+c.Name+".lock") }
