package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
)

// routeProtocol marks the routes that the stand-in made, so that it removes only its own.
const routeProtocol = "73"

type nodeList struct {
	Items []struct {
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
		Status struct {
			Addresses []struct{ Type, Address string } `json:"addresses"`
		} `json:"status"`
	} `json:"items"`
}

// network gives this node its pod bridge and a route to the pods of every other node.
type network struct {
	*node
	api     *api
	applied string // what was programmed last
}

func (w *network) run() {
	w.api.follow(w.ctx, "/api/v1/nodes", w.update, func(err error) { w.logf("pod network: %v", err) })
}

func (w *network) update() error {
	var nodes nodeList
	if err := w.api.get("/api/v1/nodes", &nodes); err != nil {
		return err
	}
	routes, servers := map[netip.Prefix]netip.Addr{}, []string{}
	var own netip.Prefix
	for _, item := range nodes.Items {
		prefix, err := netip.ParsePrefix(item.Spec.PodCIDR)
		if err != nil {
			continue // not allocated yet; the next event brings it
		}
		if item.Metadata.Name == w.nodeName {
			own = prefix
		}
		for _, address := range item.Status.Addresses {
			ip, err := netip.ParseAddr(address.Address)
			if err != nil || address.Type != "InternalIP" {
				continue
			}
			if item.Metadata.Name != w.nodeName {
				routes[prefix] = ip
			}
			if item.Metadata.Labels["node-role.kubernetes.io/control-plane"] == "true" {
				servers = append(servers, ip.String())
			}
		}
	}
	if w.servers != nil && len(servers) > 0 {
		w.servers(servers)
	}
	wanted := fmt.Sprint(own, routes)
	if wanted == w.applied || !own.IsValid() {
		return nil
	}
	if err := errors.Join(w.writeCNI(own), w.masquerade(), w.setRoutes(routes)); err != nil {
		return err
	}
	w.applied = wanted
	w.logf("pod network %s, routes to %d other nodes", own, len(routes))
	return nil
}

func (w *network) writeCNI(own netip.Prefix) error {
	content, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": "cbr0",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "forceAddress": true, "ipMasq": false,
				"ipam": map[string]any{"type": "host-local", "ranges": []any{[]any{map[string]string{"subnet": own.String()}}}, "dataDir": "/var/lib/cni/networks"},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}, "backend": "nftables"},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	_, err = writeFile(cniConfigDir+"/10-k3s.conflist", content, 0o600)
	return err
}

// masquerade hides pods behind the node's address for everything outside the cluster's range.
func (w *network) masquerade() error {
	pods := w.cluster.PodRange
	rules := fmt.Sprintf(`table ip k3s-masquerade {}
delete table ip k3s-masquerade
table ip k3s-masquerade {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr %s ip daddr != %s ip daddr != 224.0.0.0/4 masquerade
  }
}
`, pods, pods)
	return w.runTool(strings.NewReader(rules), "nft", "-f", "-")
}

var routeLine = regexp.MustCompile(`(?m)^(\S+) via (\S+)`)

func (w *network) setRoutes(routes map[netip.Prefix]netip.Addr) error {
	routes = maps.Clone(routes)
	output, err := exec.Command("ip", "-4", "route", "show", "proto", routeProtocol).Output()
	if err != nil {
		return fmt.Errorf("ip route show: %w", err)
	}
	for _, match := range routeLine.FindAllStringSubmatch(string(output), -1) {
		prefix, err := netip.ParsePrefix(match[1])
		if err == nil && routes[prefix].String() == match[2] {
			delete(routes, prefix)
			continue
		}
		if _, replaced := routes[prefix]; !replaced {
			if err := w.runTool(nil, "ip", "route", "del", match[1], "via", match[2]); err != nil {
				return err
			}
		}
	}
	for prefix, via := range routes {
		if err := w.runTool(nil, "ip", "route", "replace", prefix.String(), "via", via.String(), "proto", routeProtocol); err != nil {
			return err
		}
	}
	return nil
}
