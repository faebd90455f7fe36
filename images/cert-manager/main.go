// Command cert-manager is the four programs of cert-manager in one: it is what the name says that it was started with.
//
// Upstream's own commands lie in modules that cannot be required by another. They are thin: what they do is in packages
// of the main module, and is put together here. Settings come from upstream's configuration files; whoever runs the
// upstream images gives them the same files by the same option.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cert-manager/cert-manager/internal/cmd/util"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/configfile"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctx, exit := util.SetupExitHandler(context.Background(), util.GracefulShutdown)
	defer exit() // it may end the program, so it comes last

	name := filepath.Base(os.Args[0])
	logf.InitLogs()
	defer logf.FlushLogs()
	ctrl.SetLogger(logf.Log)
	ctx = logf.NewContext(ctx, logf.Log, name)

	if err := run(ctx, name, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		util.SetExitCode(err)
	}
}

func run(ctx context.Context, name string, arguments []string) error {
	if name == "acmesolver" {
		return solve(ctx, arguments)
	}
	programs := map[string]func(context.Context, string) error{
		"cainjector": cainjector, "controller": controllers, "webhook": webhook,
	}
	start, known := programs[name]
	if !known {
		return fmt.Errorf("found the name %s, wanted controller, webhook, cainjector or acmesolver", name)
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	path := flags.String("config", "", "configuration file, of upstream's kind for this program")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *path == "" {
		return errors.New("found no configuration file, wanted one, for example --config /etc/cert-manager/config.yaml")
	}
	return start(ctx, *path)
}

// load reads a configuration file; what it does not mention has upstream's defaults.
func load(path string, into configfile.ConfigFile) error {
	loader, err := configfile.NewConfigurationFSLoader(nil, path)
	if err != nil {
		return err
	}
	return loader.Load(into)
}
