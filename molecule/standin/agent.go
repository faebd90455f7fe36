package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"
)

func runAgent(cfg *config) error {
	bin, err := extractBundle()
	if err != nil {
		return err
	}
	if err := linkCurrentBundle(); err != nil {
		return err
	}
	sup, cancel := newSupervisor(bin)
	defer cancel()
	defer sup.stopAll()
	sup.logf("version %s, node %s, address %s, server %s", version(), cfg.nodeName, cfg.nodeIP, cfg.server)

	target, err := url.Parse(cfg.server)
	if err != nil {
		return err
	}
	balancer, err := newBalancer(sup, target.Host)
	if err != nil {
		return err
	}
	self := &node{config: cfg, supervisor: sup, apiURL: balancer.url(), servers: balancer.update}
	// Images are unpacked while the node asks for its certificates.
	runtimeReady := make(chan error, 1)
	go func() { runtimeReady <- self.startRuntime() }()
	if err := self.join(); err != nil {
		return stopped(sup, err)
	}
	if err := <-runtimeReady; err != nil {
		return stopped(sup, err)
	}
	if err := self.startKubernetes(); err != nil {
		return err
	}
	kubelet, err := newAPI(self.apiURL, agentDir+"/server-ca.crt", agentDir+"/client-kubelet", "")
	if err != nil {
		return err
	}
	registered := func() error { return kubelet.get("/api/v1/nodes/"+cfg.nodeName, nil) }
	if err := sup.until("the node is registered", time.Second, registered); err != nil {
		return stopped(sup, err)
	}
	notify("READY=1\nSTATUS=running")
	sup.logf("k3s agent is up and running")
	<-sup.ctx.Done()
	return nil
}

// join learns what the cluster is and gets this node's certificates. A refusal ends it; an absent server is waited for.
func (n *node) join() error {
	if err := n.until("the server shows its CA", 2*time.Second, n.trustServer); err != nil {
		return err
	}
	return n.until("the server knows this node", 2*time.Second, n.introduce)
}

func (n *node) trustServer() error {
	ca, err := serverCA(n.server, n.token)
	if err != nil {
		return err
	}
	_, err = writeFile(agentDir+"/server-ca.crt", ca, 0o600)
	return err
}

func (n *node) introduce() error {
	joiner, err := newAPI(n.apiURL, agentDir+"/server-ca.crt", "", n.token.secret)
	if err != nil {
		return err
	}
	if n.cluster, err = joiner.clusterFacts(); err != nil {
		return err
	}
	if _, err := writeFile(agentDir+"/client-ca.crt", []byte(n.cluster.ClientCA), 0o600); err != nil {
		return err
	}
	serverAuthority, err := readCertificate(agentDir + "/server-ca.crt")
	if err != nil {
		return err
	}
	clientAuthority, err := readCertificate(agentDir + "/client-ca.crt")
	if err != nil {
		return err
	}
	return joiner.joinCertificates(n.config, serverAuthority, clientAuthority)
}

func readCertificate(path string) (*x509.Certificate, error) {
	block, _ := pem.Decode(readOrEmpty(path))
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}
