package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	serverURL = "https://127.0.0.1:6443"
	// joinGroup is whom the API server takes the holder of the join token for.
	joinGroup = "system:bootstrappers:k3s:default-node-token"
)

// authorities are the cluster's CAs, under k3s' names.
type authorities struct{ server, client, header, etcdServer, etcdPeer *keyPair }

func runServer(cfg *config) error {
	bin, err := extractBundle()
	if err != nil {
		return err
	}
	if err := linkCurrentBundle(); err != nil {
		return err
	}
	mode, err := strconv.ParseUint(cfg.text("write-kubeconfig-mode"), 8, 32)
	if err != nil {
		return fmt.Errorf("write-kubeconfig-mode is %q, wanted an octal mode, for example 0600", cfg.text("write-kubeconfig-mode"))
	}
	cas, err := serverCertificates(cfg)
	if err != nil {
		return err
	}
	if cfg.token, err = serverToken(cfg, cas.server.pem); err != nil {
		return err
	}
	if err := serverKubeconfigs(cas, os.FileMode(mode)); err != nil {
		return err
	}
	admin, err := newAPI(serverURL, tlsDir+"/server-ca.crt", tlsDir+"/client-supervisor", "")
	if err != nil {
		return err
	}

	sup, cancel := newSupervisor(bin)
	defer cancel()
	defer sup.stopAll()
	sup.logf("version %s, node %s, address %s", version(), cfg.nodeName, cfg.nodeIP)
	if err := os.MkdirAll(etcdDir, 0o700); err != nil {
		return err
	}
	startEtcd(cfg, sup)
	startAPIServer(cfg, sup)
	self := &node{config: cfg, supervisor: sup, apiURL: serverURL, cluster: clusterFactsOf(cfg, cas)}
	// Images are unpacked while the control plane starts.
	runtimeReady := make(chan error, 1)
	go func() { runtimeReady <- self.startRuntime() }()
	if err := sup.until("the API answers on /readyz", time.Second, admin.ready); err != nil {
		return stopped(sup, err)
	}
	for _, component := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := releaseLock(admin, component); err != nil {
			sup.logf("lock of %s: %v", component, err) // then it waits until the lock runs out
		}
	}
	startControllers(cfg, sup)
	deployer, err := newDeployer(cfg, sup, cas)
	if err != nil {
		return err
	}
	if err := sup.until("the API has the roles of nodes", 2*time.Second, deployer.applyRoles); err != nil {
		return stopped(sup, err)
	}
	go (&approver{api: admin, log: sup.logf, seen: map[string]bool{}}).run(sup.ctx)
	if err := <-runtimeReady; err != nil {
		return stopped(sup, err)
	}
	if err := self.startKubernetes(); err != nil {
		return err
	}
	go deployer.run()
	if err := sup.until("the node is registered", time.Second, func() error { return labelServer(admin, cfg) }); err != nil {
		return stopped(sup, err)
	}
	notify("READY=1\nSTATUS=running")
	sup.logf("k3s is up and running")
	<-sup.ctx.Done()
	return nil
}

// releaseLock drops the leader's lock when its holder was on this host: that process is gone, and waiting for the lock
// to run out would leave the cluster without controllers after every restart.
func releaseLock(admin *api, component string) error {
	path := "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + component
	var lease struct {
		Spec struct {
			HolderIdentity string `json:"holderIdentity"`
		} `json:"spec"`
	}
	var answer *apiError
	if err := admin.get(path, &lease); errors.As(err, &answer) && answer.status == http.StatusNotFound {
		return nil
	} else if err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil || !strings.HasPrefix(lease.Spec.HolderIdentity, hostname+"_") {
		return err
	}
	return admin.do(http.MethodDelete, path, "application/json", nil, nil)
}

// stopped turns an error that only says that the unit was asked to stop into success.
func stopped(sup *supervisor, err error) error {
	if sup.ctx.Err() != nil {
		return nil
	}
	return err
}

