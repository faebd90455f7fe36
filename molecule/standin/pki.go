package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	renewBefore  = 120 * 24 * time.Hour // k3s renews at start when less than this is left
)

type keyPair struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// leaf describes one certificate; file is its path without the extension.
type leaf struct {
	file     string
	name     string
	groups   []string
	hosts    []string // DNS names and IP addresses; none makes it a client certificate
	client   bool     // a server certificate that also serves as a client's
	withRoot bool     // append the CA, so that a joining node can see and check it
}

func (l leaf) usages() []x509.ExtKeyUsage {
	switch {
	case len(l.hosts) == 0:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case l.client:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

func (l leaf) addresses() (names []string, ips []net.IP) {
	for _, host := range l.hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			ips = append(ips, net.IP(ip.AsSlice()))
		} else {
			names = append(names, host)
		}
	}
	return names, ips
}

// current says whether the certificate on disk is what l describes, signed by the authority and not about to end.
func (l leaf) current(authority *x509.Certificate) bool {
	pair, err := loadPair(l.file)
	if err != nil {
		return false
	}
	names, ips := l.addresses()
	old := pair.certificate
	return old.CheckSignatureFrom(authority) == nil && time.Until(old.NotAfter) > renewBefore && old.Subject.CommonName == l.name &&
		slices.Equal(old.Subject.Organization, l.groups) && slices.Equal(old.DNSNames, names) && slices.EqualFunc(old.IPAddresses, ips, net.IP.Equal)
}

// ensureCA loads the authority at file, or makes one.
func ensureCA(file, name string) (*keyPair, error) {
	if exists(file + ".key") {
		return loadPair(file)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return issue(file, template, nil, false)
}

// ensureLeaf keeps a certificate that still fits and issues a new one otherwise.
func ensureLeaf(authority *keyPair, l leaf) error {
	if l.current(authority.certificate) {
		return nil
	}
	names, ips := l.addresses()
	now := time.Now()
	_, err := issue(l.file, &x509.Certificate{
		Subject:   pkix.Name{CommonName: l.name, Organization: l.groups},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLifetime),
		DNSNames: names, IPAddresses: ips, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: l.usages(),
	}, authority, l.withRoot)
	return err
}

// issue signs the template (by itself when there is no authority) and writes file.crt and file.key.
func issue(file string, template *x509.Certificate, authority *keyPair, withRoot bool) (*keyPair, error) {
	key, keyText, err := newKey()
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	parent, signer := template, crypto.Signer(key)
	if authority != nil {
		parent, signer = authority.certificate, authority.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	text := pemCertificate(der)
	if withRoot {
		text = append(text, authority.pem...)
	}
	if _, err := writeFile(file+".key", keyText, 0o600); err != nil {
		return nil, err
	}
	if _, err := writeFile(file+".crt", text, 0o644); err != nil {
		return nil, err
	}
	return loadPair(file)
}

func pemCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func loadPair(file string) (*keyPair, error) {
	text, err := os.ReadFile(file + ".crt")
	if err != nil {
		return nil, err
	}
	keyText, err := os.ReadFile(file + ".key")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	keyBlock, _ := pem.Decode(keyText)
	if block == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s.crt or .key is not PEM", file)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s.crt: %w", file, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s.key: %w", file, err)
	}
	return &keyPair{certificate: certificate, key: key, pem: bytes.Clone(text)}, nil
}

// kubeconfig points a component at the API server with the client certificate file.crt and file.key.
func writeKubeconfig(path, server, authority, file string) error {
	_, err := writeFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- {name: local, cluster: {server: %q, certificate-authority: %s}}
users:
- {name: user, user: {client-certificate: %s.crt, client-key: %s.key}}
contexts:
- {name: Default, context: {cluster: local, namespace: default, user: user}}
current-context: Default
`, server, authority, file, file), 0o600)
	return err
}
