// The two images that every node has from the start, written as an OCI archive without any tool: the pause image of
// pod sandboxes and localhost/busybox:dev for tests. Both are the machine's static busybox. Loading is load.go's.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	pauseImage   = "localhost/trainyard/pause:1"
	busyboxImage = "localhost/busybox:dev"
)

// baseImages is the archive's place in the cache; its name changes with the busybox it was made from.
func (c *cluster) baseImages() string {
	key := "none"
	if path, err := exec.LookPath("busybox"); err == nil {
		if info, err := os.Stat(path); err == nil {
			key = fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, imageFormat, info.Size(), info.ModTime().UnixNano())))[:12]
		}
	}
	return filepath.Join(c.cache, "images", "base-"+key+".tar")
}

const imageFormat = "4" // change it when the images' content changes

func (c *cluster) makeBaseImages() error {
	path := c.baseImages()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox is missing: %w", err)
	}
	return step("made the pause and busybox images", func() error {
		program, err := os.ReadFile(busybox)
		if err != nil {
			return err
		}
		applets, err := output("", busybox, "--list")
		if err != nil {
			return err
		}
		archive, err := imageArchive(program, strings.Fields(applets))
		if err != nil {
			return err
		}
		return writeFile(path, archive, 0o644)
	})
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// imageArchive makes an OCI archive with both images, which share their one layer.
func imageArchive(busybox []byte, applets []string) ([]byte, error) {
	layer, err := busyboxLayer(busybox, applets)
	if err != nil {
		return nil, err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(layer)
	if err := z.Close(); err != nil {
		return nil, err
	}
	blobs := map[string][]byte{}
	add := func(kind string, data []byte) descriptor {
		digest := fmt.Sprintf("%x", sha256.Sum256(data))
		blobs["blobs/sha256/"+digest] = data
		return descriptor{MediaType: "application/vnd.oci.image." + kind, Digest: "sha256:" + digest, Size: len(data)}
	}
	layerBlob := add("layer.v1.tar+gzip", zipped.Bytes())
	index := []descriptor{}
	for _, image := range []struct {
		name string
		cmd  []string
	}{{pauseImage, []string{"/bin/sleep", "2147483647"}}, {busyboxImage, []string{"/bin/sh"}}} {
		config, _ := json.Marshal(object{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": object{"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": image.cmd},
			"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		})
		manifest, _ := json.Marshal(object{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": add("config.v1+json", config), "layers": []descriptor{layerBlob},
		})
		d := add("manifest.v1+json", manifest)
		d.Annotations = map[string]string{"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
		index = append(index, d)
	}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"], _ = json.Marshal(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index})

	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range sortedKeys(blobs) {
		if err := addFile(w, name, 0o644, blobs[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // before the bytes are taken: it writes the archive's end
		return nil, err
	}
	return out.Bytes(), nil
}

func addFile(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// busyboxLayer is a root file system: busybox, a link for each of its applets, and what programs expect to find.
func busyboxLayer(busybox []byte, applets []string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, d := range []struct {
		name string
		mode int64
	}{{"bin/", 0o755}, {"etc/", 0o755}, {"home/", 0o755}, {"proc/", 0o755}, {"root/", 0o700}, {"sys/", 0o755}, {"dev/", 0o755},
		{"tmp/", 0o1777}, {"usr/", 0o755}, {"var/", 0o755}, {"var/tmp/", 0o1777}} {
		if err := w.WriteHeader(&tar.Header{Name: d.name, Mode: d.mode, Typeflag: tar.TypeDir}); err != nil {
			return nil, err
		}
	}
	for _, l := range [][2]string{{"usr/bin", "../bin"}, {"sbin", "bin"}} {
		if err := w.WriteHeader(&tar.Header{Name: l[0], Linkname: l[1], Mode: 0o777, Typeflag: tar.TypeSymlink}); err != nil {
			return nil, err
		}
	}
	if err := addFile(w, "bin/busybox", 0o755, busybox); err != nil {
		return nil, err
	}
	for _, a := range applets {
		if a == "busybox" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + a, Linkname: "busybox", Mode: 0o777, Typeflag: tar.TypeSymlink}); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
		"etc/group":         "root:x:0:\nnobody:x:65534:\n",
		"etc/nsswitch.conf": "hosts: files dns\n",
	}
	for _, name := range sortedKeys(files) {
		if err := addFile(w, name, 0o644, []byte(files[name])); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // before the bytes are taken: it writes the archive's end
		return nil, err
	}
	return out.Bytes(), nil
}
