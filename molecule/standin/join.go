package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	factsPath   = "/api/v1/namespaces/kube-system/configmaps/k3s-cluster"
	requestPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

	signerKubelet = "kubernetes.io/kube-apiserver-client-kubelet"
	signerServing = "kubernetes.io/kubelet-serving"
	signerClient  = "kubernetes.io/kube-apiserver-client"
)

// clusterFacts is what a joining node has to know of the cluster; the server keeps them in a ConfigMap.
type clusterFacts struct{ PodRange, DNS, Domain, ClientCA string }

func clusterFactsOf(cfg *config, cas authorities) clusterFacts {
	return clusterFacts{PodRange: cfg.text("cluster-cidr"), DNS: cfg.clusterDNS(), Domain: cfg.text("cluster-domain"), ClientCA: string(cas.client.pem)}
}

func servingKubelet(cfg *config) leaf {
	return leaf{file: "serving-kubelet", name: "system:node:" + cfg.nodeName, groups: []string{"system:nodes"}, hosts: []string{cfg.nodeName, "localhost", "127.0.0.1", cfg.nodeIP.String()}}
}

func nodeClients(cfg *config) []leaf {
	return []leaf{
		{file: "client-kubelet", name: "system:node:" + cfg.nodeName, groups: []string{"system:nodes"}},
		{file: "client-kube-proxy", name: "system:kube-proxy"},
		{file: "client-k3s-controller", name: "system:k3s-controller"},
	}
}

// serverCA takes the CA that the server shows and holds it against the token before anything secret is sent.
func serverCA(server string, wanted token) ([]byte, error) {
	target, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}} // checked below
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	connection, err := dialer.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	chain := connection.(*tls.Conn).ConnectionState().PeerCertificates
	root := chain[len(chain)-1]
	text := pemCertificate(root.Raw)
	if found := caHash(text); wanted.caHash != "" && found != wanted.caHash {
		return nil, fmt.Errorf("%w: token CA hash does not match the Cluster CA certificate hash: %s != %s", errRefused, wanted.caHash, found)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: target.Hostname()}); err != nil {
		return nil, fmt.Errorf("%w: certificate of %s: %w (is the address in tls-san of the server?)", errRefused, server, err)
	}
	return text, nil
}

func (a *api) clusterFacts() (facts clusterFacts, err error) {
	var found struct {
		Data map[string]string `json:"data"`
	}
	if err := a.get(factsPath, &found); err != nil {
		var answer *apiError
		if errors.As(err, &answer) && answer.status == http.StatusUnauthorized {
			return facts, fmt.Errorf("%w: the server does not accept this token (401 Unauthorized), wanted the content of %s on the server", errRefused, serverTokenFile)
		}
		return facts, err
	}
	data := found.Data
	return clusterFacts{PodRange: data["podRange"], DNS: data["dns"], Domain: data["domain"], ClientCA: data["clientCA"]}, nil
}

// joinCertificates asks the cluster for every certificate of this node that is missing or about to end.
func (a *api) joinCertificates(cfg *config, serverCA, clientCA *x509.Certificate) error {
	for _, l := range append(nodeClients(cfg), servingKubelet(cfg)) {
		authority, signer := clientCA, signerClient
		switch l.file {
		case "client-kubelet":
			signer = signerKubelet
		case "serving-kubelet":
			authority, signer = serverCA, signerServing
		}
		l.file = agentDir + "/" + l.file
		if l.current(authority) {
			continue
		}
		if err := a.requestCertificate(cfg.nodeName, signer, l); err != nil {
			return fmt.Errorf("certificate %s: %w", l.file, err)
		}
	}
	return nil
}

type signingRequest struct {
	APIVersion string         `json:"apiVersion,omitempty"`
	Kind       string         `json:"kind,omitempty"`
	Metadata   map[string]any `json:"metadata"`
	Spec       struct {
		Request    []byte   `json:"request"`
		SignerName string   `json:"signerName"`
		Usages     []string `json:"usages"`
		Username   string   `json:"username,omitempty"`
		Groups     []string `json:"groups,omitempty"`
	} `json:"spec"`
	Status struct {
		Certificate []byte              `json:"certificate,omitempty"`
		Conditions  []map[string]string `json:"conditions,omitempty"`
	} `json:"status"`
}

