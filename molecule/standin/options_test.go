package main

import (
	"bytes"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// configured writes config.yaml and drop-ins and reads them back with the given arguments.
func configured(t *testing.T, main string, dropIns map[string]string, args ...string) (options, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range dropIns {
		if err := os.WriteFile(filepath.Join(file+".d", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return readOptions("server", append([]string{"--config", file}, args...))
}

func TestLaterFilesWinAndPlusAppends(t *testing.T) {
	given, err := configured(t, "node-name: first\ntls-san: [a, b]\n", map[string]string{
		"20.yaml": "node-name: third\ntls-san+: [d]\n",
		"10.yaml": "node-name: second\ntls-san+: c\n",
		"ignored": "node-name: ignored\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if given.text("node-name") != "third" || !slices.Equal(given.list("tls-san"), []string{"a", "b", "c", "d"}) {
		t.Errorf("got %v", given)
	}
}

func TestTheCommandLineBeatsTheFile(t *testing.T) {
	given, err := configured(t, "node-name: file\ncluster-init: true\n", nil, "--node-name=flag", "--cluster-init=false")
	if err != nil {
		t.Fatal(err)
	}
	if given.text("node-name") != "flag" || given.flag("cluster-init") {
		t.Errorf("got %v", given)
	}
}

func TestWhatTheContractDoesNotListIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		args []string
		want string
	}{
		"key":            {file: "flannel-backend: none\n", want: `option "flannel-backend" of k3s server is not in the stand-in's contract`},
		"agent's key":    {file: "server: https://10.0.0.1:6443\n", want: `option "server" of k3s server`},
		"flag":           {args: []string{"--frobnicate"}, want: `option "frobnicate"`},
		"argument":       {args: []string{"please"}, want: `found argument "please"`},
		"no value":       {args: []string{"--node-name"}, want: "has no value"},
		"not a boolean":  {file: "cluster-init: maybe\n", want: "wanted true or false"},
		"two values":     {file: "node-name: [a, b]\n", want: "has 2 values, wanted one"},
		"mapping":        {file: "tls-san: {a: b}\n", want: "found a mapping"},
		"nothing":        {file: "node-name:\n", want: "found nothing"},
		"broken YAML":    {file: "node-name: [\n", want: "config.yaml: yaml:"},
		"appended wrong": {file: "no-such+: [x]\n", want: `option "no-such"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configured(t, test.file, nil, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, wanted an error with %q", err, test.want)
			}
		})
	}
}

func TestDefaultsComeFromTheContract(t *testing.T) {
	cfg := &config{options: options{}}
	if cfg.text("cluster-cidr") != "10.42.0.0/16" || cfg.clusterDNS() != "10.43.0.10" || cfg.serviceAddress(1).String() != "10.43.0.1" {
		t.Errorf("got %s, %s, %s", cfg.text("cluster-cidr"), cfg.clusterDNS(), cfg.serviceAddress(1))
	}
}

func TestTheSourceIsFormatted(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(source); err != nil || !bytes.Equal(source, formatted) {
			t.Errorf("%s is not what gofmt makes of it (%v)", file, err)
		}
	}
}
