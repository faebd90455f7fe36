package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// node is what a server and an agent have in common: containerd, kubelet, kube-proxy and the pod network.
type node struct {
	*config
	*supervisor
	apiURL  string
	cluster clusterFacts
	servers func([]string) // told the addresses of all servers when they change
}

// startRuntime starts containerd and imports the images that lie on this host.
func (n *node) startRuntime() error {
	mirrors, err := registryConfig(n.flag("disable-default-registry-endpoint"))
	if err != nil {
		return err
	}
	for path, content := range map[string]string{containerdConfig: n.containerdConfig(mirrors), crictlConfig: "runtime-endpoint: unix://" + containerdSocket + "\n"} {
		if _, err := writeFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	for _, directory := range []string{containerdDir, imagesDir, cniConfigDir, podManifestsDir} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return err
		}
	}
	n.start("containerd", containerdLog, "--config="+containerdConfig)
	if err := n.until("containerd answers", 500*time.Millisecond, func() error {
		connection, err := net.Dial("unix", containerdSocket)
		if err == nil {
			connection.Close()
		}
		return err
	}); err != nil {
		return err
	}
	return n.importImages()
}

func (n *node) containerdConfig(registryAuth string) string {
	return fmt.Sprintf(`version = 3
root = %q
state = %q

[grpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q

[plugins."io.containerd.cri.v1.images".registry]
  config_path = %q
%s
[plugins."io.containerd.cri.v1.runtime"]
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  # Without CAP_SYS_RESOURCE, as on a host that is a container, lowering a score below its own is refused.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%q]
  conf_dir = %q

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
`, containerdDir, containerdState, containerdSocket, containerdDir, imageReference("pause"), containerdCertsDir, registryAuth, n.bin, cniConfigDir)
}

// startKubernetes starts kubelet, kube-proxy and the pod network.
func (n *node) startKubernetes() error {
	for name, certificate := range map[string]string{"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy", "k3scontroller": "client-k3s-controller"} {
		if err := writeKubeconfig(agentDir+"/"+name+".kubeconfig", n.apiURL, agentDir+"/server-ca.crt", agentDir+"/"+certificate); err != nil {
			return err
		}
	}
	defaults, err := n.kubeletConfig()
	if err != nil {
		return err
	}
	if _, err := writeFile(kubeletConfigDir+"/00-k3s-defaults.conf", defaults, 0o600); err != nil {
		return err
	}
	labels := append([]string{"node.kubernetes.io/instance-type=k3s"}, n.list("node-label")...)
	kubelet := []string{
		"config-dir=" + kubeletConfigDir, "kubeconfig=" + agentDir + "/kubelet.kubeconfig", "hostname-override=" + n.nodeName,
		"node-ip=" + n.nodeIP.String(), "node-labels=" + strings.Join(labels, ","),
	}
	if taints := n.list("node-taint"); len(taints) > 0 {
		kubelet = append(kubelet, "register-with-taints="+strings.Join(taints, ","))
	}
	n.start("kubelet", "", flags(n.options["kubelet-arg"], kubelet...)...)

	cluster, err := newAPI(n.apiURL, agentDir+"/server-ca.crt", agentDir+"/client-k3s-controller", "")
	if err != nil {
		return err
	}
	network := &network{node: n, api: cluster}
	n.start("kube-proxy", "", flags(n.options["kube-proxy-arg"],
		"kubeconfig="+agentDir+"/kubeproxy.kubeconfig", "hostname-override="+n.nodeName, "proxy-mode=nftables",
		"metrics-bind-address=127.0.0.1:10249", "healthz-bind-address=127.0.0.1:10256",
		// These sysctls belong to the kernel's owner, not to a host that is a container.
		"conntrack-max-per-core=0", "conntrack-min=0", "conntrack-tcp-timeout-established=0s", "conntrack-tcp-timeout-close-wait=0s",
		"oom-score-adj=0",
	)...)
	go network.run()
	return nil
}

func (n *node) kubeletConfig() ([]byte, error) {
	resolvConf, err := n.resolvConf()
	if err != nil {
		return nil, err
	}
	settings := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": "0.0.0.0", "readOnlyPort": 0, "healthzBindAddress": "127.0.0.1", "staticPodPath": podManifestsDir,
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true}, "x509": map[string]any{"clientCAFile": agentDir + "/client-ca.crt"}},
		"authorization":  map[string]any{"mode": "Webhook"},
		"tlsCertFile":    agentDir + "/serving-kubelet.crt", "tlsPrivateKeyFile": agentDir + "/serving-kubelet.key",
		"containerRuntimeEndpoint": "unix://" + containerdSocket, "cgroupDriver": "cgroupfs", "failCgroupV1": false, "failSwapOn": false,
		"oomScoreAdj": 0, // lowering it takes CAP_SYS_RESOURCE, which a host that is a container may lack
		"clusterDNS":  []string{n.cluster.DNS}, "clusterDomain": n.cluster.Domain, "resolvConf": resolvConf, "serializeImagePulls": false,
		"protectKernelDefaults": n.flag("protect-kernel-defaults"),
		// Every host of a lab sees the disk of the one machine below: shares of it say nothing about the host.
		"evictionHard":                map[string]string{"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
		"imageGCHighThresholdPercent": 100,
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text) // JSON is YAML
	encoder.SetIndent("", "  ")
	err = encoder.Encode(settings)
	return text.Bytes(), err
}

// resolvConf avoids a file that names only resolvers on this host's loopback: pods cannot reach those.
func (n *node) resolvConf() (string, error) {
	if configured := n.text("resolv-conf"); configured != "" {
		return configured, nil
	}
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			words := strings.Fields(line)
			if len(words) > 1 && words[0] == "nameserver" && !strings.HasPrefix(words[1], "127.") && words[1] != "::1" {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("no resolver that pods can reach in /etc/resolv.conf: name a file with one in resolv-conf")
}
