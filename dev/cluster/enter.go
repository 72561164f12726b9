// Starting a process inside a node's namespaces, from a thread of this program that enters them first.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

var setnsNumber = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// inNamespaces runs f on a thread that is in all namespaces of a process; what f starts is in them as well.
// The thread is thrown away afterwards. Files that f needs from the host must be open before.
func inNamespaces(pid int, f func() error) error {
	if setnsNumber == 0 {
		return fmt.Errorf("entering namespaces is not written for %s", runtime.GOARCH)
	}
	files := []*os.File{}
	for _, ns := range []string{"pid", "net", "uts", "ipc", "mnt"} { // mnt last: the others are opened through /proc
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err != nil {
			return err
		}
		defer file.Close()
		files = append(files, file)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the runtime ends this thread with the goroutine
		done <- func() error {
			if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			for _, file := range files {
				if _, _, errno := syscall.RawSyscall(setnsNumber, file.Fd(), 0, 0); errno != 0 {
					return fmt.Errorf("entering %s: %w", file.Name(), errno)
				}
			}
			return f()
		}()
	}()
	return <-done
}
