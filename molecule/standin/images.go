package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// importedFile remembers which archives were imported, by size and time of change.
const importedFile = imagesDir + "/.imported.json"

// importImages imports every archive in agent/images that is new or has changed.
func (n *node) importImages() error {
	imported, known := map[string]string{}, map[string]string{}
	if content, err := os.ReadFile(importedFile); err == nil {
		_ = json.Unmarshal(content, &known) // unreadable means nothing is known: all are imported again
	}
	entries, err := os.ReadDir(imagesDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(imagesDir, entry.Name()))
		if err != nil || !info.Mode().IsRegular() || !isArchive(entry.Name()) {
			continue
		}
		stamp := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
		if known[entry.Name()] != stamp {
			began := time.Now()
			if err := n.importArchive(filepath.Join(imagesDir, entry.Name())); err != nil {
				n.logf("import of %s failed: %v", entry.Name(), err) // one bad archive must not keep the node down
				continue
			}
			n.logf("imported %s in %.1f s", entry.Name(), time.Since(began).Seconds())
		}
		imported[entry.Name()] = stamp
	}
	content, err := json.Marshal(imported)
	if err != nil {
		return err
	}
	_, err = writeFile(importedFile, content, 0o600)
	return err
}

func isArchive(name string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// importArchive leaves decompression to ctr; the label keeps the kubelet from collecting what it could not fetch again.
func (n *node) importArchive(path string) error {
	return n.runTool(nil, "ctr", "--address="+containerdSocket, "--namespace=k8s.io", "images", "import",
		"--label=io.cri-containerd.pinned=pinned", path)
}
