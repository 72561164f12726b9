// What people see: one line a step with its time, on stderr, and errors as one sentence. Results that scripts read
// (a path, a table) go to stdout and are printed by the commands themselves.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

var uiLock sync.Mutex

// say prints one progress line.
func say(format string, args ...any) {
	uiLock.Lock()
	defer uiLock.Unlock()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func seconds(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// step runs f and prints what was done and how long it took.
func step(what string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return err
	}
	say("✓ %s in %s", what, seconds(time.Since(start)))
	return nil
}

// sentence turns an error into what main prints: a full disk has one clear sentence of its own, wherever it showed.
func sentence(err error) string {
	text := err.Error()
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(text, "no space left on device") || strings.Contains(text, "disk quota exceeded") {
		return "the disk is full (" + firstLine(text) + "); free some space and run the same command again."
	}
	return text
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// parallel runs all functions at once and returns the first error, after all have ended.
func parallel(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
