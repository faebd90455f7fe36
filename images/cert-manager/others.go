package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"time"

	injectorvalidation "github.com/cert-manager/cert-manager/internal/apis/config/cainjector/validation"
	webhookvalidation "github.com/cert-manager/cert-manager/internal/apis/config/webhook/validation"
	cmwebhook "github.com/cert-manager/cert-manager/internal/webhook"
	injectorfile "github.com/cert-manager/cert-manager/pkg/cainjector/configfile"
	cmscheme "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	injector "github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
	webhookfile "github.com/cert-manager/cert-manager/pkg/webhook/configfile"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// webhook tells the API server which certificates and issuers make no sense.
func webhook(ctx context.Context, path string) error {
	file := webhookfile.New()
	if err := load(path, file); err != nil {
		return err
	}
	if mistakes := webhookvalidation.ValidateWebhookConfiguration(file.Config, nil); len(mistakes) > 0 {
		return mistakes.ToAggregate()
	}
	if err := logf.ValidateAndApply(&file.Config.Logging); err != nil {
		return err
	}
	server, err := cmwebhook.NewCertManagerWebhookServer(logf.FromContext(ctx), *file.Config)
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// cainjector tells the API server which CA the webhook's certificate is of.
func cainjector(ctx context.Context, path string) error {
	file := injectorfile.New()
	if err := load(path, file); err != nil {
		return err
	}
	options := file.Config
	if mistakes := injectorvalidation.ValidateCAInjectorConfiguration(options, nil); len(mistakes) > 0 {
		return mistakes.ToAggregate()
	}
	if err := logf.ValidateAndApply(&options.Logging); err != nil {
		return err
	}
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, cmscheme.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme,
	} {
		if err := add(known); err != nil {
			return err
		}
	}
	settings, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	// With a namespace it may read the Secrets of that one alone.
	var namespaces map[string]cache.Config
	if options.Namespace != "" {
		namespaces = map[string]cache.Config{options.Namespace: {}}
	}
	election := options.LeaderElectionConfig
	manager, err := ctrl.NewManager(util.RestConfigWithUserAgent(settings, "cainjector"), ctrl.Options{
		Scheme: known,
		Cache:  cache.Options{ReaderFailOnMissingInformer: true, DefaultNamespaces: namespaces},
		// It needs one Secret or two; a cache would hold every one of the cluster.
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		LeaderElection:                election.Enabled,
		LeaderElectionNamespace:       election.Namespace,
		LeaderElectionID:              "cert-manager-cainjector-leader-election",
		LeaderElectionReleaseOnCancel: true,
		LeaderElectionLabels:          map[string]string{"app.kubernetes.io/managed-by": "cert-manager-cainjector"},
		LeaderElectionResourceLock:    resourcelock.LeasesResourceLock,
		LeaseDuration:                 &election.LeaseDuration,
		RenewDeadline:                 &election.RenewDeadline,
		RetryPeriod:                   &election.RetryPeriod,
		Metrics:                       metricsserver.Options{BindAddress: options.MetricsListenAddress},
	})
	if err != nil {
		return err
	}
	injectable := options.EnableInjectableConfig
	if err := injector.RegisterAllInjectors(ctx, manager, injector.SetupOptions{
		Namespace:                    options.Namespace,
		EnableCertificatesDataSource: options.EnableDataSourceConfig.Certificates,
		EnabledReconcilersFor: map[string]bool{
			injector.MutatingWebhookConfigurationName:   injectable.MutatingWebhookConfigurations,
			injector.ValidatingWebhookConfigurationName: injectable.ValidatingWebhookConfigurations,
			injector.APIServiceName:                     injectable.APIServices,
			injector.CustomResourceDefinitionName:       injectable.CustomResourceDefinitions,
		},
	}); err != nil {
		return err
	}
	return manager.Start(ctx)
}

// solve answers the one question of a challenge, in a pod that lives as long as the challenge.
func solve(ctx context.Context, arguments []string) error {
	one := &solver.HTTP01Solver{}
	flags := flag.NewFlagSet("acmesolver", flag.ContinueOnError)
	flags.IntVar(&one.ListenPort, "listen-port", 8089, "port to listen on")
	flags.StringVar(&one.Domain, "domain", "", "domain that is asked for")
	flags.StringVar(&one.Token, "token", "", "token that is asked for")
	flags.StringVar(&one.Key, "key", "", "answer to it")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = one.Shutdown(ending)
	}()
	if err := one.Listen(logf.FromContext(ctx)); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended
	return nil
}
