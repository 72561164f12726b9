// Starting, finding, waiting for and ending processes. It knows nothing of what they are.
//
// A process is ours only where the environment it was started with carries this cluster's mark; a pid file is a
// hint. So a reused pid is never killed, and a process whose pid file was lost is still found.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const markVariable = "TRAINYARD_PROCESS"

// component is one process of the cluster.
type component struct {
	name    string // etcd, or node-1/kubelet
	path    string
	args    []string
	node    *node // the node whose namespaces it runs in, nil: the host's
	flags   uintptr
	address string
	before  func() error // what must be done before it is launched
	healthy func() error
	timeout time.Duration
}

type pidFile struct {
	PID     int       `json:"pid"`
	Start   string    `json:"start"` // field 22 of /proc/PID/stat
	Started time.Time `json:"started"`
}

func (c *cluster) mark(name string) string { return markVariable + "=" + c.dir + ":" + name }

func flat(name string) string                 { return strings.ReplaceAll(name, "/", "-") }
func (c *cluster) pidPath(name string) string { return c.file("pids", flat(name)+".json") }
func (c *cluster) logPath(name string) string { return c.file("logs", flat(name)+".log") }
func (c *cluster) environment(n string) []string {
	return []string{"PATH=" + c.searchPath(), "HOME=" + c.dir, "LANG=C.UTF-8", c.mark(n)}
}

// statOf reads a process's state letter and start time; ok is false where there is no such process.
func statOf(pid int) (letter byte, start string, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", false
	}
	i := bytes.LastIndexByte(data, ')')
	f := strings.Fields(string(data[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, "", false
	}
	return f[0][0], f[19], true
}

// running returns the pid of a component that runs, or 0.
func (c *cluster) running(name string) int {
	p := c.pidOf(name)
	letter, start, ok := statOf(p.PID)
	if p.PID == 0 || !ok || letter == 'Z' || letter == 'X' || start != p.Start {
		return 0
	}
	return p.PID
}

func (c *cluster) pidOf(name string) (p pidFile) {
	if data, err := os.ReadFile(c.pidPath(name)); err == nil {
		json.Unmarshal(data, &p)
	}
	return p
}

// marked finds all processes whose environment carries a mark that ok accepts: pid → component.
func (c *cluster) marked(ok func(name string) bool) map[int]string {
	found := map[int]string{}
	dirs, _ := os.ReadDir("/proc")
	prefix := []byte(c.mark(""))
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + d.Name() + "/environ")
		if err != nil || !bytes.Contains(env, prefix) {
			continue
		}
		for _, v := range bytes.Split(env, []byte{0}) {
			if name, is := bytes.CutPrefix(v, prefix); is && ok(string(name)) {
				found[pid] = string(name)
			}
		}
	}
	return found
}

// kill ends a component at once and waits until it is gone. What it started (containerd's shims, a kubelet's mounts)
// carries its mark too and lives on, so the program's name must fit as well.
func (c *cluster) kill(name string) error {
	program := filepath.Base(name)
	if c.isNode(name) {
		program = "cluster"
	}
	err := killAll(func() map[int]string {
		pids := c.marked(func(n string) bool { return n == name })
		for pid := range pids {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			if err != nil || strings.TrimSuffix(filepath.Base(exe), " (deleted)") != program {
				delete(pids, pid)
			}
		}
		return pids
	})
	if err == nil {
		os.Remove(c.pidPath(name))
	}
	return err
}

