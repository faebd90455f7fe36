package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// registries is the part of registries.yaml that the stand-in knows; decoding refuses every other key.
type registries struct {
	Mirrors map[string]struct {
		Endpoint []string `yaml:"endpoint"`
	} `yaml:"mirrors"`
	Configs map[string]struct {
		Auth struct {
			Username string `yaml:"username"`
			Password string `yaml:"password"`
		} `yaml:"auth"`
		TLS struct {
			CAFile             string `yaml:"ca_file"`
			CertFile           string `yaml:"cert_file"`
			KeyFile            string `yaml:"key_file"`
			InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
		} `yaml:"tls"`
	} `yaml:"configs"`
}

// registryConfig turns registries.yaml into containerd's hosts.toml files and returns the part of config.toml with the passwords.
func registryConfig(withoutDefault bool) (string, error) {
	var wanted registries
	if file, err := os.Open(registriesFile); err == nil {
		defer file.Close()
		decoder := yaml.NewDecoder(file)
		decoder.KnownFields(true)
		if err := decoder.Decode(&wanted); err != nil {
			return "", fmt.Errorf("%s: %w", registriesFile, err)
		}
	} else if !os.IsNotExist(err) {
		return "", err
	}
	if err := os.RemoveAll(containerdCertsDir); err != nil {
		return "", err
	}
	for name, mirror := range wanted.Mirrors {
		var text strings.Builder
		directory := name
		switch {
		case name == "*":
			directory = "_default"
		case !withoutDefault:
			fmt.Fprintf(&text, "server = \"https://%s\"\n", name)
		}
		for _, endpoint := range mirror.Endpoint {
			host := strings.TrimPrefix(strings.TrimPrefix(strings.SplitN(endpoint, "/v2", 2)[0], "https://"), "http://")
			fmt.Fprintf(&text, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", strings.TrimSuffix(endpoint, "/"))
			tls := wanted.Configs[strings.TrimSuffix(host, "/")].TLS
			if tls.CAFile != "" {
				fmt.Fprintf(&text, "  ca = %q\n", tls.CAFile)
			}
			if tls.CertFile != "" {
				fmt.Fprintf(&text, "  client = [[%q, %q]]\n", tls.CertFile, tls.KeyFile)
			}
			if tls.InsecureSkipVerify {
				text.WriteString("  skip_verify = true\n")
			}
		}
		if _, err := writeFile(filepath.Join(containerdCertsDir, directory, "hosts.toml"), []byte(text.String()), 0o600); err != nil {
			return "", err
		}
	}
	var auth strings.Builder
	for host, settings := range wanted.Configs {
		if settings.Auth.Username != "" {
			fmt.Fprintf(&auth, "\n[plugins.\"io.containerd.cri.v1.images\".registry.configs.%q.auth]\n  username = %q\n  password = %q\n", host, settings.Auth.Username, settings.Auth.Password)
		}
	}
	return auth.String(), nil
}
