// Loading image archives into the nodes' containerd, and knowing when that was done before.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// archiveContent returns a key of an archive's content and the digests of its images. An OCI archive's index names
// everything in it by digest, so that reading the index (a seek) will do; any other archive is hashed as a whole.
func archiveContent(path string) (key string, digests []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the image archive: %w", err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			break // the end, or no plain tar
		}
		if filepath.Clean(h.Name) != "index.json" || h.Size > 1<<20 {
			continue
		}
		data, err := io.ReadAll(r)
		var index struct{ Manifests []descriptor }
		if err != nil || json.Unmarshal(data, &index) != nil {
			break
		}
		for _, m := range index.Manifests {
			digests = append(digests, m.Digest)
		}
		return fmt.Sprintf("%x", sha256.Sum256(data)), digests, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", nil, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", nil, fmt.Errorf("cannot read the image archive %s: %w", path, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil, nil
}

// ctr runs containerd's client in a node.
func (c *cluster) ctr(n *node, stdin io.Reader, args ...string) (string, error) {
	pid := c.running(n.name)
	if pid == 0 {
		return "", fmt.Errorf("%s does not run; `cluster up` starts it", n.name)
	}
	cmd := exec.Command(c.mustTool("ctr"), append([]string{"--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = stdin, &out, &errs, "/"
	cmd.Env = append(os.Environ(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=true") // of cgroups of version 1
	if err := inNamespaces(pid, cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("`ctr %s` on %s failed (%v): %s", strings.Join(args, " "), n.name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// loadImage loads an archive into a node unless the same content is there.
func (c *cluster) loadImage(n *node, archive string, tell bool) error {
	begun := time.Now()
	key, digests, err := archiveContent(archive)
	if err != nil {
		return err
	}
	note := n.file("loaded", key)
	if names, err := os.ReadFile(note); err == nil {
		have, err := c.ctr(n, nil, "images", "list")
		if err != nil {
			return err
		}
		if allIn(have, strings.Fields(string(names))) && allIn(have, digests) {
			if tell {
				say("✓ %s is on %s already", filepath.Base(archive), n.name)
			}
			return nil
		}
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := decompressed(f)
	if err != nil {
		return fmt.Errorf("cannot read the image archive %s: %w", archive, err)
	}
	// Through stdin: the node does not see every folder of the host.
	out, err := c.ctr(n, plain, "images", "import", "--local", "-")
	if err != nil && strings.Contains(err.Error(), "archive/tar") {
		return fmt.Errorf("%s is no image archive; an OCI or docker archive, plain or gzipped, is one", archive)
	}
	if err != nil {
		return fmt.Errorf("loading %s: %w", archive, err)
	}
	names := importedNames(out)
	if len(names) == 0 {
		return errors.New("the archive " + archive + " holds no image with a name; give it one (`buildah push IMAGE oci-archive:FILE:localhost/NAME:TAG`)")
	}
	if tell {
		say("✓ loaded %s into %s in %s", strings.Join(names, ", "), n.name, seconds(time.Since(begun)))
	}
	return writeFile(note, []byte(strings.Join(names, "\n")+"\n"), 0o644)
}

// decompressed looks for gzip's first two bytes.
func decompressed(f io.Reader) (io.Reader, error) {
	r := bufio.NewReader(f)
	if first, err := r.Peek(2); err == nil && first[0] == 0x1f && first[1] == 0x8b {
		return gzip.NewReader(r)
	}
	return r, nil
}

// importedNames reads what ctr printed: lines with an image's name first.
func importedNames(out string) []string {
	names := []string{}
	for line := range strings.Lines(out) {
		for _, word := range strings.Fields(line) {
			if strings.Contains(word, "/") && strings.Contains(word, ":") && !slices.Contains(names, word) {
				names = append(names, word)
			}
		}
	}
	return names
}

func allIn(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
