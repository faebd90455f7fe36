package main

import (
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// balancer forwards a port on loopback to the first server that answers, so that an agent outlives any one server.
type balancer struct {
	supervisor *supervisor
	listener   net.Listener
	lock       sync.Mutex
	servers    []string
}

func newBalancer(sup *supervisor, first string) (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:6444")
	if err != nil {
		return nil, err
	}
	b := &balancer{supervisor: sup, listener: listener, servers: []string{first}}
	go b.accept()
	return b, nil
}

func (b *balancer) url() string { return "https://" + b.listener.Addr().String() }

// update takes the addresses of all servers; the port is that of the first.
func (b *balancer) update(addresses []string) {
	b.lock.Lock()
	defer b.lock.Unlock()
	_, port, _ := net.SplitHostPort(b.servers[0])
	servers := []string{}
	for _, address := range addresses {
		servers = append(servers, net.JoinHostPort(address, port))
	}
	// The one in use stays in front, also when it is a name that no node has as its address.
	b.servers = append(b.servers[:1:1], slices.DeleteFunc(servers, func(s string) bool { return s == b.servers[0] })...)
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		go b.serve(client)
	}
}

func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	server := b.dial()
	if server == nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}

// dial tries every server in turn and moves the one that answered to the front.
func (b *balancer) dial() net.Conn {
	b.lock.Lock()
	servers := slices.Clone(b.servers)
	b.lock.Unlock()
	for index, address := range servers {
		connection, err := net.DialTimeout("tcp", address, 3*time.Second)
		if err != nil {
			continue
		}
		if index > 0 {
			b.lock.Lock()
			b.servers = append([]string{address}, slices.DeleteFunc(servers, func(s string) bool { return s == address })...)
			b.lock.Unlock()
			b.supervisor.logf("server %s does not answer, now using %s", servers[0], address)
		}
		return connection
	}
	return nil
}
