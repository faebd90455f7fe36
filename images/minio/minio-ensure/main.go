// Command minio-ensure brings a MinIO server to a declared state: buckets, their versioning, one user per
// application and what it may do. It prints one line per thing, "changed ..." or "unchanged ...", and changes
// nothing that is already right.
//
// With -heal it has the server check and repair what its drives hold instead, and prints one line of JSON.
//
// With -fill it copies what the replicas of the declared buckets hold into these instead, and prints one line of JSON
// per bucket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const exitTryLater = 75 // EX_TEMPFAIL

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "minio-ensure:", err)
	if errors.Is(err, errNotYet) {
		os.Exit(exitTryLater)
	}
	os.Exit(1)
}

func run(ctx context.Context, arguments []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("minio-ensure", flag.ContinueOnError)
	var (
		endpoint     = flags.String("endpoint", "http://127.0.0.1:9000", "URL of the server")
		caFile       = flags.String("ca-file", "", "file with the certificate of the CA that is believed for https, in PEM form")
		declaration  = flags.String("declaration", "-", "the declaration as JSON text; - reads it from standard input")
		secrets      = flags.String("secrets", "/run/secrets/minio-users", "directory with <user>.access_key and <user>.secret_key")
		revision     = flags.String("revision", "", "what the file revision in -secrets has to say, else the exit code is 75")
		rootUser     = flags.String("root-user-file", os.Getenv("MINIO_ROOT_USER_FILE"), "file with the root user")
		rootPassword = flags.String("root-password-file", os.Getenv("MINIO_ROOT_PASSWORD_FILE"), "file with the root password")
		check        = flags.Bool("check", false, "say what would change and change nothing")
		healing      = flags.Bool("heal", false, "check what every drive holds of every object and write anew what is damaged, and do nothing else")
		filling      = flags.Bool("fill", false, "copy the objects of the declared buckets back from their replicas, and do nothing else")
		timeout      = flags.Duration("timeout", 60*time.Second, "give up after this long")
	)
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	root := Keys{}
	var err error
	if root.Access, err = readSecret(*rootUser); err != nil {
		return fmt.Errorf("root user: %w", err)
	}
	if root.Secret, err = readSecret(*rootPassword); err != nil {
		return fmt.Errorf("root password: %w", err)
	}
	server, err := connect(*endpoint, *caFile, root)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if *healing {
		return heal(ctx, server, stdout)
	}
	source := stdin
	if *declaration != "-" {
		source = strings.NewReader(*declaration)
	}
	wanted, err := readDeclaration(source)
	if err != nil {
		return err
	}
	if err := requireRevision(*secrets, *revision); err != nil {
		return err
	}
	if *filling {
		return fill(ctx, server, *caFile, *secrets, wanted, stdout)
	}
	return reconciler{server: server, secrets: *secrets, check: *check, out: stdout}.ensure(ctx, wanted)
}
