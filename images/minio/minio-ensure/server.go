package main

import (
	"fmt"
	"net/url"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Server is one MinIO as root sees it, and a way to sign in as somebody else.
type Server struct {
	host   string
	secure bool
	s3     *minio.Client
	admin  *madmin.AdminClient
}

func connect(endpoint string, root Keys) (*Server, error) {
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, fmt.Errorf("endpoint: found %q, wanted a URL such as http://127.0.0.1:9000", endpoint)
	}
	s := &Server{host: parsed.Host, secure: parsed.Scheme == "https"}
	if s.s3, err = s.signIn(root); err != nil {
		return nil, err
	}
	s.admin, err = madmin.NewWithOptions(s.host, &madmin.Options{
		Creds:  credentials.NewStaticV4(root.Access, root.Secret, ""),
		Secure: s.secure,
	})
	return s, err
}

func (s *Server) signIn(keys Keys) (*minio.Client, error) {
	return minio.New(s.host, &minio.Options{
		Creds:  credentials.NewStaticV4(keys.Access, keys.Secret, ""),
		Secure: s.secure,
		Region: "us-east-1", // known: saves a request, and MinIO accepts it from anybody
	})
}
