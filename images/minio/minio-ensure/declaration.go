package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Declaration is the state that the server is brought to. It carries no secret: keys are read from
// <secrets directory>/<user>.access_key and <user>.secret_key.
type Declaration struct {
	Buckets []Bucket `json:"buckets"`
	Users   []User   `json:"users"`
}

// Bucket is created when it is missing and never removed: it holds data.
type Bucket struct {
	Name       string `json:"name"`
	Versioning bool   `json:"versioning"`
	// NoncurrentDays is how long overwritten and deleted objects stay; 0 keeps them.
	NoncurrentDays int          `json:"noncurrent_days"`
	Replication    *Replication `json:"replication"`
}

// Replication copies a bucket's objects to a bucket of another server, which has to be there with versioning.
type Replication struct {
	Endpoint string `json:"endpoint"` // URL, such as https://10.0.0.31:9000
	Bucket   string `json:"bucket"`
	Keys     string `json:"keys"` // the user there: <secrets directory>/<keys>.access_key and .secret_key
}

// User is one application. Its access key may change; its name ties the keys of all times together.
type User struct {
	Name   string  `json:"name"`
	Grants []Grant `json:"grants"`
}

// Grant opens one bucket to a user.
type Grant struct {
	Bucket string `json:"bucket"`
	Access string `json:"access"` // read | write | replicate
}

var (
	userName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
)

func readDeclaration(r io.Reader) (Declaration, error) {
	var d Declaration
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return d, fmt.Errorf("declaration: %w", err)
	}
	return d, d.validate()
}

func (d Declaration) validate() error {
	buckets := map[string]bool{}
	for i, b := range d.Buckets {
		if !bucketName.MatchString(b.Name) {
			return fmt.Errorf("buckets[%d].name: found %q, wanted a bucket name such as \"images\"", i, b.Name)
		}
		if buckets[b.Name] {
			return fmt.Errorf("buckets[%d].name: %q is declared twice", i, b.Name)
		}
		buckets[b.Name] = true
		if err := b.validate(fmt.Sprintf("buckets[%d]", i)); err != nil {
			return err
		}
	}
	users := map[string]bool{}
	for i, u := range d.Users {
		if !userName.MatchString(u.Name) {
			return fmt.Errorf("users[%d].name: found %q, wanted lower case letters, digits and dashes such as \"image\"", i, u.Name)
		}
		if users[u.Name] {
			return fmt.Errorf("users[%d].name: %q is declared twice", i, u.Name)
		}
		users[u.Name] = true
		for j, g := range u.Grants {
			where := fmt.Sprintf("users[%d].grants[%d]", i, j)
			if !buckets[g.Bucket] {
				return fmt.Errorf("%s.bucket: found %q, wanted one of the declared buckets", where, g.Bucket)
			}
			if _, known := bucketActions[g.Access]; !known {
				return fmt.Errorf("%s.access: found %q, wanted \"read\", \"write\" or \"replicate\"", where, g.Access)
			}
		}
	}
	return nil
}

func (b Bucket) validate(where string) error {
	if b.NoncurrentDays < 0 {
		return fmt.Errorf("%s.noncurrent_days: found %d, wanted 0 or more", where, b.NoncurrentDays)
	}
	if (b.NoncurrentDays > 0 || b.Replication != nil) && !b.Versioning {
		return fmt.Errorf("%s.versioning: found false, wanted true for noncurrent_days and replication", where)
	}
	if b.Replication == nil {
		return nil
	}
	if _, _, err := splitEndpoint(b.Replication.Endpoint); err != nil {
		return fmt.Errorf("%s.replication.%w", where, err)
	}
	if !bucketName.MatchString(b.Replication.Bucket) {
		return fmt.Errorf("%s.replication.bucket: found %q, wanted a bucket name such as \"images\"", where, b.Replication.Bucket)
	}
	if !userName.MatchString(b.Replication.Keys) {
		return fmt.Errorf("%s.replication.keys: found %q, wanted the name of keys such as \"second-site\"", where, b.Replication.Keys)
	}
	return nil
}

// Keys is what a user signs its requests with.
type Keys struct{ Access, Secret string }

func readKeys(directory, user string) (Keys, error) {
	access, err := readSecret(filepath.Join(directory, user+".access_key"))
	if err != nil {
		return Keys{}, err
	}
	secret, err := readSecret(filepath.Join(directory, user+".secret_key"))
	return Keys{access, secret}, err
}

// errNotYet says that the keys are older than the declaration: the kubelet brings new ones some time later.
var errNotYet = errors.New("the kubelet brings it within two minutes")

func requireRevision(directory, revision string) error {
	if revision == "" {
		return nil
	}
	found, err := readSecret(filepath.Join(directory, "revision"))
	if err != nil || found != revision {
		return fmt.Errorf("%s: not the declared revision yet, %w", filepath.Join(directory, "revision"), errNotYet)
	}
	return nil
}

func readSecret(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(raw))
	if value == "" {
		return "", fmt.Errorf("%s: empty, wanted a secret", path)
	}
	return value, nil
}
