package main

import (
	"bytes"
	"os"
	"path/filepath"
)

// The layout of the official release.
const (
	configFile         = "/etc/rancher/k3s/config.yaml"
	registriesFile     = "/etc/rancher/k3s/registries.yaml"
	adminKubeconfig    = "/etc/rancher/k3s/k3s.yaml"
	dataDir            = "/var/lib/rancher/k3s"
	bundleDir          = dataDir + "/data"
	storageDir         = dataDir + "/storage"
	serverDir          = dataDir + "/server"
	tlsDir             = serverDir + "/tls"
	credDir            = serverDir + "/cred"
	manifestsDir       = serverDir + "/manifests"
	etcdDir            = serverDir + "/db/etcd"
	serverTokenFile    = serverDir + "/token"
	agentDir           = dataDir + "/agent"
	imagesDir          = agentDir + "/images"
	containerdDir      = agentDir + "/containerd"
	containerdConfig   = agentDir + "/etc/containerd/config.toml"
	containerdCertsDir = agentDir + "/etc/containerd/certs.d"
	containerdLog      = containerdDir + "/containerd.log"
	containerdSocket   = "/run/k3s/containerd/containerd.sock"
	containerdState    = "/run/k3s/containerd"
	crictlConfig       = agentDir + "/etc/crictl.yaml"
	cniConfigDir       = agentDir + "/etc/cni/net.d"
	kubeletConfigDir   = agentDir + "/etc/kubelet.conf.d"
	podManifestsDir    = agentDir + "/pod-manifests"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// writeFile replaces path in one step, creates its directory, and says whether the content is new.
func writeFile(path string, content []byte, mode os.FileMode) (bool, error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return false, os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return false, err
	}
	if err := os.Chmod(next, mode); err != nil { // WriteFile keeps the mode of a file that was there
		return false, err
	}
	return true, os.Rename(next, path)
}

func readOrEmpty(path string) []byte {
	content, _ := os.ReadFile(path)
	return content
}
