package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// supervisor keeps child processes alive, each by itself, and stops them in reverse order.
type supervisor struct {
	ctx      context.Context // ends when the unit is asked to stop
	bin      string
	lock     sync.Mutex // of children
	children []*child
	output   sync.Mutex
}

type child struct {
	name    string
	command []string
	log     string // a file for its output; else the journal
	stop    context.CancelFunc
	done    chan struct{}
}

// stopGrace is how long a child may take to end. The API server never ends by itself while nodes watch it.
const stopGrace = 5 * time.Second

func newSupervisor(bin string) (*supervisor, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	return &supervisor{ctx: ctx, bin: bin}, cancel
}

func (s *supervisor) logf(format string, values ...any) {
	s.output.Lock()
	defer s.output.Unlock()
	fmt.Fprintf(os.Stderr, "k3s: "+format+"\n", values...)
}

// start runs the program until the supervisor stops, again whenever it ends.
func (s *supervisor) start(name, log string, arguments ...string) {
	ctx, stop := context.WithCancel(context.Background())
	c := &child{name: name, command: append([]string{filepath.Join(s.bin, name)}, arguments...), log: log, stop: stop, done: make(chan struct{})}
	s.lock.Lock()
	s.children = append(s.children, c)
	s.lock.Unlock()
	go s.keep(ctx, c)
}

func (s *supervisor) keep(ctx context.Context, c *child) {
	// The kernel sends the parent-death signal when the thread that forked ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer close(c.done)
	for wait := time.Second; ctx.Err() == nil; {
		started := time.Now()
		err := s.runOnce(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			wait = time.Second
		}
		s.logf("%s ended after %.0f s (%v), starting it again in %s", c.name, time.Since(started).Seconds(), err, wait)
		pause(ctx, wait)
		wait = min(2*wait, 15*time.Second)
	}
}

func (s *supervisor) runOnce(ctx context.Context, c *child) error {
	command := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
	command.Env = append(slices.DeleteFunc(os.Environ(), isNotifySocket), "PATH="+s.bin+":"+os.Getenv("PATH"))
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopGrace
	// A child must not outlive the supervisor: after a crash the next one starts its own.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if c.log != "" {
		file, err := openLog(c.log)
		if err != nil {
			return err
		}
		defer file.Close()
		command.Stdout, command.Stderr = file, file
		return command.Run()
	}
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = writer, writer
	go s.prefix(c.name, reader)
	defer writer.Close()
	return command.Run()
}

// isNotifySocket keeps children that know systemd from saying READY for the supervisor.
func isNotifySocket(entry string) bool { return strings.HasPrefix(entry, "NOTIFY_SOCKET=") }

// openLog starts a fresh file when the old one has grown large; the one before it is kept.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 32<<20 {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func (s *supervisor) prefix(name string, reader io.Reader) {
	lines := bufio.NewReader(reader)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.output.Lock()
			fmt.Fprintf(os.Stderr, "%s: %s", name, line)
			s.output.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// stopAll stops what the supervisor started, the last one first. Pods live on: their shims are nobody's children.
func (s *supervisor) stopAll() {
	notify("STOPPING=1")
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, c := range slices.Backward(s.children) {
		c.stop()
		<-c.done
	}
}

// errRefused marks what waiting does not cure.
var errRefused = errors.New("refused")

// until calls check every so often and says why it still waits; it ends early on a refusal or when the unit is asked to stop.
func (s *supervisor) until(what string, every time.Duration, check func() error) error {
	notify("STATUS=waiting: " + what)
	for began, said := time.Now(), time.Now(); ; {
		err := check()
		if err == nil {
			s.logf("%s after %.1f s", what, time.Since(began).Seconds())
			return nil
		}
		if errors.Is(err, errRefused) {
			return err
		}
		if time.Since(said) > 10*time.Second {
			s.logf("still waiting (%.0f s): %s: %v", time.Since(began).Seconds(), what, err)
			said = time.Now()
		}
		if pause(s.ctx, every); s.ctx.Err() != nil {
			return fmt.Errorf("stopped while waiting: %s: %w", what, err)
		}
	}
}

// runTool runs a bundled program to its end; its output is in the error.
func (s *supervisor) runTool(input io.Reader, name string, arguments ...string) error {
	command := exec.CommandContext(s.ctx, name, arguments...)
	if path := filepath.Join(s.bin, name); exists(path) {
		command.Path = path
		command.Err = nil
	}
	command.Stdin = input
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return nil
}

// notify tells systemd; without systemd it does nothing.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	connection, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer connection.Close()
	_, _ = connection.Write([]byte(state))
}