// killAll sends SIGKILL to what find returns until it returns nothing.
func killAll(find func() map[int]string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids := find()
		live := []string{}
		for pid, name := range pids {
			if letter, _, ok := statOf(pid); !ok || letter == 'Z' || letter == 'X' {
				continue
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); errors.Is(err, syscall.EPERM) {
				return fmt.Errorf("may not end %s (process %d), which another user started; run the command as that user or as root", name, pid)
			}
			live = append(live, fmt.Sprintf("%s (%d)", name, pid))
		}
		if len(live) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			sort.Strings(live)
			return fmt.Errorf("these processes do not end although they were killed: %s; they hang in the kernel, look at `cat /proc/PID/stack`", strings.Join(live, ", "))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// start starts a component unless it runs, and waits until it is healthy. One that was just dying when it was looked
// at is started anew.
func (c *cluster) start(p *component) error {
	begun := time.Now()
	if c.running(p.name) != 0 {
		err := c.await(p, nil)
		if err == nil || c.running(p.name) != 0 {
			return err
		}
	}
	if err := c.kill(p.name); err != nil {
		return err
	}
	if p.before != nil {
		if err := p.before(); err != nil {
			return err
		}
	}
	exited, err := c.launch(p)
	if err != nil {
		return err
	}
	if err := c.await(p, exited); err != nil {
		return err
	}
	say("✓ %s ready in %s", p.name, seconds(time.Since(begun)))
	return nil
}

// launch starts the process, detached from this one, with its log in a file.
func (c *cluster) launch(p *component) (chan error, error) {
	log := c.logPath(p.name)
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log of %s: %w", p.name, err)
	}
	defer out.Close()
	fmt.Fprintf(out, "---- %s %s %s\n", time.Now().UTC().Format(time.RFC3339), p.path, strings.Join(p.args, " "))
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", c.environment(p.name), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: p.flags}
	launch := cmd.Start
	if p.node != nil {
		pid := c.running(p.node.name)
		if pid == 0 {
			return nil, fmt.Errorf("cannot start %s: its node %s does not run; `cluster up` starts it", p.name, p.node.name)
		}
		launch = func() error { return inNamespaces(pid, cmd.Start) }
	}
	if err := launch(); err != nil {
		return nil, fmt.Errorf("cannot start %s (%s): %w", p.name, p.path, err)
	}
	_, start, _ := statOf(cmd.Process.Pid)
	data, _ := json.Marshal(pidFile{PID: cmd.Process.Pid, Start: start, Started: time.Now().UTC()})
	if err := writeFile(c.pidPath(p.name), data, 0o644); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("cannot write the pid file of %s: %w", p.name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	awaitEnvironment(cmd.Process.Pid)
	return exited, nil
}

// awaitEnvironment waits until the kernel shows the environment of a process just started. Start returns when exec
// has closed the parent's files, which is before the new program's environment is in place: until then the process
// shows an empty one, and whoever looks for its mark does not find it.
func awaitEnvironment(pid int) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || len(env) > 0 {
			return
		}
		if letter, _, ok := statOf(pid); !ok || letter == 'Z' {
			return
		}
	}
}

// await polls a component's health. Its end, or too long a wait, is an error with the last lines of its log.
func (c *cluster) await(p *component, exited chan error) error {
	if p.healthy == nil {
		return nil
	}
	timeout := p.timeout
	if timeout == 0 {
		timeout = 60 * time.Second
	}
	deadline := time.Now().Add(timeout)
	var last error
	for time.Now().Before(deadline) {
		if last = p.healthy(); last == nil {
			return nil
		}
		if err := needSpace(c.dir, 8<<20, "for "+p.name); err != nil {
			return err // a full disk shows as anything but a full disk in the component's log
		}
		select {
		case err := <-exited:
			return c.failure(p, fmt.Sprintf("%s ended while it started (%s)", p.name, exitText(err)))
		case <-time.After(25 * time.Millisecond):
		}
		if exited == nil && c.running(p.name) == 0 {
			return c.failure(p, p.name+" ended")
		}
	}
	return c.failure(p, fmt.Sprintf("%s was not healthy within %s (%v)", p.name, seconds(timeout), last))
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (c *cluster) failure(p *component, what string) error {
	return fmt.Errorf("%s; the end of its log, %s, says:\n%s", what, c.logPath(p.name), lastLines(c.logPath(p.name), 12))
}

func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 16384 {
		f.Seek(-16384, 2)
	}
	buf := make([]byte, 16384)
	k := 0
	for k < len(buf) {
		m, err := f.Read(buf[k:])
		k += m
		if err != nil {
			break
		}
	}
	lines := strings.Split(strings.TrimRight(string(buf[:k]), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	for i, l := range lines {
		if len(l) > 400 {
			l = l[:400] + " …"
		}
		lines[i] = "  " + l
	}
	return strings.Join(lines, "\n")
}

// httpHealthy makes a health check of a URL that must answer 200.
func httpHealthy(client *http.Client, url string) func() error {
	return func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, r.Status)
		}
		return nil
	}
}

// output runs a short command and returns what it printed; its own words are in the error.
func output(stdin string, path string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("`%s %s` failed (%v): %s", filepath.Base(path), strings.Join(args, " "), err, strings.TrimSpace(errs.String()+stdinNote(stdin)))
	}
	return out.String(), nil
}

func stdinNote(s string) string {
	if s == "" {
		return ""
	}
	return " (given: " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") + ")"
}