func serverCertificates(cfg *config) (cas authorities, err error) {
	for _, ca := range []struct {
		into **keyPair
		name string
	}{
		{&cas.server, "server-ca"}, {&cas.client, "client-ca"}, {&cas.header, "request-header-ca"},
		{&cas.etcdServer, "etcd/server-ca"}, {&cas.etcdPeer, "etcd/peer-ca"},
	} {
		if *ca.into, err = ensureCA(tlsDir+"/"+ca.name, "k3s-"+ca.name); err != nil {
			return cas, err
		}
	}
	domain, ip := cfg.text("cluster-domain"), cfg.nodeIP.String()
	hosts := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		"localhost", cfg.nodeName, "127.0.0.1", ip, cfg.serviceAddress(1).String()}, cfg.list("tls-san")...)
	etcdHosts := []string{"localhost", cfg.nodeName, "127.0.0.1", ip}
	leaves := map[*keyPair][]leaf{
		cas.server: {
			{file: "serving-kube-apiserver", name: "kube-apiserver", hosts: hosts, withRoot: true},
			servingKubelet(cfg),
		},
		cas.client: {
			{file: "client-admin", name: "system:admin", groups: []string{"system:masters"}},
			{file: "client-supervisor", name: "system:k3s-supervisor", groups: []string{"system:masters"}},
			{file: "client-controller", name: "system:kube-controller-manager"},
			{file: "client-scheduler", name: "system:kube-scheduler"},
			{file: "client-kube-apiserver", name: "system:apiserver", groups: []string{"system:masters"}},
		},
		cas.header:     {{file: "client-auth-proxy", name: "system:auth-proxy"}},
		cas.etcdServer: {{file: "etcd/client", name: "etcd-client"}, {file: "etcd/server-client", name: "etcd-server", hosts: etcdHosts, client: true}},
		cas.etcdPeer:   {{file: "etcd/peer-server-client", name: "etcd-peer", hosts: etcdHosts, client: true}},
	}
	leaves[cas.client] = append(leaves[cas.client], nodeClients(cfg)...)
	for authority, list := range leaves {
		for _, l := range list {
			l.file = tlsDir + "/" + l.file
			if err := ensureLeaf(authority, l); err != nil {
				return cas, fmt.Errorf("certificate %s: %w", l.file, err)
			}
		}
	}
	if !exists(tlsDir + "/service.key") {
		_, key, err := newKey()
		if err != nil {
			return cas, err
		}
		if _, err := writeFile(tlsDir+"/service.key", key, 0o600); err != nil {
			return cas, err
		}
	}
	return cas, serverNodeFiles()
}

// serverNodeFiles puts the server's own node certificates where every node has them.
func serverNodeFiles() error {
	for _, name := range []string{"client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller", "server-ca", "client-ca"} {
		for _, suffix := range []string{".crt", ".key"} {
			if suffix == ".key" && (name == "server-ca" || name == "client-ca") {
				continue
			}
			content, err := os.ReadFile(tlsDir + "/" + name + suffix)
			if err != nil {
				return err
			}
			if _, err := writeFile(agentDir+"/"+name+suffix, content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func serverKubeconfigs(cas authorities, mode os.FileMode) error {
	for name, certificate := range map[string]string{"admin": "client-admin", "controller": "client-controller", "scheduler": "client-scheduler", "supervisor": "client-supervisor"} {
		if err := writeKubeconfig(credDir+"/"+name+".kubeconfig", serverURL, tlsDir+"/server-ca.crt", tlsDir+"/"+certificate); err != nil {
			return err
		}
	}
	certificate, err := os.ReadFile(tlsDir + "/client-admin.crt")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(tlsDir + "/client-admin.key")
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	_, err = writeFile(adminKubeconfig, fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: %s
    client-key-data: %s
`, encode(cas.server.pem), serverURL, encode(certificate), encode(key)), mode)
	return err
}

// labelServer marks this node as k3s marks a server with embedded etcd.
func labelServer(admin *api, cfg *config) error {
	path := "/api/v1/nodes/" + cfg.nodeName
	labels := map[string]string{"node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/etcd": "true"}
	patch := map[string]any{"metadata": map[string]any{"labels": labels}}
	if err := admin.do(http.MethodPatch, path, "application/merge-patch+json", patch, nil); err != nil {
		var answer *apiError
		if errors.As(err, &answer) && answer.status == http.StatusNotFound {
			return errors.New("kubelet has not registered it")
		}
		return err
	}
	now := time.Now().UTC().Format(time.RFC3339)
	voter := map[string]string{"type": "EtcdIsVoter", "status": "True", "reason": "MemberNotLearner", "message": "Node is a voting member of the etcd cluster",
		"lastHeartbeatTime": now, "lastTransitionTime": now}
	status := map[string]any{"status": map[string]any{"conditions": []any{voter}}}
	return admin.do(http.MethodPatch, path+"/status", "application/strategic-merge-patch+json", status, nil)
}
