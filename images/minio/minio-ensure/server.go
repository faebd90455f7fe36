package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Server is one MinIO as root sees it, and a way to sign in as somebody else.
type Server struct {
	host      string
	secure    bool
	transport http.RoundTripper
	s3        *minio.Client
	admin     *madmin.AdminClient
}

// connect believes the CA in caFile and no other; without one, those of the system.
func connect(endpoint, caFile string, root Keys) (*Server, error) {
	host, secure, err := splitEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	s := &Server{host: host, secure: secure}
	if s.transport, err = transport(s.secure, caFile); err != nil {
		return nil, err
	}
	if s.s3, err = s.signIn(root); err != nil {
		return nil, err
	}
	s.admin, err = madmin.NewWithOptions(s.host, &madmin.Options{
		Creds:     credentials.NewStaticV4(root.Access, root.Secret, ""),
		Secure:    s.secure,
		Transport: s.transport,
	})
	return s, err
}

func splitEndpoint(endpoint string) (host string, secure bool, err error) {
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return "", false, fmt.Errorf("endpoint: found %q, wanted a URL such as http://127.0.0.1:9000", endpoint)
	}
	return parsed.Host, parsed.Scheme == "https", nil
}

func transport(secure bool, caFile string) (http.RoundTripper, error) {
	made, err := minio.DefaultTransport(secure)
	if err != nil || caFile == "" {
		return made, err
	}
	if !secure {
		return nil, errors.New("ca-file: wanted an endpoint with https beside it")
	}
	certificate, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca-file: %w", err)
	}
	made.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !made.TLSClientConfig.RootCAs.AppendCertsFromPEM(certificate) {
		return nil, fmt.Errorf("ca-file: found no certificate in %s, wanted one in PEM form", caFile)
	}
	return made, nil
}

func (s *Server) signIn(keys Keys) (*minio.Client, error) {
	return minio.New(s.host, &minio.Options{
		Creds:     credentials.NewStaticV4(keys.Access, keys.Secret, ""),
		Secure:    s.secure,
		Transport: s.transport,
		Region:    "us-east-1", // known: saves a request, and MinIO accepts it from anybody
	})
}
