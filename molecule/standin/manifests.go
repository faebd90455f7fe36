package main

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed manifests/*.yaml
var bundledManifests embed.FS

// Packaged components of k3s that `disable` may name; the stand-in brings only those that have a manifest.
var components = []string{"coredns", "local-storage", "metrics-server", "servicelb", "traefik"}

var placeholder = regexp.MustCompile(`%\{([A-Z_]+)(?::([a-z-]+))?\}%`)

// deployer applies server/manifests at start and whenever a file in it changes.
type deployer struct {
	*supervisor
	applied map[string][sha256.Size]byte
}

func newDeployer(cfg *config, sup *supervisor, cas authorities) (*deployer, error) {
	disabled := cfg.list("disable")
	for _, name := range disabled {
		if !slices.Contains(components, name) {
			return nil, fmt.Errorf("disable names %q, wanted some of %s", name, strings.Join(components, ", "))
		}
	}
	facts := clusterFactsOf(cfg, cas)
	values := map[string]string{
		"CLUSTER_CIDR": facts.PodRange, "CLUSTER_DNS": facts.DNS, "CLUSTER_DOMAIN": facts.Domain, "STORAGE_PATH": storageDir,
		"JOIN_GROUP": joinGroup, "CLIENT_CA": strings.Trim(strconv.Quote(facts.ClientCA), `"`),
	}
	files, err := fs.Glob(bundledManifests, "manifests/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := bundledManifests.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(file)
		target := filepath.Join(manifestsDir, name)
		if slices.Contains(disabled, strings.TrimSuffix(name, ".yaml")) {
			if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
				return nil, err
			}
			continue
		}
		text := placeholder.ReplaceAllStringFunc(string(content), func(found string) string {
			match := placeholder.FindStringSubmatch(found)
			if match[1] == "IMAGE" {
				return imageReference(match[2])
			}
			return values[match[1]]
		})
		if _, err := writeFile(target, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return &deployer{supervisor: sup, applied: map[string][sha256.Size]byte{}}, nil
}

// applyRoles applies what nodes need before they can join.
func (d *deployer) applyRoles() error {
	return d.apply(filepath.Join(manifestsDir, "rolebindings.yaml"))
}

func (d *deployer) run() {
	failed := map[string]string{}
	for ; d.ctx.Err() == nil; pause(d.ctx, 15*time.Second) {
		_ = filepath.WalkDir(manifestsDir, func(path string, entry fs.DirEntry, err error) error {
			extension := filepath.Ext(path)
			if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, extension) || exists(path+".skip") {
				return nil
			}
			if err := d.apply(path); err != nil && failed[path] != err.Error() {
				failed[path] = err.Error()
				d.logf("manifest %s: %v", path, err)
			}
			return nil
		})
	}
}

func (d *deployer) apply(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if d.applied[path] == sum {
		return nil
	}
	err = d.runTool(nil, "kubectl", "--kubeconfig="+credDir+"/supervisor.kubeconfig", "apply", "--server-side", "--force-conflicts", "--field-manager=k3s-deploy", "--filename="+path)
	if err != nil {
		return err
	}
	d.applied[path] = sum
	d.logf("applied %s", path)
	return nil
}
