package main

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
)

const secret = "correct-horse-battery"

func TestTokens(t *testing.T) {
	full := "K10" + strings.Repeat("ab", 32) + "::server:" + secret
	for name, test := range map[string]struct {
		text string
		want token
		bad  bool
	}{
		"short":          {text: secret + "\n", want: token{secret: secret}},
		"full":           {text: full, want: token{caHash: strings.Repeat("ab", 32), secret: secret}},
		"without a user": {text: strings.Replace(full, "server:", "", 1), want: token{caHash: strings.Repeat("ab", 32), secret: secret}},
		"short hash":     {text: "K10abcd::server:" + secret, bad: true},
		"too short":      {text: "sesame", bad: true},
		"line break":     {text: "first line\nsecond line", bad: true},
		"comma":          {text: "would,be,three,fields", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := parseToken(test.text)
			if (err != nil) != test.bad || found != test.want {
				t.Errorf("got %v, %v", found, err)
			}
			if err != nil && strings.Contains(err.Error(), test.text) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

func TestTheFullTokenNamesTheCA(t *testing.T) {
	written, err := parseToken(token{secret: secret}.full([]byte("certificate")))
	if err != nil || written.caHash != caHash([]byte("certificate")) || written.secret != secret {
		t.Errorf("got %v, %v", written, err)
	}
}

// ask makes the signing request that a node would make for the leaf.
func ask(t *testing.T, signer string, groups []string, l leaf) signingRequest {
	t.Helper()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	names, ips := l.addresses()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: l.name, Organization: l.groups}, DNSNames: names, IPAddresses: ips}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := signingRequest{}
	request.Spec.SignerName, request.Spec.Groups = signer, groups
	request.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return request
}

func TestOnlyWhatAJoiningNodeNeedsIsApproved(t *testing.T) {
	holder := []string{"system:authenticated", joinGroup}
	kubelet := leaf{name: "system:node:agent-1", groups: []string{"system:nodes"}}
	serving := leaf{name: "system:node:agent-1", groups: []string{"system:nodes"}, hosts: []string{"agent-1", "localhost", "10.0.0.21"}}
	for name, test := range map[string]struct {
		signer string
		groups []string
		leaf   leaf
		wanted bool
	}{
		"kubelet":             {signerKubelet, holder, kubelet, true},
		"serving":             {signerServing, holder, serving, true},
		"kube-proxy":          {signerClient, holder, leaf{name: "system:kube-proxy"}, true},
		"without the token":   {signerKubelet, []string{"system:authenticated"}, kubelet, false},
		"administrator":       {signerClient, holder, leaf{name: "me", groups: []string{"system:masters"}}, false},
		"proxy in a group":    {signerClient, holder, leaf{name: "system:kube-proxy", groups: []string{"system:masters"}}, false},
		"somebody":            {signerClient, holder, leaf{name: "somebody"}, false},
		"foreign name":        {signerServing, holder, leaf{name: "system:node:agent-1", hosts: []string{"kubernetes.default"}}, false},
		"not a node":          {signerServing, holder, leaf{name: "server", hosts: []string{"localhost"}}, false},
		"kubelet with a name": {signerKubelet, holder, serving, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := joinable(ask(t, test.signer, test.groups, test.leaf)); (err == nil) != test.wanted {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCertificatesAreKeptWhileTheyFit(t *testing.T) {
	directory := t.TempDir()
	authority, err := ensureCA(directory+"/ca", "ca")
	if err != nil {
		t.Fatal(err)
	}
	wanted := leaf{file: directory + "/serving", name: "server", hosts: []string{"localhost", "127.0.0.1"}, withRoot: true}
	if err := ensureLeaf(authority, wanted); err != nil {
		t.Fatal(err)
	}
	first, err := loadPair(wanted.file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(first.pem), string(authority.pem)) {
		t.Error("the CA does not follow the certificate, so a joining node could not see it")
	}
	if err := ensureLeaf(authority, wanted); err != nil {
		t.Fatal(err)
	}
	second, _ := loadPair(wanted.file)
	if first.certificate.SerialNumber.Cmp(second.certificate.SerialNumber) != 0 {
		t.Error("a certificate that fits was issued again")
	}
	wanted.hosts = append(wanted.hosts, "10.0.0.11")
	if err := ensureLeaf(authority, wanted); err != nil {
		t.Fatal(err)
	}
	third, _ := loadPair(wanted.file)
	if third.certificate.VerifyHostname(net.ParseIP("10.0.0.11").String()) != nil {
		t.Error("a new tls-san is not in the certificate")
	}
}
