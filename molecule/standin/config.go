package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// config is what both kinds of node need to know, checked.
type config struct {
	options
	command  string
	nodeName string
	nodeIP   netip.Addr
	token    token
	server   string // URL of the server that an agent joins
}

var nodeNamePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

func loadConfig(command string, args []string) (*config, error) {
	given, err := readOptions(command, args)
	if err != nil {
		return nil, err
	}
	cfg := &config{options: given, command: command, nodeName: given.text("node-name"), server: given.text("server")}
	if cfg.nodeName == "" {
		if cfg.nodeName, err = os.Hostname(); err != nil {
			return nil, err
		}
		cfg.nodeName = strings.ToLower(cfg.nodeName)
	}
	if !nodeNamePattern.MatchString(cfg.nodeName) {
		return nil, fmt.Errorf("node-name is %q, wanted lower case letters, digits, '-' and '.', for example server-1", cfg.nodeName)
	}
	if cfg.nodeIP, err = nodeAddress(given.text("node-ip")); err != nil {
		return nil, err
	}
	if cfg.token, err = configuredToken(given); err != nil {
		return nil, err
	}
	if command == "agent" {
		target, err := url.Parse(cfg.server)
		if err != nil || target.Scheme != "https" || target.Port() == "" {
			return nil, fmt.Errorf("server is %q, wanted the URL of a server, for example https://10.0.0.11:6443", cfg.server)
		}
		if cfg.token.secret == "" {
			return nil, fmt.Errorf("token is missing: set token-file (or token) to the content of %s on the server", serverTokenFile)
		}
		return cfg, nil
	}
	if !cfg.flag("cluster-init") {
		return nil, fmt.Errorf("cluster-init is not set: the stand-in knows embedded etcd and one server only, wanted cluster-init: true")
	}
	for _, name := range []string{"cluster-cidr", "service-cidr"} {
		if _, err := netip.ParsePrefix(cfg.text(name)); err != nil {
			return nil, fmt.Errorf("%s is %q, wanted one IPv4 range, for example %s", name, cfg.text(name), contract.Options[name].Default)
		}
	}
	return cfg, nil
}

// nodeAddress takes the configured address, else the one that the default route uses.
func nodeAddress(configured string) (netip.Addr, error) {
	if configured != "" {
		address, err := netip.ParseAddr(configured)
		if err != nil || !address.Is4() {
			return address, fmt.Errorf("node-ip is %q, wanted one IPv4 address, for example 10.0.0.11", configured)
		}
		return address, nil
	}
	// Connecting a UDP socket sends nothing; it only asks the kernel for the route.
	probe, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no default route to take the node's address from: set node-ip, for example 10.0.0.11 (%w)", err)
	}
	defer probe.Close()
	return probe.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// serviceAddress is an address of the service range: the 1st is the kubernetes Service, the 10th the DNS unless configured.
func (cfg *config) serviceAddress(index int) netip.Addr {
	address := netip.MustParsePrefix(cfg.text("service-cidr")).Masked().Addr()
	for range index {
		address = address.Next()
	}
	return address
}

func (cfg *config) clusterDNS() string {
	return cmp.Or(cfg.text("cluster-dns"), cfg.serviceAddress(10).String())
}
