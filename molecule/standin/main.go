// k3s: a stand-in for the k3s release, for machines that can neither download nor build it. See README.md.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	command, args := filepath.Base(os.Args[0]), os.Args[1:]
	if command != "kubectl" && command != "crictl" && command != "ctr" {
		if len(args) == 0 {
			fail("k3s", fmt.Errorf("found no command, wanted one of %s", strings.Join(contractCommands(), ", ")))
		}
		command, args = args[0], args[1:]
	}
	if err := run(command, args); err != nil {
		fail("k3s "+command, err)
	}
}

func fail(where string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", where, err)
	os.Exit(1)
}

func run(command string, args []string) error {
	switch command {
	case "server", "agent":
		cfg, err := loadConfig(command, args)
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return fmt.Errorf("found uid %d, wanted root", os.Geteuid())
		}
		if command == "server" {
			return runServer(cfg)
		}
		return runAgent(cfg)
	case "kubectl", "crictl", "ctr":
		return execTool(command, args)
	case "token":
		return runToken(args)
	case "--version", "-v":
		fmt.Printf("k3s version %s (%.8s)\ngo version %s\n", version(), bundleHash(), runtime.Version())
		return nil
	}
	return fmt.Errorf("unknown command, wanted one of %s", strings.Join(contractCommands(), ", "))
}

// execTool becomes one of the bundled tools, pointed at this node as k3s points it.
func execTool(name string, args []string) error {
	bin, err := extractBundle()
	if err != nil {
		return err
	}
	defaults := map[string]string{
		"CONTAINERD_ADDRESS":   containerdSocket,
		"CONTAINERD_NAMESPACE": "k8s.io",
		"CRI_CONFIG_FILE":      crictlConfig,
		"PATH":                 bin + ":" + os.Getenv("PATH"),
	}
	if home := os.Getenv("HOME"); home == "" || !exists(filepath.Join(home, ".kube/config")) || os.Geteuid() == 0 {
		defaults["KUBECONFIG"] = adminKubeconfig
	}
	for key, value := range defaults {
		if _, set := os.LookupEnv(key); !set || key == "PATH" {
			os.Setenv(key, value)
		}
	}
	return syscall.Exec(filepath.Join(bin, name), append([]string{name}, args...), os.Environ())
}
