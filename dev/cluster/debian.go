// What the cluster needs from the system: programs, installed from Debian where they are missing, and root.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A program and the package that has it.
var systemPrograms = [][2]string{
	{"runc", "runc"}, {"iptables", "iptables"}, {"ip", "iproute2"}, {"nsenter", "util-linux"}, {"mount", "mount"}, {"busybox", "busybox-static"},
}

func missingPackages(have func(program string) bool) []string {
	missing := []string{}
	for _, p := range systemPrograms {
		if !have(p[0]) && !slices.Contains(missing, p[1]) {
			missing = append(missing, p[1])
		}
	}
	return missing
}

// haveProgram looks for a program; a busybox that is linked dynamically does not count, for images are made of it.
func haveProgram(name string) bool {
	path, err := exec.LookPath(name)
	if err != nil || name != "busybox" {
		return err == nil
	}
	data, err := os.ReadFile(path)
	return err == nil && !bytes.Contains(data[:min(len(data), 4096)], []byte("/ld-"))
}

func needRoot(what string) error {
	if isRoot() {
		return nil
	}
	return fmt.Errorf("%s needs root (network namespaces, cgroups, containers); run it as root or with sudo, or use `cluster up --control-plane`, which needs none", what)
}

// installPackages installs what is missing.
func installPackages() error {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/bin:/bin")
	missing := missingPackages(haveProgram)
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("these packages are missing, and this machine has no apt-get to install them with: %s; install them with the machine's own package manager", list)
	}
	install := func() error {
		cmd := exec.Command(apt, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return errors.New(strings.TrimSpace(string(out)))
		}
		return nil
	}
	return step("installed "+list+" from Debian", func() error {
		say("  installing %s …", list)
		if install() == nil {
			return nil
		}
		if out, err := exec.Command(apt, "update", "-qq").CombinedOutput(); err != nil {
			return fmt.Errorf("`apt-get update` failed, so %s cannot be installed: %s", list, lastLine(string(out)))
		}
		if err := install(); err != nil {
			return fmt.Errorf("`apt-get install %s` failed: %s", list, lastLine(err.Error()))
		}
		return nil
	})
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