func (a *api) requestCertificate(node, signer string, l leaf) error {
	key, keyText, err := newKey()
	if err != nil {
		return err
	}
	names, ips := l.addresses()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: l.name, Organization: l.groups}, DNSNames: names, IPAddresses: ips}, key)
	if err != nil {
		return err
	}
	usage := "client auth"
	if signer == signerServing {
		usage = "server auth"
	}
	suffix := make([]byte, 4)
	if _, err := rand.Read(suffix); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%s", node, l.file[strings.LastIndex(l.file, "/")+1:], hex.EncodeToString(suffix))
	ask := signingRequest{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest", Metadata: map[string]any{"name": name}}
	ask.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	ask.Spec.SignerName, ask.Spec.Usages = signer, []string{"digital signature", usage}
	if err := a.do(http.MethodPost, requestPath, "application/json", ask, nil); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		var answer signingRequest
		if err := a.get(requestPath+"/"+name, &answer); err != nil {
			return err
		}
		if len(answer.Status.Certificate) == 0 {
			continue
		}
		if _, err := writeFile(l.file+".key", keyText, 0o600); err != nil {
			return err
		}
		_, err := writeFile(l.file+".crt", answer.Status.Certificate, 0o600)
		return err
	}
	return fmt.Errorf("the server has not signed request %s within a minute", name)
}

// approver grants what joining nodes may have, and nothing else.
type approver struct {
	api  *api
	log  func(string, ...any)
	seen map[string]bool // refused requests, said once
}

func (a *approver) run(ctx context.Context) {
	a.api.follow(ctx, requestPath, a.approveAll, func(err error) { a.log("certificate requests: %v", err) })
}

func (a *approver) approveAll() error {
	var list struct {
		Items []signingRequest `json:"items"`
	}
	if err := a.api.get(requestPath, &list); err != nil {
		return err
	}
	for _, request := range list.Items {
		name := fmt.Sprint(request.Metadata["name"])
		if len(request.Status.Conditions) > 0 || a.seen[name] {
			continue
		}
		if err := joinable(request); err != nil {
			a.log("certificate request %s of %s is left for a person to judge: %v", name, request.Spec.Username, err)
			a.seen[name] = true
			continue
		}
		request.APIVersion, request.Kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
		request.Status.Conditions = []map[string]string{{"type": "Approved", "status": "True", "reason": "K3sJoin", "message": "a node with the join token asked for its own certificate"}}
		if err := a.api.do(http.MethodPut, requestPath+"/"+name+"/approval", "application/json", request, nil); err != nil {
			return err
		}
	}
	return nil
}

// joinable says why a request is not one that a joining node makes.
func joinable(request signingRequest) error {
	if !slices.Contains(request.Spec.Groups, joinGroup) {
		return errors.New("it does not come from a join token")
	}
	block, _ := pem.Decode(request.Spec.Request)
	if block == nil {
		return errors.New("it is not PEM")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	subject, isNode := asked.Subject, strings.HasPrefix(asked.Subject.CommonName, "system:node:")
	hosts := len(asked.DNSNames) + len(asked.IPAddresses)
	switch request.Spec.SignerName {
	case signerKubelet:
		if isNode && slices.Equal(subject.Organization, []string{"system:nodes"}) && hosts == 0 {
			return nil
		}
	case signerServing:
		own := []string{strings.TrimPrefix(subject.CommonName, "system:node:"), "localhost"}
		if isNode && hosts > 0 && !slices.ContainsFunc(asked.DNSNames, func(name string) bool { return !slices.Contains(own, name) }) {
			return nil
		}
	case signerClient:
		if len(subject.Organization) == 0 && hosts == 0 && slices.Contains([]string{"system:kube-proxy", "system:k3s-controller"}, subject.CommonName) {
			return nil
		}
	}
	return fmt.Errorf("a node does not ask signer %s for %q", request.Spec.SignerName, subject)
}
